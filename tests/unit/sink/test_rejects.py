import polars as pl

from stream.batch import DATA, PARTITION_KEY, ROW, SEQUENCE, Outcome
from stream.sink import rejects
from tests.unit.sink.frames import SHARD_ID, raw, sequence


def settled(*rows):
    schema = {ROW: pl.UInt32, "outcome": pl.UInt8, "stage": pl.String, "reason": pl.String}
    return pl.DataFrame(rows, schema=schema, orient="row")


SETTLED = settled(
    (0, Outcome.FILTERED, "filter", None),
    (2, Outcome.DEAD_LETTERED, "decode", "json_invalid"),
    (3, Outcome.DEAD_LETTERED, "cast", "cast_failed:n"),
    (4, Outcome.OUT_OF_RANGE, None, None),
    (5, Outcome.DEAD_LETTERED, "decode", "json_invalid"),
)


def test_rejected_records_keep_their_bytes_position_and_reason():
    (file,) = rejects.encode(SETTLED, raw(7), SHARD_ID, "unit").files
    read = pl.read_parquet(file.body)
    assert read.schema == rejects.SCHEMA
    assert read[SEQUENCE].to_list() == [sequence(2), sequence(3), sequence(5)]
    assert read[DATA].to_list() == [b"\xff2", b"\xff3", b"\xff5"]
    assert read[PARTITION_KEY].to_list() == ["key-2", "key-3", "key-0"]
    assert read["reason"].to_list() == ["json_invalid", "cast_failed:n", "json_invalid"]
    assert (file.sink, file.rows, file.key) == ("rejects", 3, f"unit.{file.sha256[:16]}.parquet")


def test_equal_causes_have_equal_fingerprints():
    (file,) = rejects.encode(SETTLED, raw(7), SHARD_ID, "unit").files
    marks = pl.read_parquet(file.body)["fingerprint"].to_list()
    assert marks[0] == marks[2] == rejects.fingerprint("decode", "json_invalid")
    assert marks[1] == rejects.fingerprint("cast", "cast_failed:n") != marks[0]


def test_the_placement_finds_the_row():
    encoded = rejects.encode(SETTLED, raw(7), SHARD_ID, "unit")
    assert encoded.placement.rows() == [(2, 0, 0), (3, 0, 1), (5, 0, 2)]


def test_without_dead_letters_there_is_no_file():
    encoded = rejects.encode(settled((0, Outcome.FILTERED, "filter", None)), raw(1), SHARD_ID, "unit")
    assert encoded.files == ()
    assert encoded.placement.is_empty()


def test_a_rejection_without_a_stage_is_kept_too():
    (file,) = rejects.encode(settled((0, Outcome.DEAD_LETTERED, None, None)), raw(1), SHARD_ID, "unit").files
    assert pl.read_parquet(file.body)["fingerprint"].to_list() == [rejects.fingerprint("", "")]


def test_the_same_rejects_give_the_same_file():
    assert rejects.encode(SETTLED, raw(7), SHARD_ID, "unit").files == rejects.encode(SETTLED, raw(7), SHARD_ID, "unit").files
