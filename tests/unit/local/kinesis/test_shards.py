from stream.local.kinesis.shards import MAX_PAGE_BYTES, MAX_PAGE_RECORDS, Shard, boundaries, uniform
from tests.unit.local.kinesis.calls import START_MS

MIB = 1024 * 1024


def _shard() -> Shard:
    return uniform(1, START_MS)[0]


def test_a_page_holds_at_most_ten_thousand_records() -> None:
    shard = _shard()
    for _ in range(MAX_PAGE_RECORDS + 1):
        shard.put(b'"k"', b"", 1, START_MS)
    assert len(shard.read(0, MAX_PAGE_RECORDS + 1, START_MS).records) == MAX_PAGE_RECORDS


def test_a_page_holds_at_most_ten_mebibytes() -> None:
    shard = _shard()
    for _ in range(25):
        shard.put(b'"k"', b"", MIB, START_MS)
    sizes, position = [], shard.starting_sequence
    for _ in range(3):
        page = shard.read(position, 10_000, START_MS)
        sizes.append((len(page.records), page.size))
        position = page.last
    assert sizes == [(10, 10 * MIB), (10, 10 * MIB), (5, 5 * MIB)]


def test_a_record_larger_than_a_page_is_still_delivered() -> None:
    shard = _shard()
    shard.put(b'"k"', b"", MAX_PAGE_BYTES + 256, START_MS)
    shard.put(b'"k"', b"", 1, START_MS)
    assert len(shard.read(0, 10_000, START_MS).records) == 1


def test_sizes_stay_correct_after_trimming() -> None:
    shard = _shard()
    for index in range(12):
        shard.put(b'"k"', b"", MIB, START_MS + index)
    shard.trim(START_MS + 5)
    page = shard.read(0, 10_000, START_MS)
    assert (len(page.records), page.size, shard.records) == (7, 7 * MIB, 7)
    shard.trim(START_MS + 100)
    shard.put(b'"k"', b"", 3, START_MS + 100)
    assert shard.read(0, 10_000, START_MS).size == 3


def test_the_lag_is_zero_exactly_when_nothing_is_left() -> None:
    shard = _shard()
    first = shard.put(b'"k"', b"", 1, START_MS)
    shard.put(b'"k"', b"", 1, START_MS + 10)
    assert shard.read(0, 1, START_MS + 15).behind_ms == 5
    assert shard.read(0, 1, START_MS + 10).behind_ms == 1
    assert shard.read(first, 1, START_MS + 15).behind_ms == 0


def test_a_clock_that_goes_back_does_not_reorder_records() -> None:
    shard = _shard()
    first = shard.put(b'"k"', b"", 1, START_MS + 5000)
    second = shard.put(b'"k"', b"", 1, START_MS)
    assert first < second
    assert shard.before_timestamp(START_MS + 5000) == shard.starting_sequence


def test_the_boundaries_of_three_shards_are_those_of_the_service() -> None:
    """As DescribeStream shows them for a real stream of three shards."""
    assert boundaries(3) == [0, 113427455640312821154458202477256070485, 226854911280625642308916404954512140970]
