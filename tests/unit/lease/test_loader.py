import asyncio
from datetime import timedelta

from stream.lease.loader import Hold, LoaderLease, life_for
from stream.storage.memory import MemoryStore
from tests.sealed import StillClock

LIFE = life_for(timedelta(seconds=60))


def fleet(clock):
    store = MemoryStore()
    return store, *(LoaderLease(store, "lease.json", name, clock, LIFE) for name in ("one", "two"))


def test_one_loader_has_the_lease_until_it_expires():
    async def run():
        clock = StillClock()
        _, one, two = fleet(clock)
        held = [await one.take(), await one.take(), await two.take()]
        clock.time += LIFE - timedelta(seconds=1)
        held.append(await two.take())
        clock.time += timedelta(seconds=2)
        held += [await two.take(), await one.take()]
        return held, await one.holder()

    assert asyncio.run(run()) == ([Hold.ANEW, Hold.KEPT, Hold.NO, Hold.NO, Hold.ANEW, Hold.NO], "two")


class Between(MemoryStore):
    """A store in which ``other`` happens right after something was read."""

    other = None

    async def get(self, key):
        found = await super().get(key)
        if self.other is not None:
            other, self.other = self.other, None
            await other()
        return found


def test_of_two_loaders_that_find_the_lease_free_at_once_one_has_it():
    async def run():
        clock, store, holds = StillClock(), Between(), []
        one, two = (LoaderLease(store, "lease.json", name, clock, LIFE) for name in ("one", "two"))

        async def other():
            holds.append(await two.take())

        for _ in range(2):  # first there is none, then it has expired
            store.other = other
            holds.append(await one.take())
            clock.time += 2 * LIFE
        return holds

    assert asyncio.run(run()) == [Hold.ANEW, Hold.NO, Hold.KEPT, Hold.NO]


def test_a_lease_that_is_given_up_is_free_at_once():
    async def run():
        _, one, two = fleet(StillClock())
        await one.take()
        await two.give_up()
        assert await two.take() is Hold.NO
        await one.give_up()
        assert await one.holder() == ""
        return await two.take()

    assert asyncio.run(run()) is Hold.ANEW


def test_an_unreadable_lease_is_taken_over():
    async def run():
        store, one, _ = fleet(StillClock())
        await store.put("lease.json", b"{broken")
        assert await one.holder() == ""
        return await one.take(), await one.take()

    assert asyncio.run(run()) == (Hold.ANEW, Hold.KEPT)


def test_a_claim_from_a_clock_that_was_far_ahead_holds_nobody_up():
    async def run():
        clock, wrong = StillClock(), StillClock()
        wrong.time += timedelta(days=1)
        store, _, two = fleet(clock)
        stepped = LoaderLease(store, "lease.json", "one", wrong, LIFE)
        await stepped.take()
        assert await two.holder() == ""
        held = [await two.take()]
        # A clock that is ahead by what AWS just tolerates is no reason to take the lease from its holder.
        wrong.time = clock.time + timedelta(minutes=5)
        await two.give_up()
        held += [await stepped.take(), await two.take()]
        return held

    assert asyncio.run(run()) == [Hold.ANEW, Hold.ANEW, Hold.NO]
