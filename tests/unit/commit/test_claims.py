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
