from datetime import UTC, datetime

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.arithmetic import WIDE, exact, narrowed

KINDS = {"i8": pl.Int8(), "u8": pl.UInt8(), "i32": pl.Int32(), "u32": pl.UInt32(), "i64": pl.Int64(), "u64": pl.UInt64()}
OPERATORS = {"+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b}


def bounds(kind):
    bits = int(str(kind).lstrip("UInt"))
    return (0, 2**bits - 1) if str(kind).startswith("U") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def value_of(text, frame):
    return frame.select(exact(pl.sql_expr(text), frame.schema).alias("r"))["r"].to_list()


@st.composite
def operations(draw):
    kinds = [draw(st.sampled_from(sorted(KINDS))) for _ in range(2)]
    limits = [bounds(KINDS[kind]) for kind in kinds]
    values = [draw(st.one_of(st.integers(*limit), st.sampled_from(limit))) for limit in limits]
    return draw(st.sampled_from(sorted(OPERATORS))), kinds, values


@given(operations())
def test_two_whole_numbers_of_any_types_give_what_they_give_in_mathematics(operation):
    operator, kinds, values = operation
    frame = pl.DataFrame({"a": [values[0]], "b": [values[1]]}, schema={"a": KINDS[kinds[0]], "b": KINDS[kinds[1]]})
    expected = OPERATORS[operator](*values)
    # The product of two of the largest unsigned numbers needs one bit more, and has a sign that no column of them takes.
    assert value_of(f"a {operator} b", frame) == [expected if expected < 2**127 else expected - 2**128]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("month(t) * 100 + day(t)", 1231),
        ("year(t) * 10000 + month(t) * 100 + day(t)", 20241231),
        ("EXTRACT(hour FROM t) * 60 + EXTRACT(minute FROM t)", 1439),
        ("char_length(s) - 5", -3),
        ("abs(i)", 128),
        ("-i", 128),
        ("(i + i) / 2", -128.0),
        ("i - 1 < u - 1", True),
        ("CASE WHEN u - 1 < 0 THEN i * 2 ELSE 0 END", -256),
        ("concat(s, i * 2)", "ab-256"),
        ("COALESCE(NULL, u - 1)", -1),
        ("i * 1.5", -192.0),
        ("i % 7", -2),
    ],
)
def test_arithmetic_inside_of_an_expression_is_exact_wherever_it_stands(text, expected):
    frame = pl.DataFrame(
        {"t": [datetime(2024, 12, 31, 23, 59, tzinfo=UTC)], "s": ["ab"], "i": [-128], "u": [0]},
        schema={"t": pl.Datetime("us", "UTC"), "s": pl.String(), "i": pl.Int8(), "u": pl.UInt32()},
    )
    (found,) = value_of(text, frame)
    assert found == expected


@pytest.mark.parametrize("text", ["s", "t - t", "f + i", "f * 2.0", "i > 3", "s || 'x'", "i IN (1, 2)", "t", "i % 7", "i / 7", "f > 1e999"])
def test_what_adds_no_whole_numbers_stays_as_it_is(text):
    schema = {"t": pl.Datetime("us", "UTC"), "s": pl.String(), "i": pl.Int8(), "f": pl.Float32()}
    expression = pl.sql_expr(text)
    assert exact(expression, schema) is expression


def test_an_infinite_constant_is_no_trouble():
    frame = pl.DataFrame({"i": [1]}, schema={"i": pl.Int8()})
    assert value_of("i + 1 < 1e999", frame) == [True]


def test_results_become_columns_of_64_bits():
    assert narrowed(pl.Int8(), WIDE) == pl.Int64()
    assert narrowed(pl.UInt64(), WIDE) == pl.UInt64()
    assert narrowed(pl.Float32(), pl.Float32()) == pl.Float32()
