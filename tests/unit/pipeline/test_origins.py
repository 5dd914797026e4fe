from __future__ import annotations

import polars as pl
import pytest

from stream.pipeline.model import Pipeline
from stream.pipeline.origins import Origin, column_origins
from stream.transform.engine import compile_chain
from tests.frames import RESOURCES
from tests.unit.pipeline.definitions import least

COLUMNS = {
    "carrier": "string",
    "tailnum": "string?",
    "delay": "int64?",
    "who": {"email": "string?", "age": "int64?"},
    "stops": "list<string>?",
}


def schemas(pipeline):
    source = pipeline.source
    chain = compile_chain(source.decode, source.record_schema(), pipeline.stages, RESOURCES, lambda: 0.0)
    return [schema for _, schema in chain.schemas]


def pipeline_of(*stages, **changes):
    source = {"kinesis": {"stream": "flights"}, "schema": COLUMNS}
    return Pipeline.model_validate(least(source=source, stages=list(stages), **changes))


def origins(*stages):
    pipeline = pipeline_of(*stages)
    last = column_origins(pipeline.stages, schemas(pipeline))[-1]
    return {name: {f"{each.column}{' masked' * each.masked}" for each in found} - {name} for name, found in last.items()}


MASK = {"mask": {"columns": "tailnum", "method": "redact"}}


@pytest.mark.parametrize(
    ("stages", "column", "expected"),
    [
        ([], "tailnum", set()),
        ([{"filter": "tailnum = 'N1'"}], "carrier", set()),
        ([{"derive": {"a": "UPPER(tailnum)", "b": "a || carrier", "c": "delay + 1"}}], "b", {"tailnum", "carrier"}),
        ([{"derive": {"a": "UPPER(tailnum)", "b": "a || carrier", "c": "delay + 1"}}], "c", {"delay"}),
        ([{"rename": {"tailnum": "plane"}}], "plane", {"tailnum"}),
        ([{"flatten": "who"}], "who_email", {"who"}),
        ([{"explode": {"column": "stops", "into": "stop", "index": "leg"}}], "leg", {"stops"}),
        ([{"parse": {"column": "carrier", "regex": "^(?P<first>.)"}}], "first", {"carrier"}),
        ([{"lookup": {"table": "reference/airlines.parquet", "on": "carrier", "take": {"airline": "name"}}}], "airline", {"carrier"}),
        ([{"sql": "SELECT *, UPPER(tailnum) AS up FROM batch"}], "up", {"tailnum"}),
        ([MASK], "tailnum", {"tailnum masked"}),
        ([MASK, {"derive": {"up": "UPPER(tailnum)"}}], "up", {"tailnum masked"}),
        ([{"derive": {"up": "UPPER(tailnum)"}}, MASK], "up", {"tailnum"}),
    ],
)
def test_origins_are_followed_through_the_stages(stages, column, expected):
    assert origins(*stages)[column] - {"up", "a", "b", "c", "plane", "airline"} == expected


def test_a_function_may_compute_its_columns_from_every_column():
    declared = {"python": {"function": "my_company.flights:score", "adds": {"score": "int64"}}}
    found = origins({"derive": {"dep_delay": "delay"}}, declared)
    assert set(COLUMNS) <= found["score"]
    assert found["carrier"] == set()
    undeclared = origins({"derive": {"dep_delay": "delay"}}, {"python": "my_company.flights:score"})
    assert set(COLUMNS) - {"carrier"} <= undeclared["carrier"]


def test_a_column_that_a_stage_adds_is_an_origin_itself():
    pipeline = pipeline_of({"derive": {"late": "delay > 5"}}, {"rename": {"late": "slow"}})
    _, added, renamed = column_origins(pipeline.stages, schemas(pipeline))
    assert added["late"] == {Origin("late", masked=False), Origin("delay", masked=False)}
    assert renamed["slow"] == added["late"] | {Origin("slow", masked=False)}
    assert [*added] == [*COLUMNS, "late"]


def test_columns_given_as_masked_are_masked_wherever_they_appear():
    pipeline = pipeline_of({"derive": {"late": "delay > 5"}}, {"derive": {"later": "late"}})
    found = column_origins(pipeline.stages, schemas(pipeline), masked=["late"])
    assert found[-1]["later"] == {Origin("delay", masked=True), Origin("late", masked=True), Origin("later", masked=False)}


def test_system_columns_have_no_origins():
    pipeline = pipeline_of()
    (found,) = column_origins(pipeline.stages, [pl.Schema({"_row": pl.UInt32(), "x": pl.Int64()})])
    assert [*found] == ["x"]
