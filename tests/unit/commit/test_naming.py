import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.batch import SeqRange
from stream.commit import naming

POSITIONS = st.integers(0, 2**186)


@given(POSITIONS, POSITIONS)
def test_keys_sort_in_the_order_of_positions(one, other):
    keys = [naming.manifest_key("s", "shardId-1", position) for position in (one, other)]
    assert (keys[0] < keys[1]) == (one < other)


@pytest.mark.parametrize("after", [-1, 10**60])
def test_an_impossible_position_is_refused(after):
    with pytest.raises(ValueError, match="not a Kinesis position"):
        naming.manifest_key("s", "shardId-1", after)


def test_names_are_derived_from_positions_alone():
    assert naming.unit_name("shardId-1", SeqRange(5, 9)) == "shardId-1-5-9"
    assert naming.manifest_key("s", "a", 5) == f"commits/s/a/{5:060d}.json"
    assert naming.genesis_key("s", "a") > naming.manifest_key("s", "a", 10**59)
