from __future__ import annotations

import itertools
import json
from datetime import UTC, date, datetime
from decimal import Decimal

import polars as pl
import pytest

from stream.pipeline.model import Pipeline
from stream.pipeline.trials.cases import Case
from stream.pipeline.trials.trial import Trial, plain, same
from stream.transform.stage import Resources
from tests.unit.pipeline.definitions import least

SCHEMA = {"carrier": "string", "delay": "int64?", "at": "timestamp?"}


def trial(tmp_path, stages=(), functions=None, decode="json", schema=SCHEMA, **sink):
    changes = {"source": {"kinesis": {"stream": "s"}, "decode": decode, "schema": schema}, "stages": list(stages)}
    sinks = [{"files": {"url": "file:./out", **sink}}]
    pipeline = Pipeline.model_validate(least(**changes, sinks=sinks))
    return Trial(pipeline, Resources(functions=functions or {}), tmp_path)


def case(given, **expect):
    return Case.model_validate({"name": "c", "given": given, "expect": expect})


FLIGHT = {"json": {"carrier": "UA", "delay": 5, "at": "2013-01-01T05:00:00-05:00"}}


@pytest.mark.parametrize(
    ("expect", "differences"),
    [
        ({"rows": [{"carrier": "UA", "at": "2013-01-01T10:00:00Z"}]}, []),
        ({"rows": [{"at": "2013-01-01T11:00:00+01:00"}], "outcomes": {"written": 1, "filtered": 0}}, []),
        (
            {"rows": [{"carrier": "AA", "delay": 6}]},
            ['row 1: column \'carrier\': expected "AA", got "UA"', "row 1: column 'delay': expected 6, got 5"],
        ),
        ({"rows": [{"delay": "5"}]}, ["row 1: column 'delay': expected \"5\", got 5"]),
        ({"rows": []}, ["rows: expected 0, got 1", "row 1 was not expected:"]),
        ({"rows": [{}, {"carrier": "x"}]}, ["rows: expected 2, got 1", "row 2 is not there:"]),
        ({"rows": [{"dely": 5}]}, ["row 1: there is no column 'dely'; there are:"]),
        ({"outcomes": {"written": 2}}, ['outcomes: expected {"written": 2}, got {"written": 1}']),
        ({"rejects": [{"record": 1}]}, ["record 1 should be rejected, but is not"]),
        ({"partitions": ["carrier=UA"]}, []),
        ({"partitions": {"files": ["carrier=UA"]}}, ["partitions: there is no sink 'files'; there are:"]),
        ({"partitions": ["carrier=AA"]}, ["partitions of main: expected but not there: ['carrier=AA']; not expected: ['carrier=UA']"]),
    ],
)
def test_each_difference_is_described(tmp_path, expect, differences):
    made = trial(tmp_path, partition_by=["carrier"])
    name = made._sinks[0].name
    got = made.judge(case([FLIGHT], **expect)).differences
    assert len(got) == len(differences)
    for found, wanted in zip(got, differences, strict=True):
        assert found.startswith(wanted.replace("of main", f"of {name}"))


def test_unexpected_dead_letters_are_always_a_difference(tmp_path):
    made = trial(tmp_path, [{"cast": {"delay": "int8"}}])
    given = [FLIGHT, "{", {"json": {"carrier": "UA", "delay": 999}}]
    assert made.judge(case(given, rows=[{"delay": 5}])).differences == (
        "record 2 was rejected by 'decode' with the reason 'json_syntax'",
        "record 3 was rejected by '1:cast' with the reason 'cast_failed:delay'",
    )
    named = [{"record": 2, "reason": "json_syntax"}, {"record": 3, "stage": "1:cast"}]
    assert made.judge(case(given, rejects=named)).differences == ()
    wrong = [{"record": 2, "reason": "x"}, {"record": 3, "stage": "decode"}]
    assert len(made.judge(case(given, rejects=wrong)).differences) == 2


def late(frame):
    return frame.with_columns(late=pl.Series(map({5: True}.__getitem__, frame["delay"])))


@pytest.mark.parametrize("how", ["rejects", "golden"])
def test_a_failed_case_says_what_a_stage_raised_where_and_on_which_row(tmp_path, how):
    made = trial(tmp_path, [{"filter": "carrier <> 'AA'"}, {"python": {"function": "m:late", "adds": {"late": "bool"}}}], {"m:late": late})
    given = [{"json": {"carrier": "AA"}}, FLIGHT, *({"json": {"carrier": "UA", "delay": delay}} for delay in (7, 8))]
    (tmp_path / "golden").write_text("")
    *_, said = made.judge(case(given, **({"golden": "golden"} if how == "golden" else {"rows": [{"late": True}]}))).differences
    line = late.__code__.co_firstlineno + 1
    assert said == (
        f'record 3: \'2:python\' raised KeyError: 7 (test_trial.py:{line} in late); the row was {{"carrier": "UA", "delay": 7, "at": null}}'
    )
    expected = [{"record": 3, "reason": "stage_error:KeyError"}, {"record": 4, "reason": "stage_error:KeyError"}]
    assert how == "golden" or made.judge(case(given, rejects=expected)).differences == ()


def test_a_golden_file_holds_rows_and_rejects(tmp_path):
    made = trial(tmp_path)
    golden = case([FLIGHT, "{"], golden="g.ndjson")
    missing = made.judge(golden)
    assert "write it with --update" in missing.differences[0]
    assert [list(json.loads(line)) for line in missing.golden.splitlines()] == [["row"], ["reject"]]
    (tmp_path / "g.ndjson").write_text(missing.golden)
    assert made.judge(golden).differences == ()
    (tmp_path / "g.ndjson").write_text(missing.golden.replace('"UA"', '"AA"').replace("json_syntax", "x"))
    assert [each.split(":")[0] for each in made.judge(golden).differences] == ["row 1", "rejects"]
    (tmp_path / "g.ndjson").write_text("no json")
    assert "is not one" in made.judge(golden).differences[0]


def test_a_stage_that_breaks_conservation_is_a_difference(tmp_path):
    made = trial(tmp_path, [{"python": "f:f"}], {"f:f": lambda frame: frame[::-1]})
    (difference,) = made.judge(case([FLIGHT, FLIGHT], rows=[])).differences
    assert difference.startswith("the shard would halt: stage '1:python' duplicated or reordered")


ANY = Case.model_validate({"name": "any", "rows": "any", "count": 60, "seed": 3})


@pytest.mark.parametrize(
    ("decode", "schema"),
    [
        ("json", SCHEMA),
        ("json_lines", SCHEMA),
        ("csv", SCHEMA),
        ({"csv": {"header": True, "delimiter": ";"}}, SCHEMA),
        ({"json": {"compression": "gzip"}}, SCHEMA),
        ("cloudwatch_logs", {"a": "int64", "b": "string"}),
        (
            "json",
            {
                "l": "list<decimal(9,3)>",
                "o": "object{x: timestamp(ms)?, y: date}",
                "f": "float32",
                "b": "binary?",
                "j": "json?",
                "u": "uint64",
            },
        ),
    ],
)
def test_generated_records_end_once(tmp_path, decode, schema):
    made = trial(tmp_path, decode=decode, schema=schema)
    assert made.judge(ANY).differences == ()


def test_generated_records_are_valid_and_invalid_and_the_same_for_one_seed():
    from stream.pipeline.trials.random_records import random_records
    from stream.transform.decoders.json import Json
    from stream.transform.types import parse_schema
    from tests.frames import raw_frame

    schema = parse_schema(SCHEMA)
    records = random_records(Json(), schema, 300, 1)
    assert records == random_records(Json(), schema, 300, 1) != random_records(Json(), schema, 300, 2)
    applied = Json().bind(schema)(raw_frame(records))
    assert applied.frame.height > 200
    assert applied.rejects.height > 10


def test_a_stage_with_random_results_is_detected(tmp_path):
    counter = itertools.count()
    made = trial(tmp_path, [{"python": "f:f"}], {"f:f": lambda frame: frame.with_columns(delay=pl.lit(next(counter), pl.Int64))})
    (difference,) = made.judge(ANY).differences
    assert "different rows when run again" in difference


def test_a_stage_that_looks_at_other_rows_is_detected(tmp_path):
    made = trial(tmp_path, [{"python": "f:f"}], {"f:f": lambda frame: frame.with_columns(delay=pl.int_range(pl.len(), dtype=pl.Int64))})
    (difference,) = made.judge(ANY).differences
    assert "looks at more than one row" in difference


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (datetime(2013, 1, 1, tzinfo=UTC), "2013-01-01T00:00:00Z"),
        (datetime(2013, 1, 1), "2013-01-01T00:00:00"),  # noqa: DTZ001
        (date(2013, 1, 1), "2013-01-01"),
        (Decimal("1E+2"), "100"),
        (b"x", "eA=="),
        ({"a": [b"x"]}, {"a": ["eA=="]}),
        (True, True),
    ],
)
def test_values_are_shown_in_plain_words(value, shown):
    assert plain(value) == shown


@pytest.mark.parametrize(
    ("wanted", "got", "equal"),
    [
        (1, 1.0, True),
        (1, True, False),
        ("1", 1, False),
        (None, None, True),
        (None, "", False),
        (float("nan"), float("nan"), True),
        ({"a": 1}, {"a": 1}, True),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ([1], [1, 2], False),
        ("2013-01-01 00:00:00", "2013-01-01T00:00:00Z", True),
        ("x", "2013-01-01T00:00:00Z", False),
    ],
)
def test_values_are_compared_with_the_expected_ones(wanted, got, equal):
    assert same(wanted, got) is equal


def test_rows_may_be_expected_of_each_sink(tmp_path):
    sinks = [
        {"files": {"name": "late", "url": "file:./late", "where": "delay > 3"}},
        {"files": {"name": "rest", "url": "file:./rest", "where": "else"}},
    ]
    source = {"kinesis": {"stream": "s"}, "schema": SCHEMA}
    made = Trial(Pipeline.model_validate(least(source=source, sinks=sinks)), Resources(), tmp_path)
    given = [FLIGHT, {"json": {"carrier": "AA"}}]
    right = case(given, rows={"late": [{"carrier": "UA"}], "rest": [{"carrier": "AA"}]}, partitions={"rest": [""]})
    assert made.judge(right).differences == ()
    wrong = case(given, rows={"late": [{"carrier": "AA"}], "rest": [], "lost": []})
    assert [each.split(":")[0] for each in made.judge(wrong).differences] == ["sink late", "sink rest", "sink rest", "rows"]
    golden = made.judge(case(given, golden="g.ndjson")).golden
    assert [json.loads(line)["sinks"] for line in golden.splitlines()] == [["late"], ["rest"]]
    (tmp_path / "g.ndjson").write_text(golden)
    assert made.judge(case(given, golden="g.ndjson")).differences == ()
    (tmp_path / "g.ndjson").write_text(golden.replace('["late"]', '["rest"]'))
    assert made.judge(case(given, golden="g.ndjson")).differences == ('row 1: sinks: expected ["rest"], got ["late"]',)
    assert made.judge(Case.model_validate({"name": "c", "rows": "any", "count": 50})).differences == ()
