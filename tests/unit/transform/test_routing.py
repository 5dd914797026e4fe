import json

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.batch import ROW, Outcome
from stream.transform.decoders.json import Json
from stream.transform.engine import compile_chain
from stream.transform.routing import SINKS
from stream.transform.stage import Resources, SchemaMismatch
from stream.transform.stages.explode import Explode
from stream.transform.types import parse_schema
from tests.frames import batch, ticks

SCHEMA = parse_schema({"n": "int64?", "s": "string?", "l": "list<int64>?"})


def run(conditions, records, *stages):
    compiled = compile_chain(Json(), SCHEMA, stages, Resources(), ticks(), conditions)
    return compiled.run(batch([json.dumps(each).encode() for each in records]), "s")


def to(done, sink, column="n"):
    return done.rows_for(sink)[column].to_list()


def test_each_sink_takes_the_rows_for_which_its_condition_is_true():
    done = run([("small", "n < 3"), ("even", "n % 2 = 0"), ("all", None)], [{"n": n} for n in (1, 2, 3, 4, None)])
    assert to(done, "small") == [1, 2]
    assert to(done, "even") == [2, 4]
    assert to(done, "all") == [1, 2, 3, 4, None]
    assert done.settled.is_empty()


def test_else_takes_what_no_condition_is_true_for_null_included():
    done = run([("rest", "else"), ("small", "n < 3"), ("large", "n > 5")], [{"n": n} for n in (1, 4, None, 6)])
    assert (to(done, "small"), to(done, "large"), to(done, "rest")) == ([1], [6], [4, None])
    assert done.settled.is_empty()


def test_a_record_that_no_sink_takes_is_filtered():
    done = run([("small", "n < 3"), ("large", "n > 5")], [{"n": n} for n in (1, 4, None, 6)])
    assert done.frame["n"].to_list() == [1, 6]
    assert done.settled.rows() == [(1, Outcome.FILTERED, SINKS, "filtered"), (2, Outcome.FILTERED, SINKS, "filtered")]
    assert done.stage_rows[-1][:3] == (SINKS, 4, 2)


@pytest.mark.parametrize("other", [None, "else", "n > 5"])
def test_a_row_for_which_a_condition_raises_is_a_dead_letter_for_all_sinks(other):
    done = run([("typed", "CAST(s AS BIGINT) > 5"), ("other", other)], [{"n": 6, "s": s} for s in ("7", "x", "8")])
    assert to(done, "typed", "s") == ["7", "8"]
    assert "x" not in to(done, "other", "s")
    assert done.settled.rows() == [(1, Outcome.DEAD_LETTERED, SINKS, "stage_error:InvalidOperationError")]


def test_rows_of_one_record_may_go_to_different_sinks_and_some_nowhere():
    done = run([("odd", "l % 2 = 1"), ("four", "l = 4")], [{"l": [1, 2, 4]}, {"l": [2, 2]}], Explode(column="l"))
    assert (to(done, "odd", "l"), to(done, "four", "l")) == ([1], [4])
    assert done.frame[ROW].to_list() == [0, 0]
    assert done.settled.rows() == [(1, Outcome.FILTERED, SINKS, "filtered")]


def test_a_condition_without_columns_holds_for_every_row():
    done = run([("all", "1 = 1"), ("none", "1 = 2")], [{"n": 1}, {"n": 2}])
    assert (to(done, "all"), to(done, "none")) == ([1, 2], [])


def test_without_conditions_there_is_no_step_and_every_sink_takes_everything():
    done = run([("one", None), ("two", None)], [{"n": 1}])
    assert [name for name, *_ in done.stage_rows] == ["decode"]
    assert done.taken == {}
    assert to(done, "one") == to(done, "two") == [1]


def test_what_conditions_may_use_is_that_of_a_filter():
    for text, message in (
        ("n", "gives int64, but a condition is true or false"),
        ("m > 1", "no column 'm'"),
        ("now() > 1", "different result"),
    ):
        with pytest.raises(SchemaMismatch, match=message) as caught:
            run([("one", None), ("two", text)], [])
        assert caught.value.path == ("sinks", 1, "where")


CONDITIONS = st.sampled_from([None, "else", "n < 3", "n IS NULL", "s = 'a'", "n > 1 OR s = 'b'", "NOT (s = 'a')"])
RECORDS = st.lists(st.fixed_dictionaries({"n": st.none() | st.integers(0, 5), "s": st.none() | st.sampled_from("abc")}))


@given(st.lists(CONDITIONS, min_size=1, max_size=4), RECORDS)
def test_every_row_is_with_the_sinks_that_its_values_say_and_every_record_ends_once(conditions, records):
    named = [(f"s{at}", text) for at, text in enumerate(conditions)]
    done = run(named, records)
    real = [text for text in conditions if text not in {None, "else"}]
    every = pl.DataFrame(records, schema={"n": pl.Int64, "s": pl.String})
    holds = [every.select(pl.sql_expr(text).fill_null(value=False)).to_series().to_list() for text in real]
    ended = set(done.settled[ROW].to_list())
    for name, text in named:
        if text is None or not real:
            wanted = [True] * len(records)
        elif text == "else":
            wanted = [not any(each[at] for each in holds) for at in range(len(records))]
        else:
            wanted = holds[real.index(text)]
        rows = [at for at, takes in enumerate(wanted) if takes]
        assert done.rows_for(name)[ROW].to_list() == rows
        assert not ended.intersection(rows)
    assert len(ended) + done.frame[ROW].n_unique() == len(records)
