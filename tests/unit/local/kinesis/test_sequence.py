from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from stream.local.kinesis.sequence import END_COUNTER, Parts, base, number, parts

SECONDS = st.integers(0, 2**36 - 1)
INDEXES = st.integers(0, 2**32 - 1)
COUNTERS = st.integers(0, END_COUNTER)


@given(SECONDS, INDEXES, COUNTERS, SECONDS)
def test_a_number_can_be_taken_apart(created: int, index: int, counter: int, second: int) -> None:
    assert parts(number(base(created, index), counter, second)) == Parts(created, index, counter, second)


@given(SECONDS, INDEXES, COUNTERS, SECONDS)
def test_every_number_has_56_digits(created: int, index: int, counter: int, second: int) -> None:
    assert len(str(number(base(created, index), counter, second))) == 56


@given(st.lists(SECONDS, min_size=2, max_size=2, unique=True), INDEXES, INDEXES, COUNTERS, COUNTERS, SECONDS)
def test_a_shard_created_later_has_greater_numbers(
    created: list[int], index: int, other: int, counter: int, other_counter: int, second: int
) -> None:
    early, late = sorted(created)
    assert number(base(early, index), counter, second) < number(base(late, other), other_counter, second)


def test_a_number_from_the_services_documentation_has_this_layout() -> None:
    """SequenceNumber in the GetRecords example of the Kinesis Data Streams API reference's era: 2018, seventh shard."""
    said = parts(49590338271490256608559692538361571095921575989136588898)
    assert said is not None
    assert said.shard_index == 6
    assert datetime.fromtimestamp(said.shard_second, UTC).year == 2018
    assert 0 < said.second - said.shard_second < 366 * 86400


def test_other_numbers_are_not_taken_apart() -> None:
    assert parts(7) is None
    assert parts(0) is None
    assert parts(number(base(1, 1), 1, 1) + 1) is None
