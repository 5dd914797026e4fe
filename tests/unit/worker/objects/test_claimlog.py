"""What it takes to know what is claimed, and to find what is to be read, however many claims there are."""

import asyncio
import itertools
from collections import Counter
from random import Random

import msgspec
import pytest

from stream.batch import ORIGIN
from stream.budget import ByteBudget
from stream.clock import SystemClock
from stream.commit.claims import Claims
from stream.contracts import Shard, Start, StartKind
from stream.errors import Halted
from stream.source.bounded import sequence_of
from stream.source.growing import GrowingReads, GrowingSource
from stream.source.object_formats import Layout, ObjectCodec, ObjectFormat
from stream.source.objects import PinnedObject
from stream.storage.directory import DirectoryStore
from stream.storage.memory import MemoryStore
from stream.worker.objects import claimlog
from stream.worker.objects.choosing import claim_of
from stream.worker.objects.claimed import FAN
from stream.worker.objects.claimlog import ClaimLog, Pieces
from stream.worker.objects.slice import Slice

URL = "s3://lake/in"
LAYOUT = Layout(ObjectFormat.NDJSON, ObjectCodec.NONE, False, '"', None, ",")


class Counted(MemoryStore):
    """Counts calls; a listing counts once for each thousand objects, as S3 does."""

    def __init__(self):
        super().__init__()
        self.calls = Counter()

    async def get(self, key):
        self.calls["get"] += 1
        return await super().get(key)

    async def list(self, prefix, after=""):
        seen = 0
        async for info in super().list(prefix, after):
            seen += 1
            yield info
        self.calls["list"] += 1 + seen // 1000


def claims_of(counts, url=URL, shards=3):
    """Claims of so many objects each, spread over the shards."""
    number, ends = itertools.count(), [0] * shards
    for claim, count in enumerate(counts):
        parts = [[] for _ in ends]
        for at in range(count):
            parts[(claim + at) % shards].append(PinnedObject(f"{next(number)}.json", 3, "v", "2026-01-01T00:00:00+00:00"))
        appended = tuple((end, end + len(part)) for end, part in zip(ends, parts, strict=True))
        ends = [end for _, end in appended]
        yield Slice(tuple(item for part in parts for item in part), "w", str(claim), url=url, appended=appended)


async def filled(store, claims):
    """A log to which one worker has appended ``claims``."""
    log = ClaimLog(store, "objects", URL)
    await log.open(write_blocks=True)
    for claim in claims:
        assert await log.append(lambda claim=claim: claim) is claim
    return log


async def opened(store, *, write_blocks=False, url=URL):
    log = ClaimLog(store, "objects", url)
    await log.open(write_blocks=write_blocks)
    return log


def test_a_worker_that_starts_knows_what_all_others_claimed_and_reads_few_objects_for_it():
    async def body():
        store, count = Counted(), FAN**2 + 3 * FAN + 5
        log = await filled(store, claims_of([2] * count))
        store.calls.clear()
        fresh = await opened(store)
        assert (fresh.last, fresh.ends, len(fresh.claimed)) == (count, log.ends, 2 * count)
        names = [f"{number}.json" for number in range(2 * count)]
        assert None not in fresh.claimed.of_keys(names)
        assert fresh.claimed.of_keys(["new.json", f"{2 * count}.json"]) == [None, None]
        # One block of 4,096 claims, three of 64, five claims, and the last claim that a block holds.
        assert store.calls == {"get": 1 + 3 + 5 + 1, "list": 3}

    asyncio.run(body())


def test_without_blocks_it_is_the_same_and_they_are_made_again():
    async def body():
        store = Counted()
        log = await filled(store, claims_of([1] * (3 * FAN + 1)))
        blocks = {key: item.body for key, item in store._objects.items() if key.startswith("claimed/")}
        assert len(blocks) == 3
        for key in blocks:
            await store.delete(key)
        assert (await opened(store, write_blocks=True)).ends == log.ends
        assert {key: item.body for key, item in store._objects.items() if key.startswith("claimed/")} == blocks
        await store.put(next(iter(blocks)), b"rubbish")
        assert len((await opened(store)).claimed) == 3 * FAN + 1

    asyncio.run(body())


def test_objects_of_another_place_are_known_by_their_keys_here():
    async def body():
        store = MemoryStore()
        await filled(store, claims_of([1] * (FAN + 1), url="s3://lake/in/deeper"))
        for write_blocks in (True, False):
            log = await opened(store, write_blocks=write_blocks)
            assert log.claimed.of_keys(["deeper/0.json", "0.json", f"deeper/{FAN}.json"])[1] is None
            assert None not in log.claimed.of_keys(["deeper/0.json", f"deeper/{FAN}.json"])

    asyncio.run(body())


def test_what_others_append_is_followed_and_a_claim_that_comes_too_late_is_chosen_again():
    async def body():
        store, claims = MemoryStore(), list(claims_of([1, 1, 1]))
        log, other = await opened(store), await opened(store)
        await log.append(lambda: claims[0])
        seen = []

        def choose():
            seen.append(other.last)
            return claims[1] if other.last else claims[0]

        assert await other.append(choose) is claims[1]
        assert seen == [0, 1]
        log.changed.clear()
        await log.follow()
        assert (log.last, log.changed.is_set()) == (2, True)
        assert await log.append(lambda: None) is None

    asyncio.run(body())


@pytest.mark.parametrize("seed", range(10))
def test_each_object_is_found_from_any_position_and_from_any_hint(seed, monkeypatch):
    monkeypatch.setattr(claimlog, "_KEPT", 2)
    rng = Random(seed)

    async def body():
        store = Counted()
        # Claims with shards of their own stand between the others, and say how far those have got.
        claims = []
        for claim in claims_of([rng.randrange(1, 6) for _ in range(150)]):
            claims.append(claim)
            if rng.random() < 0.2:
                grown = tuple((end, end) for _, end in claim.appended)
                claims.append(Slice(claim.objects[:1], "w", "", bounds=((0, 1),), url=URL, appended=grown))
        log = await filled(store, claims)
        expected = {shard: [item.key for claim in claims if not claim.bounds for item in claim.objects_of(shard)] for shard in (1, 2, 3)}
        for shard, keys in expected.items():
            pieces = Pieces(log, store, LAYOUT, 5)
            assert pieces.shards() == 5
            for piece in [rng.randrange(1, len(keys) + 1) for _ in range(20)]:
                store.calls.clear()
                some = await pieces.pieces(shard, piece)
                assert [each.item.key for each in some] == keys[piece - 1 : piece - 1 + len(some)]
                assert some
                assert store.calls["get"] <= 20
            assert list(await pieces.pieces(shard, len(keys) + 1)) == []
        assert list(await Pieces(log, store, LAYOUT, 5).pieces(5, 1)) == []

    asyncio.run(body())


async def everything(pieces):
    """How many objects the three shards give, read side by side."""
    read, before = [0, 0, 0], -1
    while before != sum(read):
        before = sum(read)
        for shard, count in enumerate(read, 1):
            read[shard - 1] += len(await pieces.pieces(shard, count + 1))
    return sum(read)


def test_reading_on_takes_one_request_for_each_claim():
    async def body():
        store = Counted()
        await filled(store, claims_of([6] * 100))
        log = await opened(store)
        store.calls.clear()
        assert await everything(Pieces(log, store, LAYOUT, 3)) == 600
        assert store.calls["get"] <= 101

    asyncio.run(body())


def test_a_claim_that_is_missing_halts_whether_blocks_hold_it_or_not():
    async def body():
        store = MemoryStore()
        await filled(store, claims_of([1] * (FAN + 9)))
        key = Claims(store, "objects", Slice).key
        gone = await store.get(key(FAN + 3))
        await store.delete(key(FAN + 3))
        with pytest.raises(Halted, match=r"000067\.json .* is missing"):
            await opened(store)
        await store.create(key(FAN + 3), gone.body)
        await store.delete(key(5))
        log = await opened(store)
        with pytest.raises(Halted, match=r"000005\.json .* is missing"):
            await everything(Pieces(log, store, LAYOUT, 3))

    asyncio.run(body())


def test_claims_beyond_a_million_follow_those_before():
    async def body():
        store = MemoryStore()
        claims = Claims(store, "objects", Slice)
        claim = next(claims_of([1]))
        for number in range(999_998, 1_000_003):
            assert await claims.create(number, claim)
            assert not await claims.create(number, msgspec.structs.replace(claim, worker="other"))
        assert [number async for number, _ in claims.after(999_997)] == list(range(999_998, 1_000_003))
        assert [number async for number, _ in claims.after(1_000_000)] == [1_000_001, 1_000_002]

    asyncio.run(body())


def test_a_range_that_another_worker_began_is_read_again_although_its_claims_were_not_followed(tmp_path):
    async def body():
        folder, state = DirectoryStore(tmp_path), MemoryStore()
        writer, stale = await opened_on(folder, state), await opened_on(folder, state)
        for number in range(3):
            await folder.put(f"{number}.json", b'{"id": 1}\n{"id": 2}\n')
            (info,) = [info async for info in folder.list(f"{number}.json")]
            claim = msgspec.structs.replace(claim_of([info], writer.ends, 1, 0), url=folder.url)
            assert await writer.append(lambda claim=claim: claim) is claim
            if number == 0:
                await stale.follow()
        budget, emitted = ByteBudget(2**26), []
        pieces, reads = Pieces(stale, folder, LAYOUT, 1), GrowingReads(once=False)
        source = GrowingSource("objects", pieces, state, reads, budget, SystemClock(), emitted.append)
        end, rows, position = sequence_of(4, 0), 0, ORIGIN
        async for page in source.read(Shard("objects", "watch-0001"), ORIGIN, Start(StartKind.TRIM_HORIZON), end):
            rows, position = rows + page.batch.rows, page.position
            budget.release(page.held)
        return rows, position == end

    assert asyncio.run(body()) == (6, True)


async def opened_on(folder, state):
    log = ClaimLog(state, "objects", folder.url)
    await log.open(write_blocks=False)
    return log
