from __future__ import annotations

import polars as pl
import pytest

from stream.pipeline.checks.lint import check
from stream.pipeline.model import Pipeline
from stream.pipeline.plan import Change, changes, local_resources, plan, type_name
from tests.unit.pipeline.definitions import EXAMPLES, least


def laid_out(base, **changes):
    pipeline = Pipeline.model_validate(least(**changes))
    return plan(pipeline, local_resources(pipeline, base))


def test_columns_and_their_changes_are_shown_for_every_stage(tmp_path):
    stages = [{"cast": {"delay": "float64"}}, {"derive": {"late": "delay > 15"}}, {"select": {"drop": ["carrier"]}}, {"filter": "late"}]
    stops = laid_out(tmp_path, stages=stages).stops
    assert [stop.name for stop in stops] == ["decode", "1:cast", "2:derive", "3:select", "4:filter"]
    assert stops[0].columns == (("carrier", "string"), ("delay", "int64"))
    assert [stop.changes for stop in stops[1:]] == [
        (Change("retyped", "delay", "int64", "float64"),),
        (Change("added", "late", after="bool"),),
        (Change("removed", "carrier", before="string"),),
        (),
    ]
    assert stops[-1].columns == (("delay", "float64"), ("late", "bool"))
    assert stops[-1].drops == "filtered"


def test_after_a_remote_table_columns_are_unknown(tmp_path):
    lookup = {"lookup": {"table": "s3://ref/t.parquet", "on": "carrier", "take": ["name"]}}
    stops = laid_out(tmp_path, stages=[{"filter": "delay > 1"}, lookup, {"filter": "delay > 2"}]).stops
    assert [stop.columns is None for stop in stops] == [False, False, True, True]
    assert {stop.unknown for stop in stops[2:]} == {"s3://ref/t.parquet was not read"}


def test_the_example_can_be_explained_without_its_secret():
    file = EXAMPLES / "flights" / "pipeline.yaml"
    pipeline = check(file, {}).pipeline
    found = plan(pipeline, local_resources(pipeline, file.parent))
    assert all(stop.columns for stop in found.stops)
    assert found.keys[0].url.startswith("s3://lake/flights/departure_month=<departure_month>/shardId-000000000000-<after>-<last>.")
    assert found.keys[0].url.endswith(".parquet")
    assert [keys.what for keys in found.keys][1:] == [
        "manifest", "checkpoint", "ledger", "dead letters", "definition", "reference table",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (pl.UInt8(), "uint8"),
        (pl.Datetime("us", "UTC"), "timestamp"),
        (pl.Decimal(12, 2), "decimal(12,2)"),
        (pl.List(pl.Struct({"a": pl.Int64, "b": pl.Date})), "list<object{a: int64, b: date}>"),
        (pl.Binary(), "binary"),
        (pl.Duration("us"), "Duration(time_unit='us')"),
    ],
)
def test_types_are_named_as_in_the_schema_language(kind, name):
    assert type_name(kind) == name


def test_equal_schemas_have_no_changes():
    schema = pl.Schema({"a": pl.Int64()})
    assert list(changes(schema, schema)) == []
