import polars as pl
import pytest

from stream.dry_run import sample_row, type_error

KINDS = [
    pl.Int8(),
    pl.UInt64(),
    pl.Int128(),
    pl.Float32(),
    pl.Decimal(1, 1),
    pl.Decimal(38, 38),
    pl.Decimal(38, 0),
    pl.String(),
    pl.Binary(),
    pl.Boolean(),
    pl.Date(),
    pl.Time(),
    pl.Duration("us"),
    pl.Datetime("us", "UTC"),
    pl.Datetime("ms"),
    pl.Categorical(),
    pl.List(pl.Decimal(2, 2)),
    pl.Array(pl.Int8(), 2),
    pl.Struct({"a": pl.List(pl.Struct({"b": pl.Date()}))}),
]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_every_type_has_a_sample_value(kind):
    row = sample_row({"a": kind, "n": pl.Null()})
    assert row.schema == {"a": kind, "n": pl.Null()}
    assert row["a"].null_count() == 0


def test_only_the_types_of_columns_make_an_expression_impossible():
    schema = {"s": pl.String(), "n": pl.Int64()}
    assert not type_error(lambda row: row.select(pl.col("n") + 1), schema)
    assert not type_error(lambda row: row.select(pl.col("s").str.to_date("%Y")), schema)
    assert not type_error(lambda row: row.select(pl.col("n").cast(pl.Decimal(2, 2))), schema)
    assert type_error(lambda row: row.select(pl.col("s").cast(pl.Date)), schema) == "casting from string to date is not supported."
    assert type_error(lambda row: row.select(pl.col("s").list.len()), schema)
