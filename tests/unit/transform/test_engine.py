import polars as pl
import pytest

from stream.batch import Batch, Outcome
from stream.errors import Halted
from stream.transform.decode import DecoderConfig
from stream.transform.decoders.json import Json
from stream.transform.engine import SETTLED_SCHEMA, advance, compile_chain
from stream.transform.stage import Applied, Resources, SchemaMismatch, Step
from stream.transform.stages.derive import Derive
from stream.transform.stages.filter import Filter
from stream.transform.stages.python import Python
from stream.transform.types import SYSTEM, parse_schema
from tests.frames import batch, rows, ticks, user

SCHEMA = parse_schema({"n": "int64"})
RECORDS = [b'{"n":%d}' % n for n in range(10)]


def chain(*stages, functions=None):
    return compile_chain(Json(), SCHEMA, stages, Resources(functions=functions or {}), ticks())


def with_function(function):
    return chain(Python(function="my:function", adds={}), functions={"my:function": function})


def test_every_record_ends_once_with_its_stage_and_reason():
    records = [*RECORDS[:4], b"bad", *RECORDS[4:]]
    outcomes = [0] * 10 + [int(Outcome.OUT_OF_RANGE)]
    got = chain(Filter(where="n <> 1"), Derive(columns={"s": "n + 1"})).run(batch(records, outcomes), "shard-7")
    assert got.records == 11
    assert got.frame["n"].to_list() == [0, 2, 3, 4, 5, 6, 7, 8]
    assert got.frame["_row"].to_list() == [0, 2, 3, 5, 6, 7, 8, 9]
    assert got.frame["_shard"].unique().to_list() == ["shard-7"]
    assert got.settled.schema == SETTLED_SCHEMA
    assert got.settled.rows() == [
        (1, Outcome.FILTERED, "1:filter", "filtered"),
        (4, Outcome.DEAD_LETTERED, "decode", "json_syntax"),
        (10, Outcome.OUT_OF_RANGE, "source", "kpl_out_of_range"),
    ]
    assert [(name, before, after) for name, before, after, _ in got.stage_rows] == [
        ("decode", 10, 9),
        ("1:filter", 9, 8),
        ("2:derive", 8, 8),
    ]
    assert all(seconds > 0 for *_, seconds in got.stage_rows)


def test_an_empty_batch_and_one_without_survivors_keep_the_schema():
    compiled = chain(Filter(where="n < 0"))
    for given in (Batch.empty(), batch(RECORDS)):
        got = compiled.run(given, "s")
        assert got.frame.schema == compiled.output_schema
        assert got.frame.is_empty()
        assert got.settled.height == given.rows
    assert compiled.stage_names == ("decode", "1:filter")
    assert list(compiled.output_schema) == [*SYSTEM, "n"]


def test_rows_that_make_a_stage_raise_are_found_by_halving():
    calls = []

    def fails_on_3_and_8(frame):
        calls.append(frame.height)
        if frame["n"].is_in([3, 8]).any():
            raise ZeroDivisionError
        return frame

    got = with_function(fails_on_3_and_8).run(batch(RECORDS), "s")
    assert got.frame["n"].to_list() == [0, 1, 2, 4, 5, 6, 7, 9]
    assert got.settled.select("_row", "reason").rows() == [
        (3, "stage_error:ZeroDivisionError"),
        (8, "stage_error:ZeroDivisionError"),
    ]
    assert len(calls) < 20


def test_an_expression_that_fails_on_one_value_rejects_that_row():
    schema = parse_schema({"s": "string"})
    compiled = compile_chain(Json(), schema, [Derive(columns={"i": "CAST(s AS BIGINT)"})], Resources(), ticks())
    got = compiled.run(batch([b'{"s":"1"}', b'{"s":"x"}', b'{"s":"3"}']), "s")
    assert got.frame["i"].to_list() == [1, 3]
    assert got.settled["reason"].to_list() == ["stage_error:InvalidOperationError"]


def test_a_failing_stage_that_is_not_row_wise_rejects_its_whole_frame():
    class Whole(Python):
        name = "whole"
        row_wise = False

    def fails(frame):
        raise KeyError

    got = chain(Whole(function="my:function", adds={}), functions={"my:function": fails}).run(batch(RECORDS), "s")
    assert got.frame.is_empty()
    assert set(got.settled["reason"]) == {"stage_error:KeyError"}
    assert set(got.settled["stage"]) == {"1:whole"}


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (lambda frame: pl.concat([frame, frame]), "duplicated or reordered"),
        (lambda frame: pl.concat([frame[:1], frame]), "duplicated or reordered"),
        (lambda frame: frame.reverse(), "duplicated or reordered"),
        (lambda frame: frame.with_columns(pl.col("_row") + 5), "rows that it was not given"),
        (lambda frame: frame.with_columns(_row=pl.lit(None, pl.UInt32)), "without `_row`"),
        (lambda frame: frame.with_columns(_sequence=pl.lit("1")), "changed the lineage column '_sequence'"),
        (lambda frame: frame.with_columns(pl.col("_arrival").shift(1)), "changed the lineage column '_arrival'"),
        (lambda frame: frame.drop("_row"), "missing: _row"),
        (lambda frame: frame.with_columns(extra=1), "not declared: extra"),
        (lambda frame: frame.with_columns(pl.col("n").cast(pl.String)), "n is String, declared Int64"),
        (lambda frame: None, "returned NoneType"),
    ],
)
def test_a_broken_stage_halts_the_shard_and_is_named(fault, says):
    with pytest.raises(Halted, match=says):
        with_function(fault).run(batch(RECORDS), "s")


def test_running_out_of_memory_is_not_blamed_on_the_data():
    def exhausted(frame):
        raise MemoryError

    with pytest.raises(MemoryError):
        with_function(exhausted).run(batch(RECORDS), "s")


def test_a_function_cannot_change_frames_held_by_others():
    def mutates(frame):
        frame.drop_in_place("n")
        frame.insert_column(5, pl.Series("n", [7] * frame.height, pl.Int64()))
        return frame

    given = batch(RECORDS)
    before = given.frame.clone()
    assert with_function(mutates).run(given, "s").frame["n"].to_list() == [7] * 10
    assert given.frame.equals(before)


def test_a_schema_mismatch_names_the_stage():
    with pytest.raises(SchemaMismatch) as caught:
        chain(Filter(where="n > 0"), Derive(columns={"a": "m + 1"}))
    assert caught.value.path == ("stages", 1, "derive", "columns", "a")
    with pytest.raises(SchemaMismatch) as caught:
        compile_chain(Json(), None, [], Resources(), ticks())
    assert caught.value.path == ("source", "schema")


class Letters(DecoderConfig):
    """One row per byte; '!' is refused."""

    name = "letters"
    expands = True

    def output(self, schema):
        return pl.Schema({"letter": pl.String()})

    def bind(self, schema):
        def decode(frame):
            letters = pl.col("_data").cast(pl.String).str.split("").alias("letter")
            frame = frame.select(*SYSTEM, letters).filter(pl.col("letter").list.len() > 0).explode("letter")
            bad = frame["letter"] == "!"
            rejects = frame.filter(bad).select("_row", pl.lit("loud").alias("reason"))
            return Applied(frame.filter(~bad), rejects)

        return decode


def test_a_record_of_many_rows_ends_as_a_whole():
    compiled = compile_chain(Letters(), None, [Filter(where="letter <> 'x'")], Resources(), ticks())
    got = compiled.run(batch([b"ab", b"c!!d", b"xx", b"xe"]), "s")
    assert user(got.frame) == [{"letter": "a"}, {"letter": "b"}, {"letter": "e"}]
    assert got.frame["_row"].to_list() == [0, 0, 3]
    assert got.settled.select("_row", "stage", "reason").rows() == [(1, "decode", "loud"), (2, "1:filter", "filtered")]


@pytest.mark.parametrize(
    ("kept", "rejected", "says"),
    [
        ([0, 1, 2], [2], "both kept and rejected"),
        ([0], [1, 1], "rejected the same row twice"),
        ([0], [7], "rejected rows that it was not given"),
    ],
)
def test_rejects_are_checked_for_conservation_too(kept, rejected, says):
    frame = rows({"n": [0, 1, 2]})
    rejects = pl.DataFrame({"_row": rejected, "reason": ["why"] * len(rejected)}, schema={"_row": pl.UInt32, "reason": pl.String})
    step = Step("1:it", lambda frame: Applied(frame.filter(pl.col("n").is_in(kept)), rejects), frame.schema)
    with pytest.raises(Halted, match=says):
        advance(step, frame)
    wrong = Step("1:it", lambda frame: Applied(frame, rejects.select("_row")), frame.schema)
    with pytest.raises(Halted, match="returned rejects with the columns"):
        advance(wrong, frame)
