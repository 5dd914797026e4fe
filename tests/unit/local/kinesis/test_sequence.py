from hypothesis import given
from hypothesis import strategies as st

from stream.local.kinesis.sequence import END_COUNTER, Parts, base, number, parts

SECONDS = st.integers(0, 2**36 - 1)
INDEXES = st.integers(0, 2**32 - 1)
COUNTERS = st.integers(0, END_COUNTER)


@given(SECONDS, INDEXES, COUNTERS, SECONDS)
def test_a_sequence_number_can_be_taken_apart(created: int, index: int, counter: int, second: int) -> None:
    assert parts(number(base(created, index), counter, second)) == Parts(created, index, counter, second)


@given(SECONDS, INDEXES, COUNTERS, SECONDS)
def test_every_sequence_number_has_56_digits(created: int, index: int, counter: int, second: int) -> None:
    assert len(str(number(base(created, index), counter, second))) == 56


@given(st.lists(SECONDS, min_size=2, max_size=2, unique=True), INDEXES, INDEXES, COUNTERS, COUNTERS, SECONDS)
def test_a_shard_created_later_has_greater_numbers(
    created: list[int], index: int, other: int, counter: int, other_counter: int, second: int
) -> None:
    early, late = sorted(created)
    assert number(base(early, index), counter, second) < number(base(late, other), other_counter, second)


def test_a_sequence_number_of_the_service_has_the_same_layout() -> None:
    """The record in AWS Lambda's guide to Kinesis events: shardId-000000000006, arrived at 1545084650.987."""
    said = parts(49590338271490256608559692538361571095921575989136588898)
    assert said is not None
    assert (said.shard_index, said.second) == (6, 1545084650)
    assert said.shard_second < said.second


def test_other_numbers_are_not_taken_apart() -> None:
    assert parts(7) is None
    assert parts(0) is None
    assert parts(number(base(1, 1), 1, 1) + 1) is None
