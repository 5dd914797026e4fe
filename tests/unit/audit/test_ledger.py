import hashlib
from dataclasses import replace
from datetime import UTC, datetime

import duckdb
import msgspec
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from stream.audit.ledger import Segment, SegmentError, UnitFacts, encode_segment, make_segment, read_segment
from stream.audit.set_hash import SetHash
from stream.batch import RAW_SCHEMA, ROW, Batch, Outcome
from stream.contracts import Encoded, OutputFile, Transformed

FIRST = 49590338271490256608559692538361571095921575989136588898
UNIT = UnitFacts("flights", "events", "shardId-000000000003", FIRST - 1, FIRST + 10**6, "d" * 32)
SETTLED = {ROW: pl.UInt32, "outcome": pl.UInt8, "stage": pl.String, "reason": pl.String}
PLACEMENT = {ROW: pl.UInt32, "file": pl.UInt16, "line": pl.UInt32}
WRITTEN = "written"


def batch(records):
    arrival = datetime(2026, 1, 1, tzinfo=UTC)
    rows = [(str(FIRST + row // 2), row % 2, arrival, "key", b"x" * row, 0) for row in range(records)]
    return Batch(pl.DataFrame(rows, schema=RAW_SCHEMA, orient="row"), records * (records - 1) // 2)


def transformed(ends):
    """``ends`` says per record either how many rows it became or (outcome, stage, reason)."""
    rows = [row for row, end in enumerate(ends) if isinstance(end, int) for _ in range(end)]
    settled = [(row, *end) for row, end in enumerate(ends) if not isinstance(end, int)]
    frame = pl.DataFrame({ROW: rows}, schema={ROW: pl.UInt32})
    return Transformed(frame, pl.DataFrame(settled, schema=SETTLED, orient="row"), len(ends))


def output(sink, rows, mark):
    body = f"{sink}{mark}".encode()
    return OutputFile(sink, f"{sink}/{mark}", body, rows, hashlib.sha256(body).hexdigest())


def spread(sink, frame, files):
    """The rows of ``frame`` distributed over ``files`` files in turn."""
    lines = [(row, index % files, index // files) for index, row in enumerate(frame[ROW])]
    heights = [sum(1 for _, file, _ in lines if file == number) for number in range(files)]
    return Encoded(
        tuple(output(sink, height, number) for number, height in enumerate(heights)),
        pl.DataFrame(lines, schema=PLACEMENT, orient="row").sort("file", "line"),
    )


def rejected(settled):
    refused = settled.filter(pl.col("outcome") == Outcome.DEAD_LETTERED)[ROW]
    lines = [(row, 0, line) for line, row in enumerate(refused)]
    return Encoded((output("rejects", len(lines), 0),), pl.DataFrame(lines, schema=PLACEMENT, orient="row"))


ENDS = [
    1,
    (Outcome.FILTERED, "filter", None),
    3,
    (Outcome.DEAD_LETTERED, "cast", "cast_failed:n"),
    1,
    (Outcome.OUT_OF_RANGE, None, None),
]


def segment(ends=ENDS, files=2):
    made = transformed(ends)
    placed = {"lake": spread("lake", made.frame, files), "copy": spread("copy", made.frame, 1), "rejects": rejected(made.settled)}
    return encode_segment(make_segment(UNIT, batch(len(ends)), made, placed), "stem")


def test_rarely_needed_columns_are_built_on_first_use():
    made = transformed(ENDS * 100)
    whole = make_segment(UNIT, batch(600), made, {"lake": spread("lake", made.frame, 1)})
    assert whole.frame is whole.frame
    assert whole.rows.columns == [name for name in whole.frame.columns if name not in ("outcome", "stage", "reason")]
    assert_frame_equal(whole.frame.select(whole.rows.columns), whole.rows)
    assert whole.size == whole.rows.estimated_size() + 2 * 600


def test_the_file_reads_back_as_the_segment():
    made = transformed(ENDS)
    placed = {"lake": spread("lake", made.frame, 2), "rejects": rejected(made.settled)}
    whole = make_segment(UNIT, batch(len(ENDS)), made, placed)
    read = read_segment(encode_segment(whole, "stem").body)
    assert read.header == whole.header
    assert_frame_equal(read.frame, whole.frame)


def test_every_record_has_one_row_with_its_outcome():
    read = read_segment(segment().body)
    assert read.frame.select("seq", "sub", "outcome", "stage", "reason", "rows", "bytes").rows() == [
        (str(FIRST), 0, WRITTEN, None, None, 1, 0),
        (str(FIRST), 1, "filtered", "filter", None, 0, 1),
        (str(FIRST + 1), 0, WRITTEN, None, None, 3, 2),
        (str(FIRST + 1), 1, "dead_lettered", "cast", "cast_failed:n", 0, 3),
        (str(FIRST + 2), 0, WRITTEN, None, None, 1, 4),
        (str(FIRST + 2), 1, "out_of_range", None, None, 0, 5),
    ]
    assert read.frame["arrival_ms"].unique().to_list() == [1767225600000]


def test_destinations_name_the_first_row_of_a_record_in_every_target():
    read = read_segment(segment().body)
    assert [item.key for item in read.header.objects] == ["lake/0", "lake/1", "copy/0", "rejects/0"]
    assert read.header.targets == ("lake", "copy", "rejects")
    assert read.frame.select("dest_0", "row_0").rows() == [(0, 0), (None, None), (0, 1), (None, None), (0, 2), (None, None)]
    assert read.frame.select("dest_1", "row_1").rows() == [(2, 0), (None, None), (2, 1), (None, None), (2, 4), (None, None)]
    assert read.frame.select("dest_2", "row_2").rows() == [(None, None)] * 3 + [(3, 0)] + [(None, None)] * 2


def test_the_header_totals_match_the_rows():
    file = segment()
    header = read_segment(file.body).header
    assert (header.application, header.stream, header.shard, header.pipeline) == ("flights", "events", UNIT.shard, "d" * 32)
    assert (int(header.after), int(header.last), header.records) == (UNIT.after, UNIT.last, 6)
    assert header.outcomes == {"dead_lettered": 1, "filtered": 1, "out_of_range": 1, "written": 3}
    assert header.set_hash == SetHash.of(batch(6).frame["_sequence"], batch(6).frame["_subsequence"]).hex
    assert (file.sink, file.rows, file.key) == ("ledger", 6, f"stem.{file.sha256[:16]}.parquet")
    assert file.sha256 == hashlib.sha256(file.body).hexdigest()


def test_equal_units_give_equal_bytes():
    assert segment() == segment()


END = st.integers(1, 3) | st.sampled_from(
    [
        (Outcome.FILTERED, "f", None),
        (Outcome.DEAD_LETTERED, "c", "r"),
        (Outcome.DEDUPLICATED, "d", None),
        (Outcome.EXPIRED_GAP, None, "g"),
    ]
)


@given(st.lists(END, max_size=40), st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_any_segment_reads_back_without_problems(ends, files):
    read = read_segment(segment(ends, files).body)
    assert read.problems() == []
    labels = [WRITTEN if isinstance(end, int) else end[0].label for end in ends]
    assert read.frame["outcome"].to_list() == labels
    assert sum(read.header.outcomes.values()) == len(ends)


@pytest.mark.parametrize(
    "broken",
    [
        Transformed(transformed([1, 1]).frame, transformed([1]).settled, 3),
        Transformed(transformed([1, 1, 1]).frame, transformed([(2, "f", None)]).settled, 3),
        Transformed(transformed([1, 1, 1, 1]).frame, transformed([1]).settled, 3),
    ],
)
def test_a_record_without_an_outcome_or_with_two_is_refused(broken):
    with pytest.raises(ValueError, match="do not name each of them once"):
        make_segment(UNIT, batch(3), broken, {})


def test_a_unit_without_sinks_still_has_a_ledger():
    made = transformed([1, 1])
    read = read_segment(encode_segment(make_segment(UNIT, batch(2), made, {}), "stem").body)
    assert read.problems() == []
    assert read.frame.columns[-1] == "bytes"


def tampered(change):
    read = read_segment(segment().body)
    return Segment(read.header, change(read.frame))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda frame: frame.head(5), "5 rows"),
        (lambda frame: frame.with_columns(outcome=pl.lit(WRITTEN)), "outcomes are"),
        (lambda frame: frame.with_columns(sub=pl.col("sub") + 1), "set hash"),
        (lambda frame: frame.reverse(), "ascending"),
        (lambda frame: pl.concat([frame.head(1), frame.head(5)]), "ascending"),
        (lambda frame: frame.with_columns(seq=pl.lit(str(UNIT.last + 1))), "6 records are outside"),
        (lambda frame: frame.with_columns(seq=pl.lit(str(UNIT.after))), "6 records are outside"),
        (lambda frame: frame.with_columns(dest_0=pl.lit(9, pl.UInt32)), "dest_0"),
        (lambda frame: frame.with_columns(dest_1=pl.lit(0, pl.UInt32)), "not of copy"),
    ],
)
def test_tampering_is_detected(change, says):
    assert says in " ".join(tampered(change).problems())


HEADER = msgspec.json.encode(read_segment(segment().body).header)


def with_header(header):
    out = pa.BufferOutputStream()
    table = pa.table({"seq": ["1"]})
    with pq.ParquetWriter(out, table.schema) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata(header)
    return out.getvalue().to_pybytes()


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"no parquet", "is a Parquet file"),
        (b"", "is a Parquet file"),
        (segment().body[:-20], "is a Parquet file"),
        (with_header({"stream.ledger": HEADER}), "should have the columns seq, sub"),
        (with_header({"other": "x"}), "not a ledger segment"),
        (with_header({"stream.ledger": "{"}), "cannot be read"),
        (with_header({"stream.ledger": "[]"}), "cannot be read"),
        (with_header({"stream.ledger": '{"version":1}'}), "cannot be read"),
        (with_header({"stream.ledger": '{"version":2}'}), "version 2"),
    ],
)
def test_a_file_that_is_not_a_segment_is_refused_with_the_reason(body, says):
    with pytest.raises(SegmentError, match=says):
        read_segment(body)


def test_the_header_is_readable_json_in_the_metadata():
    metadata = pq.read_metadata(pa.BufferReader(segment().body)).metadata
    assert msgspec.json.decode(metadata[b"stream.ledger"])["version"] == 1


def test_other_readers_see_the_same_rows(tmp_path):
    written = segment(ENDS * 40)
    frame = read_segment(written.body).frame
    path = tmp_path / "segment.parquet"
    path.write_bytes(written.body)
    assert_frame_equal(pl.read_parquet(path), frame)
    assert_frame_equal(duckdb.read_parquet(str(path)).pl(), frame)
    bounds = pq.read_metadata(path).row_group(0).column(frame.columns.index("arrival_ms")).statistics
    assert (bounds.min, bounds.max, bounds.null_count) == (frame["arrival_ms"].min(), frame["arrival_ms"].max(), 0)


def test_the_bytes_of_a_segment_never_change():
    """A dead worker's unit is completed by another, perhaps of another release, which should produce the same file."""
    assert segment().sha256 == "3dcc26b1b92912042612c157b979262e6f4a08c9997676ddac12e5f63f1ba132"


def test_a_segment_that_was_read_is_written_with_the_same_bytes():
    written = segment(ENDS * 40)
    assert encode_segment(read_segment(written.body), "stem").body == written.body


def test_a_written_record_that_no_target_has_is_a_problem():
    made = transformed([1, 1])
    lost = spread("lake", made.frame.head(1), 1)
    assert make_segment(UNIT, batch(2), made, {"lake": lost}).problems() == ["1 records are said to be written, and no target has them"]
    both = make_segment(UNIT, batch(2), made, {"lake": lost, "copy": spread("copy", made.frame, 1)})
    assert both.problems() == ["1 records are said to be written, and lake lacks them"]
    # Which of the sinks with conditions takes a row is not in the ledger.
    assert replace(both, header=msgspec.structs.replace(both.header, routed=True)).problems() == []


def test_a_record_that_is_elsewhere_than_its_outcome_says_is_a_problem():
    read = read_segment(segment().body)

    def problems(**columns):
        return Segment(read.header, read.frame.with_columns(**columns)).problems()

    assert problems() == []
    target = read.header.targets.index("rejects")
    assert "1 records are dead letters, and are not among the rejects" in problems(**{f"dest_{target}": pl.lit(None, pl.UInt32)})
    dead = pl.col("outcome") == "dead_lettered"
    assert "1 records are among the rejects, and are no dead letters" in problems(
        outcome=pl.when(dead).then(pl.lit("written")).otherwise("outcome")
    )
    first = read.frame["dest_0"][0]
    assert "1 records are neither written nor dead letters, and are in a target" in problems(
        dest_0=pl.when(pl.col("outcome") == "filtered").then(pl.lit(first, pl.UInt32)).otherwise("dest_0")
    )
    assert "1 records are dead letters, and are in a target" in problems(
        dest_0=pl.when(dead).then(pl.lit(first, pl.UInt32)).otherwise("dest_0")
    )
