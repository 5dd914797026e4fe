from datetime import UTC, date, datetime
from decimal import Decimal

import polars as pl
import pytest
from pydantic import ValidationError

from stream.transform.stage import Resources, SchemaMismatch
from stream.transform.stages.validate import Validate
from tests.frames import apply, rows


def reasons(columns, rules, **options):
    return apply(Validate.model_validate({"columns": rules, **options}), rows(columns))


@pytest.mark.parametrize(
    ("values", "rules", "bad"),
    [
        ([1, 5, 9, None], {"min": 2, "max": 8}, {0: "min", 2: "max"}),
        ([1.0, float("nan"), None], {"min": 0}, {1: "min"}),
        ([1.0, float("inf")], {"max": 1e300}, {1: "max"}),
        (["a", None], {"null": False}, {1: "null"}),
        (["EWR", "LAX", None], {"one_of": ["EWR", "JFK"]}, {1: "one_of"}),
        ([1, 2], {"one_of": [1]}, {1: "one_of"}),
        ([Decimal("0.10"), Decimal("0.12"), Decimal(3)], {"one_of": [0.1, 3]}, {1: "one_of"}),
        (["ab", "abc", "é"], {"matches": "^.{2}$"}, {1: "matches", 2: "matches"}),
        (["éé", "", "abc"], {"min_length": 1, "max_length": 2}, {1: "min_length", 2: "max_length"}),
        ([[1], []], {"min_length": 1}, {1: "min_length"}),
        ([date(2013, 1, 1), date(2012, 1, 1)], {"min": "2013-01-01"}, {1: "min"}),
        ([datetime(2013, 1, 1, tzinfo=UTC), datetime(2014, 1, 1, tzinfo=UTC)], {"max": "2013-06-01T00:00:00Z"}, {1: "max"}),
        ([datetime(2013, 1, 1), datetime(2014, 1, 1)], {"max": "2013-06-01"}, {1: "max"}),  # noqa: DTZ001
        (["b", "a"], {"min": "b"}, {1: "min"}),
    ],
)
def test_each_rule_rejects_its_rows(values, rules, bad):
    got, rejects = reasons({"v": values}, {"v": rules})
    assert rejects == {row: f"invalid:v:{rule}" for row, rule in bad.items()}
    assert len(got) == len(values) - len(bad)


def test_a_constant_condition_holds_for_all_rows_or_none():
    stage = Validate.model_validate({"where": {"sense": "1 < 0"}})
    got, rejects = apply(stage, rows({"v": [1, 2]}))
    assert not got
    assert rejects == {0: "invalid:sense", 1: "invalid:sense"}


def test_the_column_holds_all_reasons_of_a_hundred_rules():
    names = [f"c{at}" for at in range(100)]
    table = {name: [at, 0, None] for at, name in enumerate(names)}
    got, _ = reasons(table, {name: {"max": 49} for name in names}, to="column")
    assert [row["violations"] for row in got] == [[f"invalid:c{at}:max" for at in range(50, 100)], [], []]
    got, _ = reasons(table, {name: {"max": 9} for name in names}, to="column")
    assert [row["violations"] for row in got] == [[f"invalid:c{at}:max" for at in range(10, 100)], [], []]
    got, _ = reasons(table, {name: {"max": 100} for name in names}, to="column")
    assert [row["violations"] for row in got] == [[], [], []]


def test_conditions_can_span_several_columns():
    stage = Validate.model_validate({"where": {"in_order": "a < b"}})
    got, rejects = apply(stage, rows({"a": [1, 2, None], "b": [2, 1, 1]}))
    assert rejects == {1: "invalid:in_order"}
    assert len(got) == 2


def test_the_first_broken_rule_is_the_reason_and_the_column_holds_all():
    rules = {"a": {"min": 5}, "b": {"null": False}}
    assert reasons({"a": [1], "b": [None]}, rules)[1] == {0: "invalid:a:min"}
    got, rejects = reasons({"a": [1, 9], "b": [None, "x"]}, rules, to="column", column="why")
    assert [row["why"] for row in got] == [["invalid:a:min", "invalid:b:null"], []]
    assert not rejects


@pytest.mark.parametrize(
    ("rules", "path", "says"),
    [
        ({"x": {"min": 1}}, ("columns", "x"), "no column 'x'"),
        ({"s": {"min": 1}}, ("columns", "s", "min"), "cannot be a bound"),
        ({"n": {"max": "9"}}, ("columns", "n", "max"), "cannot be a bound"),
        ({"n": {"max": float("inf")}}, ("columns", "n", "max"), "cannot be a bound"),
        ({"n": {"min": float("nan")}}, ("columns", "n", "min"), "cannot be a bound"),
        ({"f": {"one_of": [1.5, float("-inf")]}}, ("columns", "f", "one_of"), "are values of type float64"),
        ({"d": {"min": "yesterday"}}, ("columns", "d", "min"), "cannot be a bound"),
        ({"n": {"matches": "x"}}, ("columns", "n", "matches"), "only text"),
        ({"s": {"matches": "(?=x)"}}, ("columns", "s", "matches"), "not a regular expression: look-around, inc"),
        ({"s": {"matches": "x" * 5000}}, ("columns", "s", "matches"), "at most 4096"),
        ({"n": {"one_of": ["1"]}}, ("columns", "n", "one_of"), "values of type"),
        ({"n": {"min_length": 1}}, ("columns", "n", "min_length"), "have a length"),
        ({"c": {"one_of": [1e300]}}, ("columns", "c", "one_of"), "values of type decimal"),
        ({"c": {"one_of": [0.1, 0.125]}}, ("columns", "c", "one_of"), "values of type decimal"),
    ],
)
def test_rules_that_do_not_fit_their_column_are_refused_with_their_position(rules, path, says):
    frame = rows({"s": ["x"], "n": [1], "f": [1.0], "d": [date(2013, 1, 1)], "c": [Decimal("0.12")]})
    with pytest.raises(SchemaMismatch, match=says) as caught:
        Validate.model_validate({"columns": rules}).output(frame.schema, Resources())
    assert caught.value.path == path


@pytest.mark.parametrize("config", [{}, {"columns": {"a": {"mni": 1}}}, {"columns": {"a": {"one_of": []}}}, {"where": {}}])
def test_empty_and_misspelt_options_are_refused(config):
    with pytest.raises(ValidationError):
        Validate.model_validate(config)


def test_a_condition_must_be_true_or_false():
    with pytest.raises(SchemaMismatch, match="a condition must be true or false"):
        Validate.model_validate({"where": {"w": "n + 1"}}).output(rows({"n": [1]}).schema, Resources())


def test_integer_arithmetic_in_a_condition_is_exact():
    frame = rows({"u": [0, 9]}, {"u": pl.UInt32()})
    assert apply(Validate.model_validate({"where": {"enough": "u - 5 > 0"}}), frame) == ([{"u": 9}], {0: "invalid:enough"})


@pytest.mark.parametrize(
    ("kind", "bound", "values", "low", "high"),
    [
        (pl.Datetime("ms", "UTC"), "2013-01-01T00:00:00.0005Z", [1356998400000, 1356998400001], [0], [1]),
        (pl.Datetime("ms", "UTC"), "2013-01-01T00:00:00.001Z", [1356998400000, 1356998400001, 1356998400002], [0], [2]),
        (pl.Datetime("ms"), "1969-12-31T23:59:59.9995", [-1, 0], [0], [1]),
        (pl.Date(), "2013-01-01T12:00:00Z", [15706, 15707], [0], [1]),
        (pl.Datetime("us", "UTC"), "2013-01-01T00:00:00.0000005Z", [1356998400000000, 1356998400000001], [0], [1]),
        (pl.Datetime("us", "UTC"), "2013-01-01T00:00:00.0000010Z", [1356998400000000, 1356998400000001, 1356998400000002], [0], [2]),
        (pl.Datetime("us"), "1969-12-31T23:59:59.999999001", [-1, 0], [0], [1]),
        (pl.Datetime("ns"), "1970-01-01T00:00:00.000000001", [0, 1, 2], [0], [2]),
    ],
)
def test_limits_finer_than_the_column_are_compared_exactly(kind, bound, values, low, high):
    column = pl.Series(values).cast(kind)
    for rule, rows_ in (("min", low), ("max", high)):
        _, rejects = reasons({"v": column}, {"v": {rule: bound}})
        assert rejects == dict.fromkeys(rows_, f"invalid:v:{rule}")
