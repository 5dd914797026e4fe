from datetime import UTC, datetime

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.arithmetic import MOST, WIDE, exact, narrowed

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
def test_integer_arithmetic_of_any_two_types_is_exact(operation):
    operator, kinds, values = operation
    frame = pl.DataFrame({"a": [values[0]], "b": [values[1]]}, schema={"a": KINDS[kinds[0]], "b": KINDS[kinds[1]]})
    expected = OPERATORS[operator](*values)
    (found,) = value_of(f"a {operator} b", frame)
    # The product of two of the largest unsigned numbers needs one bit more.
    assert found == expected or (expected > 2**125 and found == MOST)


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
def test_arithmetic_is_exact_anywhere_inside_an_expression(text, expected):
    frame = pl.DataFrame(
        {"t": [datetime(2024, 12, 31, 23, 59, tzinfo=UTC)], "s": ["ab"], "i": [-128], "u": [0]},
        schema={"t": pl.Datetime("us", "UTC"), "s": pl.String(), "i": pl.Int8(), "u": pl.UInt32()},
    )
    (found,) = value_of(text, frame)
    assert found == expected


@pytest.mark.parametrize("text", ["s", "t - t", "f + i", "f * 2.0", "i > 3", "s || 'x'", "i IN (1, 2)", "t", "i % 7", "7 / i", "f > 1e999"])
def test_expressions_without_integer_arithmetic_are_unchanged(text):
    schema = {"t": pl.Datetime("us", "UTC"), "s": pl.String(), "i": pl.Int8(), "f": pl.Float32()}
    expression = pl.sql_expr(text)
    assert exact(expression, schema) is expression


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("power(n, 2)", [10**14, 4, 10**14, None]),
        ("power(n, 30)", [MOST, 2**30, MOST, None]),
        ("power(n, 31)", [MOST, -(2**31), -MOST, None]),
        ("n * n * n * n * n * n", [MOST, 64, MOST, None]),
        ("n * n * n * n * n * n * n", [MOST, -128, -MOST, None]),
        ("power(n, 40) + power(n, 40) + power(n, 40) > 0", [True, True, True, None]),
        ("power(2, b) > 0", [True, True, True, None]),
    ],
)
def test_results_beyond_128_bits_saturate_and_never_wrap_around(text, expected):
    frame = pl.DataFrame({"n": [10**7, -2, -(10**7), None], "b": [200, 3, 127, None]}, schema={"n": pl.Int64(), "b": pl.Int64()})
    assert value_of(text, frame) == expected


@pytest.mark.parametrize("kind", [pl.Int64(), pl.Float64(), pl.Float32(), pl.UInt8()])
@pytest.mark.parametrize("text", ["n / 100", "(n + 1) / 100", "n / (99 + 1)", "n / CAST('100' AS DOUBLE)"])
def test_a_number_divided_by_a_constant_is_the_same_alone_and_among_others(text, kind):
    frame = pl.DataFrame({"n": [35, 57, 114, 0, None]}, schema={"n": kind})
    alone = [each for at in range(frame.height) for each in value_of(text, frame[at : at + 1])]
    assert value_of(text, frame) == alone
    if text == "n / 100" and kind != pl.Float32():
        assert alone == [0.35, 0.57, 1.14, 0.0, None]


def test_a_division_keeps_its_type_and_gives_infinity_for_zero():
    frame = pl.DataFrame({"f": [1.0, -1.0, None]}, schema={"f": pl.Float32()})
    assert frame.select(exact(pl.sql_expr("f / 3"), frame.schema)).dtypes == [pl.Float32]
    assert value_of("f / 0", frame) == [float("inf"), float("-inf"), None]


def test_seconds_since_1970_are_right_in_all_years_and_the_same_alone():
    moments = [-1, -1_000, 0, 1_704_067_200_123_456, -62_135_596_800_000_000, 253_402_300_799_000_000, None]
    frame = pl.DataFrame({"t": moments}, schema={"t": pl.Datetime("us", "UTC")})
    frame = frame.with_columns(d=pl.col("t").dt.date(), m=pl.col("t").cast(pl.Datetime("ms", "UTC")))
    expected = [-1e-06, -0.001, 0.0, 1704067200.123456, -62135596800.0, 253402300799.0, None]
    for text in ("date_part('epoch', t)", "EXTRACT(epoch FROM t)"):
        assert value_of(text, frame) == expected
        assert [value_of(text, frame[at : at + 1])[0] for at in range(frame.height)] == expected
    assert value_of("date_part('epoch', d)", frame)[-2:] == [253402214400.0, None]
    assert value_of("date_part('epoch', m)", frame)[3:] == [1704067200.123, *expected[4:]]
    assert value_of("date_part('epoch', t) * 1000 > 0", frame)[5] is True


def test_fractions_of_seconds_are_the_same_alone_and_among_others():
    frame = pl.DataFrame({"t": [2_482_338, 632_782, None]}, schema={"t": pl.Datetime("us", "UTC")})
    for part, expected in (("millisecond", [2482.338, 632.782, None]), ("microsecond", [2482338.0, 632782.0, None])):
        text = f"date_part('{part}', t)"
        assert value_of(text, frame) == expected
        assert [value_of(text, frame[at : at + 1])[0] for at in range(frame.height)] == expected


def test_an_infinite_constant_is_accepted():
    frame = pl.DataFrame({"i": [1]}, schema={"i": pl.Int8()})
    assert value_of("i + 1 < 1e999", frame) == [True]


def test_results_become_columns_of_64_bits():
    assert narrowed(pl.Int8(), WIDE) == pl.Int64()
    assert narrowed(pl.UInt64(), WIDE) == pl.UInt64()
    assert narrowed(pl.Float32(), pl.Float32()) == pl.Float32()
