"""An expression gives a row the same result alone as among others, so it does not matter where a batch is cut."""

import random

import polars as pl
import pytest

from stream.transform.expressions import compile_expression

DICE = random.Random(5)
ROWS = 60
FRAME = pl.DataFrame(
    {
        "f": [round(DICE.uniform(-1000, 1000), 2) for _ in range(ROWS)],
        "g": [DICE.uniform(-1, 1) for _ in range(ROWS)],
        "n": [DICE.randint(-(10**9), 10**9) for _ in range(ROWS)],
        "u": pl.Series([DICE.randint(0, 255) for _ in range(ROWS)], dtype=pl.UInt8),
        "d": pl.Series([str(DICE.randint(-(10**6), 10**6) / 100) for _ in range(ROWS)]).cast(pl.Decimal(12, 2)),
        "s": [DICE.choice(["a", "é-b", "12", ""]) for _ in range(ROWS)],
        "t": pl.Series([DICE.randint(-(10**15), 4 * 10**15) for _ in range(ROWS)]).cast(pl.Datetime("us", "UTC")),
    }
).with_columns(pl.when(pl.int_range(pl.len()) % 7 != 3).then(pl.all()))


@pytest.mark.parametrize(
    "text",
    [
        *(f"{name} {operator} {value}" for name in "fgnu" for operator in ("/", "*", "%", "+", "-") for value in ("3", "100", "0.7", "n")),
        *(f"date_part('{part}', t)" for part in ("epoch", "millisecond", "microsecond", "second", "week", "century")),
        *(f"{name}(g)" for name in ("sin", "exp", "sqrt", "cbrt", "floor", "degrees", "log2", "sign", "abs")),
        *("d / 7", "d * 0.3", "d + n", "round(f / 3, 2)", "power(f, 3)", "power(n, 2)", "(f + 1) / 100 / 7", "f / (1 + 2)", "100 / f"),
        *("strftime(t, '%G-W%V')", "substr(s, 2)", "split_part(s, '-', 1)", "s LIKE 'é%'", "TRY_CAST(s AS BIGINT) / 9", "t - _t"),
    ],
)
def test_a_row_gets_the_same_result_alone_and_among_others(text):
    frame = FRAME.with_columns(pl.col("t").alias("_t"))
    expression, _ = compile_expression(text, frame.schema)
    together = frame.select(expression.alias("r"))["r"]
    alone = pl.concat([frame[at : at + 1].select(expression.alias("r"))["r"] for at in range(ROWS)])
    assert together.equals(alone, null_equal=True, check_dtypes=True)
