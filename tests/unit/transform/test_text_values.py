from datetime import UTC, date, datetime
from decimal import Decimal

import polars as pl
import pytest

from stream.transform.stage import SchemaMismatch
from stream.transform.text_values import check_text_type, from_text, readers, typed
from stream.transform.types import parse_schema, parse_type


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        ("int8", {"1": 1, "-128": -128, "+7": 7, "007": 7}, ["128", "1.0", "1e2", " 1", "1 ", "", "x", "1_0"]),
        ("uint64", {"18446744073709551615": 2**64 - 1}, ["-1", "18446744073709551616"]),
        ("float64", {"1": 1.0, "-1.5": -1.5, ".5": 0.5, "1e3": 1000.0}, ["inf", "nan", "1e999", "", "1,5"]),
        ("float32", {"0.5": 0.5}, ["1e300", "x"]),
        ("bool", {"true": True, "FALSE": False}, ["1", "yes", ""]),
        ("decimal(5,2)", {"1.5": Decimal("1.50"), "100": Decimal(100), "1.500": Decimal("1.50")}, ["1.555", "1000", "1_0", ""]),
        ("decimal(5,2)", {"1e2": 100, "0E-10": 0, "-1.5E+1": -15, "1250e-2": Decimal("12.5")}, ["1e3", "1e-3", "e1", "1e", "1e-999"]),
        ("timestamp", {"2013-01-01T05:00:00-05:00": datetime(2013, 1, 1, 10, tzinfo=UTC)}, ["noon", "", "1357020000"]),
        ("timestamp(s)", {"1357020000": datetime(2013, 1, 1, 6, tzinfo=UTC)}, ["x", "99999999999999999999", "1.5"]),
        ("date", {"2013-01-01": date(2013, 1, 1)}, ["2013-13-01", "1.1.2013"]),
        ("binary", {"eA==": b"x"}, ["eA="]),
        ("string", {"": "", "x": "x"}, []),
    ],
)
def test_each_type_reads_its_own_text_and_nothing_else(kind, good, bad):
    texts = pl.DataFrame({"v": [*good, *bad, None]})
    got = texts.select(from_text(pl.col("v"), parse_type(kind)).alias("v"))["v"]
    assert got.dtype == parse_type(kind).polars
    assert got.to_list() == [*good.values(), *[None] * (len(bad) + 1)]


def test_the_first_invalid_column_gives_the_reason():
    schema = parse_schema({"a": "int64", "b": "int64?"})
    done, reasons = typed(pl.DataFrame({"a": ["1", None, "x", "2"], "b": ["1", "y", "y", None]}), schema, readers(schema))
    assert done.rows() == [(1, 1), (None, None), (None, None), (2, None)]
    assert reasons.to_list() == [None, "missing_field:a", "wrong_type:a", None]
    assert typed(pl.DataFrame({"a": ["1"], "b": [None]}, schema_overrides={"b": pl.String}), schema, readers(schema))[1] is None


@pytest.mark.parametrize("kind", ["json", "list<int64>", "object{a: int64}"])
def test_types_without_a_text_form_are_refused(kind):
    with pytest.raises(SchemaMismatch, match="text cannot be read as"):
        check_text_type(parse_type(kind), ())
