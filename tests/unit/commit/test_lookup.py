import asyncio
import bisect

from hypothesis import given, settings
from hypothesis import strategies as st

from stream.commit.lookup import last_starts, position_of, shards_of, streams_of, unit_start
from stream.commit.naming import genesis_key, manifest_key, shard_prefix
from stream.contracts import ObjectInfo
from stream.storage.memory import MemoryStore
from tests.sealed import NOON

SHARD = "shardId-000000000000"
FIRST = 49590338271490256608559692538361571095921575989136588898


class Listing:
    """A store that only lists, in pages as S3 does, and counts them."""

    def __init__(self, keys):
        self.keys = sorted(keys)
        self.pages = 0

    async def list(self, prefix, after=""):
        at = max(bisect.bisect_left(self.keys, prefix), bisect.bisect_right(self.keys, after))
        while at < len(self.keys) and self.keys[at].startswith(prefix):
            self.pages += 1
            for key in self.keys[at : at + 1000]:
                if key.startswith(prefix):
                    yield ObjectInfo(key, 1, NOON)
            at += 1000


def listing(starts, shard=SHARD):
    return Listing([manifest_key("events", shard, start) for start in starts] + [genesis_key("events", shard)])


def find(store, sequence):
    return asyncio.run(unit_start(store, "events", SHARD, sequence))


@given(st.lists(st.integers(0, 10**57), max_size=30, unique=True), st.integers(1, 10**57))
@settings(max_examples=100, deadline=None)
def test_the_greatest_start_below_a_position_is_found(starts, sequence):
    assert find(listing(starts), sequence) == max((start for start in starts if start < sequence), default=None)


@given(st.lists(st.integers(0, 40), max_size=20, unique=True), st.integers(1, 45))
@settings(max_examples=100, deadline=None)
def test_the_greatest_start_below_is_found_among_adjacent_positions(starts, sequence):
    assert find(listing(starts), sequence) == max((start for start in starts if start < sequence), default=None)


def test_a_hundred_thousand_units_need_few_listings():
    starts = [0] + [FIRST + n * 10**33 + n % 7 for n in range(100_000)]
    for wanted in (1, 500, 33_333, 77_777, 99_999):
        store = listing(starts)
        assert find(store, starts[wanted] + 5) == starts[wanted]
        assert store.pages <= 12
    assert find(listing(starts), 10**59) == starts[-1]
    assert find(listing(starts), FIRST) == 0


def test_in_a_log_that_one_page_holds_one_listing_is_enough():
    for starts in ([0], [0, FIRST], [0, *(FIRST + n * 10**33 for n in range(900))]):
        for wanted in {0, len(starts) // 2, len(starts) - 1}:
            store = listing(starts)
            assert find(store, starts[wanted] + 5) == starts[wanted]
            assert store.pages == 1
    store = listing([0, *(FIRST + n * 10**33 for n in range(5000))])
    assert find(store, FIRST) == 0
    assert store.pages == 1


def test_units_in_bursts_need_few_listings():
    starts = sorted({0, *(FIRST + n * 10**45 + m for n in range(50) for m in range(2000))})
    store = listing(starts)
    assert find(store, FIRST + 25 * 10**45 + 1001) == FIRST + 25 * 10**45 + 1000
    assert store.pages <= 60


def names_in(found, store):
    async def collect():
        return [name async for name in found(store)]

    return asyncio.run(collect())


def folders_of(*keys):
    store = MemoryStore()
    for key in keys:
        asyncio.run(store.put(key, b""))
    return store


def test_shards_are_listed_without_listing_their_units():
    keys = [key for n in range(5) for key in listing(range(30), f"shardId-{n:012d}").keys]
    store = folders_of(*keys, "commits/other/shardId-1/genesis.json")
    assert names_in(lambda store: shards_of(store, "events"), store) == [f"shardId-{n:012d}" for n in range(5)]


def test_streams_are_listed_without_listing_their_shards():
    names = ["a", "a-b", "a.b", "a0", "ab"]
    store = folders_of(*(f"commits/{name}/shardId-{n:012d}/genesis.json" for name in names for n in range(20)))
    assert sorted(names_in(streams_of, store)) == names


def test_only_keys_of_manifests_give_a_position():
    prefix = shard_prefix("events", SHARD)
    assert position_of(manifest_key("events", SHARD, 7), prefix) == 7
    for wrong in (genesis_key("events", SHARD), f"{prefix}7.json", manifest_key("events", "shardId-1", 7), prefix + "٣" * 60 + ".json"):
        assert position_of(wrong, prefix) is None


def newest(store, count, near):
    return asyncio.run(last_starts(store, "events", SHARD, count, near))


@given(st.lists(st.integers(0, 10**57), max_size=30, unique=True), st.integers(1, 40))
@settings(max_examples=100, deadline=None)
def test_the_newest_units_are_found(starts, count):
    assert newest(listing(starts), count, max(starts, default=0)) == sorted(starts)[-count:]


def test_the_newest_of_a_hundred_thousand_units_need_few_listings():
    starts = [0] + [FIRST + n * 10**33 + n % 7 for n in range(100_000)]
    for length in (500, 1000, 1001, 1999, 2000, 3500, 100_001):
        for count in (1, 200, 999):
            store = listing(starts[:length])
            assert newest(store, count, starts[length - 1] + 10**32) == starts[:length][-count:]
            assert store.pages <= 30
    for near in (0, FIRST, starts[50_000], 10**60 - 1):
        assert newest(listing(starts), 999, near) == starts[-999:]
