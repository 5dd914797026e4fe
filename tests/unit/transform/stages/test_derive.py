from datetime import UTC, datetime

import polars as pl
import pytest

from stream.transform.stage import SchemaMismatch
from stream.transform.stages.derive import Derive
from tests.frames import RESOURCES, apply, rows


def test_later_expressions_see_earlier_columns_and_a_replaced_column_keeps_its_place():
    stage = Derive.model_validate({"a": "a + 1", "c": "a * 10"})
    got, rejects = apply(stage, rows({"a": [1, 2], "b": [0, 0]}))
    assert got == [{"a": 2, "b": 0, "c": 20}, {"a": 3, "b": 0, "c": 30}]
    assert not rejects


def test_a_result_that_does_not_fit_rejects_its_row_and_never_wraps_around():
    stage = Derive.model_validate({"day": "month(t) * 100 + day(t)", "sum": "a + a", "diff": "u - v"})
    frame = rows(
        {"t": [datetime(2024, 12, 31, tzinfo=UTC)] * 4, "a": [1, 2**62, 3, 2**62], "u": [5, 5, 0, 0], "v": [2, 2, 1, 1]},
        {"t": pl.Datetime("us", "UTC"), "a": pl.Int64(), "u": pl.UInt64(), "v": pl.UInt64()},
    )
    got, rejects = apply(stage, frame)
    assert [(row["day"], row["sum"], row["diff"]) for row in got] == [(1231, 2, 3)]
    assert rejects == {1: "overflow:sum", 2: "overflow:diff", 3: "overflow:sum"}


def test_a_time_that_not_every_reader_can_show_rejects_its_row():
    stage = Derive.model_validate(
        {"next": "t + INTERVAL '1 day'", "before": "CAST(t AS DATE) - INTERVAL '1 day'", "at": "CAST(n AS TIMESTAMP)"}
    )
    frame = rows(
        {"t": ["9999-12-31", "0001-01-01", "2024-12-31", None, "2024-12-31"], "n": [0, 0, 0, None, 2**62]},
        {"t": pl.String(), "n": pl.Int64()},
    ).with_columns(pl.col("t").str.to_datetime("%Y-%m-%d", time_unit="us", time_zone="UTC"))
    got, rejects = apply(stage, frame)
    assert [row["next"] for row in got] == [datetime(2025, 1, 1, tzinfo=UTC), None]
    assert rejects == {0: "overflow:next", 1: "overflow:before", 4: "overflow:at"}


def test_integer_sums_have_64_bits_and_later_expressions_see_them():
    stage = Derive.model_validate({"a": "a + 1", "b": "a * 2"})
    got, rejects = apply(stage, rows({"a": [127, -128]}, {"a": pl.Int8()}))
    assert got == [{"a": 128, "b": 256}, {"a": -127, "b": -254}]
    assert not rejects
    assert stage.output(pl.Schema({"a": pl.Int8()}), RESOURCES) == {"a": pl.Int64(), "b": pl.Int64()}


def test_a_column_may_be_named_columns():
    assert apply(Derive.model_validate({"columns": "a"}), rows({"a": [1]}))[0] == [{"a": 1, "columns": 1}]


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"_row": "1"}, "belongs to the service"),
        ({"x": "NULL"}, "always null"),
        ({"x": "aa"}, "no column 'aa'"),
        ({"_data": "1"}, "belongs"),
        ({"^a$": "1"}, "pattern"),
    ],
)
def test_invalid_expressions_are_refused(config, says):
    with pytest.raises(SchemaMismatch, match=says) as caught:
        Derive.model_validate(config).output(rows({"a": [1]}).schema, RESOURCES)
    assert caught.value.path == ("columns", next(iter(config)))
