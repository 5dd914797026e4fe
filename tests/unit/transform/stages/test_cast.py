from datetime import UTC, date, datetime
from decimal import Decimal

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.transform.stage import SchemaMismatch
from stream.transform.stages.cast import Cast, OnError
from tests.frames import RESOURCES, apply, rows


@pytest.mark.parametrize(
    ("values", "target", "kept", "rejected"),
    [
        (["1", "x", None, "1.5"], "int64", [1, None], [1, 3]),
        ([1.0, 1.5, None, -0.0], "int8", [1, None, 0], [1]),
        ([1, 300, -1], "uint8", [1], [1, 2]),
        (["true", "FALSE", "yes"], "bool", [True, False], [2]),
        ([1, None], "string", ["1", None], []),
        ([0, 10**18], "timestamp(s)", None, [1]),
        (["aGk=", "*"], "binary", [b"hi"], [1]),
        ([1e39, 0.5, float("inf")], "float32", [0.5, float("inf")], [0]),
    ],
)
def test_a_value_that_would_change_rejects_its_row(values, target, kept, rejected):
    got, rejects = apply(Cast.model_validate({"x": target}), rows({"x": values}))
    assert rejects == dict.fromkeys(rejected, "cast_failed:x")
    if kept is not None:
        assert [row["x"] for row in got] == kept


CENTS = pl.Decimal(14, 4)


@pytest.mark.parametrize(
    ("values", "target", "kept", "rejected"),
    [
        (pl.Series([Decimal("1.5000"), Decimal(2), None], dtype=CENTS), "int64", [2, None], [0]),
        (pl.Series([Decimal("1.2350"), Decimal("1.2300")], dtype=CENTS), "decimal(10,2)", [Decimal("1.23")], [0]),
        (pl.Series([Decimal("0.5000"), Decimal(1)], dtype=CENTS), "bool", [True], [0]),
        (["1.239", "1239e-3", "1230e-3", "1.230", ".5", "100.00", "0e9", "x", None], "decimal(4,2)", None, [0, 1, 5, 7]),
        (["1.239", "1239e-3", "1230e-3"], "decimal(38,2)", [Decimal("1.23")], [0, 1]),
        ([99.999, 99.99, 1e300, float("nan"), float("-inf"), None], "decimal(4,2)", [Decimal("99.99"), None], [0, 2, 3, 4]),
        ([2**53, 2**53 + 1, 2**63 - 1], "float64", [2.0**53], [1, 2]),
        ([2**24, 2**24 + 1], "float32", [2.0**24], [1]),
        (["1e400", "-1e400", "Infinity", "1e5"], "float64", [float("inf"), 1e5], [0, 1]),
        ([0, 1, 2, -1], "bool", [False, True], [2, 3]),
        ([0.0, 1.0, 0.5, float("nan")], "bool", [False, True], [2, 3]),
        ([[1, 300], [1], None, [], [None]], "list<int8>", [[1], None, [], [None]], [0]),
        ([["1", "x"], ["1"]], "list<int64>", [[1]], [0]),
        ([{"a": "1", "b": [300]}, {"a": "1", "b": [3]}, {"a": None, "b": None}], "object{a: int8, b: list<int8>}", None, [0]),
        ([[{"a": 1}, {"a": 300}], [{"a": 1}, None]], "list<object{a: int8}>", [[{"a": 1}, None]], [0]),
        ([5, 2**62, -(2**62)], "timestamp", [datetime(1970, 1, 1, microsecond=5, tzinfo=UTC)], [1, 2]),
        ([1.0, 1.5], "timestamp", [datetime(1970, 1, 1, microsecond=1, tzinfo=UTC)], [1]),
        ([5, 2_932_897, -719_163], "date", [date(1970, 1, 6)], [1, 2]),
    ],
)
def test_no_value_is_lost_or_altered_silently(values, target, kept, rejected):
    got, rejects = apply(Cast.model_validate({"x": target}), rows({"x": values}))
    assert rejects == dict.fromkeys(rejected, "cast_failed:x")
    if kept is not None:
        assert [row["x"] for row in got] == kept


@given(st.decimals(allow_nan=False, allow_infinity=False, places=None, min_value=-(10**20), max_value=10**20), st.integers(0, 6))
def test_a_number_in_text_becomes_exactly_that_decimal_or_is_rejected(number, scale):
    text = str(number)
    got, _ = apply(Cast.model_validate({"x": f"decimal(38,{scale})"}), rows({"x": [text]}))
    exact = round(number, scale) == number if number.adjusted() + scale < 28 else None
    if exact is None:
        assert not got or got[0]["x"] == number
    else:
        assert [row["x"] for row in got] == ([number] if exact else [])


def test_on_error_null_keeps_the_row_and_may_be_written_as_yaml_null():
    stage = Cast.model_validate({"columns": {"x": "int64"}, "on_error": None})
    assert stage.on_error is OnError.NULL
    assert apply(stage, rows({"x": ["1", "x"]})) == ([{"x": 1}, {"x": None}], {})


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"y": "int64"}, "no column 'y'"),
        ({"_sequence": "int64"}, "belongs to the service"),
        ({"x": "int64?"}, "does not change whether values may be null"),
        ({"x": "inte"}, "unknown type"),
        ({"x": "json"}, "nothing can be cast to json"),
        ({"x": "timestamp(ms)"}, "counts from whole numbers"),
        ({"x": "list<string>"}, "cannot become"),
    ],
)
def test_impossible_casts_are_refused(config, says):
    with pytest.raises(SchemaMismatch, match=says.replace("(", r"\(")) as caught:
        Cast.model_validate(config).output(rows({"x": ["1"]}).schema, RESOURCES)
    assert caught.value.path == ("columns", next(iter(config)))


@pytest.mark.parametrize(
    ("values", "target"),
    [
        ([[1]], "string"),
        ([{"a": 1}], "string"),
        ([True], "decimal(4,2)"),
        ([date(2024, 1, 1)], "bool"),
        ([datetime(2024, 1, 1, tzinfo=UTC)], "decimal(38,0)"),
        ([Decimal("1.5")], "date"),
        ([b"1"], "int64"),
        ([{"a": [1]}], "list<string>"),
        ([[{"a": 1}]], "list<int64>"),
    ],
)
def test_types_without_any_conversion_are_refused_before_any_record_is_read(values, target):
    with pytest.raises(SchemaMismatch, match="cannot become"):
        Cast.model_validate({"x": target}).output(rows({"x": values}).schema, RESOURCES)
