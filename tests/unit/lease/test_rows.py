"""Rows compared with those that the Java KCL 2.5.8 and 3.1.3 wrote (tests/data/kcl), attribute by attribute."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.lease.rows import (
    ExtendedSequenceNumber,
    Lease,
    Pending,
    Progress,
    RowProblem,
    decode,
    encode,
    is_lease,
)

DATA = Path(__file__).parents[2] / "data" / "kcl"


def golden():
    for path in sorted(DATA.glob("tables_*.txt")):
        for line in path.read_text().splitlines():
            if line.startswith("   {"):
                yield json.loads(line)


ROWS = [row for row in golden() if "leaseKey" in row]
OTHERS = [row for row in golden() if "leaseKey" not in row]


def test_the_golden_rows_are_complete():
    assert len(ROWS) == 9
    assert len(OTHERS) >= 4


def plain(item):
    """Sets have no order on the wire, and 0.0 and 0 are one number."""
    return {
        name: {kind: sorted(value) if kind == "SS" else float(value) if kind == "N" else value for kind, value in typed.items()}
        for name, typed in item.items()
    }


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["leaseKey"]["S"][-4:])
def test_a_row_written_by_the_kcl_is_written_back_unchanged(row):
    lease = decode(row)
    assert plain(encode(lease)) == plain(row)
    assert not lease.unknown


@pytest.mark.parametrize("row", OTHERS, ids=lambda row: str(sorted(row)))
def test_a_row_that_is_not_a_lease_is_recognised(row):
    assert not is_lease(row)


def test_every_part_of_an_ended_parents_row_is_decoded():
    row = next(row for row in ROWS if "childShardIds" in row and "parentShardId" in row)
    lease = decode(row)
    assert lease.ended
    assert lease.children == {"shardId-000000000004"}
    assert lease.parents == {"shardId-000000000000"}
    assert lease.hash_range == (0, 85070591730234615865843651857942052862)
    assert lease.owner == "w4a"


def test_a_row_of_kcl_3_5_is_a_lease_by_its_type():
    row = {"leaseKey": {"S": "s"}, "leaseCounter": {"N": "1"}, "checkpoint": {"S": "LATEST"}, "entityType": {"S": "LEASE"}}
    assert is_lease(row)
    assert encode(decode(row))["entityType"] == {"S": "LEASE"}
    assert not is_lease(row | {"entityType": {"S": "WORKER_METRIC_STATS"}})


def test_a_pending_state_that_the_kcl_wrote_as_a_number_counts_as_none():
    row = encode(Lease("s", ExtendedSequenceNumber("5"), pending=Pending(ExtendedSequenceNumber("7", 2))))
    row["pendingCheckpointState"] = {"N": "2"}
    assert decode(row).pending == Pending(ExtendedSequenceNumber("7", 2), None)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"checkpoint": {"S": "SOMEWHERE"}}, "SOMEWHERE"),
        ({"checkpoint": {"N": "5"}}, "attribute checkpoint is of type N"),
        ({"leaseCounter": {"N": "x"}}, "'shardId-0'"),
        ({"leaseOwner": {"N": "5"}}, "leaseOwner"),
    ],
)
def test_a_damaged_row_is_named(change, complaint):
    row = encode(Lease("shardId-0", ExtendedSequenceNumber("5"))) | change
    with pytest.raises(RowProblem, match=complaint):
        decode(row)


def test_checkpoints_are_ordered_as_in_the_kcl():
    texts = [("AT_TIMESTAMP", 0), ("TRIM_HORIZON", 0), ("LATEST", 0), ("9", 0), ("10", 0), ("10", 1), ("SHARD_END", 0)]
    ranks = [ExtendedSequenceNumber(*each).rank for each in texts]
    assert ranks == sorted(ranks)
    assert len(set(ranks)) == len(ranks)


def test_a_checkpoint_written_by_another_application_is_foreign():
    own = ExtendedSequenceNumber("100", 2)
    lease = Lease("s", own, progress=Progress(100, 2, 50, own))
    assert lease.foreign is None
    moved = decode(encode(lease) | {"checkpoint": {"S": "120"}, "checkpointSubSequenceNumber": {"N": "1"}})
    assert moved.foreign == ExtendedSequenceNumber("120", 1)
    ended = decode(encode(lease) | {"checkpoint": {"S": "SHARD_END"}, "checkpointSubSequenceNumber": {"N": "0"}})
    assert ended.foreign == ExtendedSequenceNumber("SHARD_END")
    assert Lease("s", ExtendedSequenceNumber("TRIM_HORIZON")).foreign is None
    assert Lease("s", ExtendedSequenceNumber("7")).foreign == ExtendedSequenceNumber("7")


def test_with_several_streams_the_shard_is_the_last_part_of_a_lease_key():
    key = "123456789012:orders:1700000000:shardId-000000000001"
    assert Lease(key, ExtendedSequenceNumber("LATEST")).shard == "shardId-000000000001"


def test_edited_hints_count_as_none():
    own = ExtendedSequenceNumber("5")
    row = encode(Lease("s", own, progress=Progress(5, 0, 1, own)))
    assert decode(row).progress is not None
    assert decode(row | {"sxUnitAfter": {"S": "?"}}).progress is None


numbers = st.integers(1, 2**186)
checkpoints = st.builds(
    ExtendedSequenceNumber,
    st.one_of(numbers.map(str), st.sampled_from(["TRIM_HORIZON", "LATEST", "AT_TIMESTAMP", "SHARD_END"])),
    st.integers(0, 2**31),
)
names = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=20)
progresses = st.builds(
    Progress,
    st.none() | numbers,
    st.integers(0, 99),
    numbers,
    checkpoints,
    st.integers(0, 9),
    st.none() | st.just(datetime(2026, 5, 1, 12, tzinfo=UTC)),
)
leases = st.builds(
    Lease,
    key=names,
    checkpoint=checkpoints,
    counter=st.integers(0, 2**53),
    owner=st.none() | names,
    owner_switches=st.integers(0, 99),
    pending=st.none() | st.builds(Pending, checkpoints, st.none() | st.just("AAEC")),
    parents=st.frozensets(names, max_size=2),
    children=st.frozensets(names, max_size=2),
    hash_range=st.none() | st.tuples(st.integers(0, 2**128 - 1), st.integers(0, 2**128 - 1)),
    checkpoint_owner=st.none() | names,
    stream_name=st.none() | names,
    shard_id=st.none() | names,
    progress=st.none() | progresses,
    operation=st.just("") | names,
    unknown=st.dictionaries(names.map("zz{}".format), st.builds(lambda text: {"S": text}, names), max_size=3),
)


@given(leases)
def test_any_lease_reads_back(lease):
    row = encode(lease)
    assert is_lease(row)
    assert decode(row) == lease
    assert all(re.fullmatch("SS|S|N|B", kind) for typed in row.values() for kind in typed)
    assert all(value not in ("", [], None) for typed in row.values() for value in typed.values())
