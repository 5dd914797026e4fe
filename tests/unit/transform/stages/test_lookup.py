from datetime import UTC, datetime

import polars as pl
import pytest

from stream.transform.stage import Resources, SchemaMismatch
from stream.transform.stages.lookup import Lookup
from tests.frames import apply, rows

TABLE = pl.DataFrame(
    {"origin": ["EWR", "EWR", "JFK", None], "hour": [1, 2, 1, 1], "temp": [3.5, None, 4.5, 9.9]},
    schema={"origin": pl.String, "hour": pl.Int32, "temp": pl.Float64},
)
TABLES = Resources(tables={"weather": TABLE})
FRAME = rows({"origin": ["JFK", None, "EWR", "LGA"], "h": [1, 1, 2, 1]})


def lookup(**options):
    return Lookup.model_validate({"table": "weather", "on": {"origin": "origin", "h": "hour"}, "take": ["temp"], **options})


def test_a_key_of_several_columns_finds_its_row_and_keeps_the_order():
    got, rejects = apply(lookup(), FRAME, TABLES)
    assert [row["temp"] for row in got] == [4.5, None, None, None]
    assert not rejects


def test_a_missing_key_rejects_and_a_null_in_the_table_does_not():
    got, rejects = apply(lookup(missing="reject", take={"t": "temp", "o2": "origin"}), FRAME, TABLES)
    assert [(row["origin"], row["t"], row["o2"]) for row in got] == [("JFK", 4.5, "JFK"), ("EWR", None, "EWR")]
    assert rejects == {1: "lookup_missing:origin,h", 3: "lookup_missing:origin,h"}


def test_numeric_codes_in_text_are_matched_as_numbers():
    stage = Lookup.model_validate({"table": "t", "on": {"h": "code"}, "take": "name"})
    table = Resources(tables={"t": pl.DataFrame({"code": ["01", "02"], "name": ["one", "two"]})})
    assert [row["name"] for row in apply(stage, FRAME, table)[0]] == ["one", "one", "two", "one"]


@pytest.mark.parametrize("unit", ["us", "ns"])
def test_a_time_in_the_table_is_never_truncated_to_match(unit):
    table = pl.DataFrame({"at": [datetime(2024, 1, 1, 5, tzinfo=UTC)], "name": ["x"]}, schema_overrides={"at": pl.Datetime(unit, "UTC")})
    if unit == "ns":
        table = table.with_columns(pl.col("at") + pl.duration(nanoseconds=1))
    frame = rows({"at": [datetime(2024, 1, 1, 5, tzinfo=UTC)]}).with_columns(
        pl.col("at").cast(pl.Date if unit == "us" else pl.Datetime("us", "UTC"))
    )
    stage = Lookup.model_validate({"table": "t", "on": "at", "take": "name"})
    with pytest.raises(SchemaMismatch, match="does not fit key"):
        apply(stage, frame, Resources(tables={"t": table}))


def test_a_single_column_can_be_given_as_text():
    stage = Lookup.model_validate({"table": "t", "on": "h", "take": "name", "missing": None})
    table = Resources(tables={"t": pl.DataFrame({"h": [1], "name": ["one"]})})
    assert [row["name"] for row in apply(stage, FRAME, table)[0]] == ["one", "one", None, "one"]
    assert stage.table_urls() == ("t",)


@pytest.mark.parametrize(
    ("options", "says", "path"),
    [
        ({"table": "other"}, "'other' is not loaded; loaded: weather", ("table",)),
        ({"on": "orign"}, "no column 'orign'", ("on", "orign")),
        ({"on": {"origin": "orign"}}, "has no column 'orign'", ("on", "origin")),
        ({"on": {"origin": "hour"}}, "key 'origin' is string, but 'hour'", ("on", "origin")),
        ({"take": ["tmp"]}, "has no column 'tmp'", ("take", "tmp")),
        ({"take": ["origin"]}, "'origin' already exists", ("take",)),
        ({"on": "origin"}, "more than one row for the key origin='EWR'", ("on",)),
    ],
)
def test_options_that_do_not_fit_the_columns_are_refused(options, says, path):
    with pytest.raises(SchemaMismatch, match=says) as caught:
        lookup(**options).output(FRAME.schema, TABLES)
    assert caught.value.path == path
