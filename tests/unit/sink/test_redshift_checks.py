import pytest

from stream.sink.redshift_checks import comparison
from stream.sink.redshift_evolve import ExistingColumn


@pytest.mark.parametrize(
    ("kind", "text", "cast", "parameter"),
    [
        ("int4", "007", "bigint", "7"),
        ("int8", "-9223372036854775808", "bigint", "-9223372036854775808"),
        ("numeric", "19.90", "decimal(38,18)", "19.90"),
        ("float8", "1e3", "double precision", "1000.0"),
        ("varchar", "it's 100% :value", "varchar(65535)", "it's 100% :value"),
        ("bool", "True", "boolean", "true"),
        ("date", "2026-01-31", "date", "2026-01-31"),
        ("timestamp", "2026-01-31T12:00:00+02:00", "timestamp", "2026-01-31 10:00:00"),
        ("timestamptz", "2026-01-31T12:00:00.5Z", "timestamptz", "2026-01-31 12:00:00.500000+00"),
    ],
)
def test_a_value_is_a_parameter_of_the_columns_type(kind, text, cast, parameter):
    assert comparison(ExistingColumn("order_id", kind, 0), text) == (f'"order_id" = CAST(:value AS {cast})', parameter)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        *(("int8", text) for text in ("", "A-17", "1.5", "9223372036854775808", "1; DROP TABLE x")),
        *(("numeric", text) for text in ("", "NaN", "Infinity", "1e20", "0.0000000000000000001", "x")),
        *(("bool", text) for text in ("", "1", "yes")),
        *(("timestamp", text) for text in ("", "soon")),
        *(("varchar", text) for text in ("",)),
        *(("super", text) for text in ("[1]",)),
        *(("varbyte", text) for text in ("00",)),
    ],
)
def test_what_is_no_value_of_the_columns_type_is_not_asked_for(kind, text):
    assert comparison(ExistingColumn("order_id", kind, 0), text) is None


def test_a_column_whose_name_does_not_belong_in_a_statement_is_not_asked_for():
    assert comparison(ExistingColumn('x" OR 1=1 --', "int8", 0), "1") is None
