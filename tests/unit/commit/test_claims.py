import asyncio

import msgspec
import pytest

from stream.commit.claims import Claims
from stream.errors import Halted, Retryable
from stream.storage.memory import MemoryStore


class NumbersClaim(msgspec.Struct, frozen=True):
    numbers: tuple[int, ...]
    worker: str = ""


async def take(claims, wanted, worker=""):
    async def choose(known):
        left = tuple(sorted(set(wanted).difference(*(each.numbers for each in known))))
        return NumbersClaim(left, worker) if left else None

    return await claims.claim(choose)


def test_concurrent_claimers_never_claim_the_same_object_twice():
    async def body():
        claims = Claims(MemoryStore(), "s", NumbersClaim)
        numbers = await asyncio.gather(*(take(claims, range(at, at + 5), str(at)) for at in range(10)))
        found = [number for each in await claims.all() for number in each.numbers]
        assert sorted(found) == list(range(14))
        assert sorted(number for number in numbers if number) == list(range(1, len(await claims.all()) + 1))

    asyncio.run(body())


class LosesFirstReply(MemoryStore):
    """Takes the first write and loses the reply."""

    lost = False

    async def create(self, key, body):
        tag = await super().create(key, body)
        if not self.lost:
            self.lost = True
            raise Retryable("no reply came")
        return tag


def test_a_claim_whose_reply_was_lost_is_recognised_as_our_own():
    async def body():
        claims = Claims(LosesFirstReply(), "s", NumbersClaim)
        assert await take(claims, [1, 2], "a") == 1
        assert await take(claims, [1, 2], "a") is None
        assert len(await claims.all()) == 1

    asyncio.run(body())


def test_a_missing_or_broken_claim_halts():
    async def body():
        store = MemoryStore()
        claims = Claims(store, "s", NumbersClaim)
        await take(claims, [1])
        await take(claims, [2])
        await store.put("claims/s/000002.json", b"{")
        with pytest.raises(Halted, match=r"000002\.json .* is not readable"):
            await claims.all()
        await store.delete("claims/s/000001.json")
        with pytest.raises(Halted, match=r"000001\.json .* is missing"):
            await claims.all()

    asyncio.run(body())


class Unanswered(MemoryStore):
    """The first write is lost on the way. ``other``: what somebody else writes there instead."""

    def __init__(self, other=None):
        super().__init__()
        self.other, self.lost = other, False

    async def create(self, key, body):
        if self.lost:
            return await super().create(key, body)
        self.lost = True
        if self.other is not None:
            await super().create(key, self.other)
        raise Retryable("no reply came")


def test_a_claim_that_was_lost_on_the_way_is_made_again():
    async def body():
        claims = Claims(Unanswered(), "s", NumbersClaim)
        assert await take(claims, [1, 2], "a") == 1
        assert await claims.all() == [NumbersClaim((1, 2), "a")]

    asyncio.run(body())


def test_without_a_reply_the_claim_of_another_process_is_not_taken_for_our_own():
    async def body():
        other = NumbersClaim((1, 2), "b")
        claims = Claims(Unanswered(msgspec.json.encode(other, order="sorted")), "s", NumbersClaim)
        assert await take(claims, [1, 2, 3], "a") == 2
        assert await claims.all() == [other, NumbersClaim((3,), "a")]

    asyncio.run(body())


def test_many_claims_are_read_in_order_from_any_of_them_on():
    async def body():
        claims = Claims(MemoryStore(), "s", NumbersClaim)
        for number in range(1, 151):
            assert await claims.create(number, NumbersClaim((number,)))
        for last in (0, 1, 63, 64, 70, 149, 150):
            found = [(number, claim.numbers) async for number, claim in claims.after(last)]
            assert found == [(number, (number,)) for number in range(last + 1, 151)]

    asyncio.run(body())


def test_keys_of_claims_sort_like_their_numbers():
    claims = Claims(MemoryStore(), "s", NumbersClaim)
    numbers = [1, 9, 10, 999_999, 1_000_000, 1_000_001, 9_999_999, 10_000_000]
    assert sorted(map(claims.key, reversed(numbers))) == [claims.key(number) for number in numbers]
