import polars as pl
import pytest

from stream.transform.stage import SchemaMismatch
from stream.transform.stages.filter import Filter
from tests.frames import RESOURCES, apply, rows


def test_null_is_not_true():
    assert apply(Filter.model_validate("a > 1"), rows({"a": [1, None, 2]})) == ([{"a": 2}], {})


def test_a_condition_can_use_lineage_columns():
    assert apply(Filter.model_validate({"where": "_sequence = '1'"}), rows({"a": [5, 6]})) == ([{"a": 6}], {})


def test_a_condition_must_be_true_or_false():
    with pytest.raises(SchemaMismatch, match="gives int64, but a condition is true or false"):
        Filter.model_validate("a + 1").output(rows({"a": [1]}).schema, RESOURCES)


def test_integer_arithmetic_in_a_condition_is_exact():
    frame = rows({"a": [2**62, 5], "u": [0, 9]}, {"a": pl.Int64(), "u": pl.UInt32()})
    assert apply(Filter.model_validate("u - 5 < 0"), frame)[0] == [{"a": 2**62, "u": 0}]
    assert apply(Filter.model_validate("a + a > 0"), frame)[0] == [{"a": 2**62, "u": 0}, {"a": 5, "u": 9}]
