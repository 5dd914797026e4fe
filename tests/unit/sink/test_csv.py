import csv
import io
import math
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

import duckdb
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from stream.sink.csv import SeparatedValues, separated
from stream.source.object_formats import Layout, ObjectCodec, ObjectFormat, chunks
from stream.transform.decoders.csv import Csv as CsvDecoder
from stream.transform.types import SYSTEM, parse_schema
from tests.frames import raw_frame

HOSTILE = st.text(
    st.sampled_from("ab,;\t|'\"\\\r\n N\ufeff\u202e=+-@é😀\u2028") | st.characters(exclude_categories=["Cs", "Cc"]), max_size=8
)
TEXTS = HOSTILE | st.sampled_from(["", " ", "\\N", "\\.", "NULL", "null", "=1+1", '"', '""', "\ufeff", "\r", "a\nb"])
ROWS = st.lists(st.tuples(st.none() | TEXTS, st.none() | TEXTS, st.integers(-(2**63), 2**63 - 1)), min_size=1, max_size=10)


def frame_of(rows):
    return pl.DataFrame(rows, schema={"a,1": pl.String, "b": pl.String, "n": pl.Int64}, orient="row")


EVERY = pl.DataFrame(
    {
        "flag": [True, False, None],
        "small": pl.Series([-128, 127, None], dtype=pl.Int8),
        "big": pl.Series([2**64 - 1, 0, None], dtype=pl.UInt64),
        "huge": pl.Series([2**100, -(2**100), None], dtype=pl.Int128),
        "real": [0.1 + 0.2, float("nan"), None],
        "limits": [float("inf"), float("-inf"), 1e300],
        "single": pl.Series([0.1, -0.0, None], dtype=pl.Float32),
        "money": pl.Series([Decimal("1.50"), Decimal("-0.01"), None], dtype=pl.Decimal(38, 2)),
        "bytes": [b"\x00\xff", b"", None],
        "day": [date(1969, 12, 31), date(9999, 12, 31), None],
        "at": pl.Series([datetime(2026, 1, 1, 12, 0, 0, 5, tzinfo=UTC), datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC), None]),
        "here": pl.Series([datetime.fromisoformat("2026-07-01T12:00"), None, None], dtype=pl.Datetime("ms")).dt.replace_time_zone(
            "Europe/Berlin"
        ),
        "naive": pl.Series([datetime.fromisoformat("2026-01-01"), None, None], dtype=pl.Datetime("ns")),
        "clock": [time(1, 2, 3, 4), time(0), None],
        "took": [timedelta(seconds=1.5), timedelta(days=-1), None],
        "kind": pl.Series(["x,y", "", None], dtype=pl.Categorical()),
        "nothing": pl.Series([None, None, None], dtype=pl.Null),
    }
)


def test_every_type_has_one_exact_text():
    first, second, third = csv.reader(io.StringIO(separated(EVERY, SeparatedValues(header=False)).decode(), newline=""))
    assert dict(zip(EVERY.columns, first, strict=True)) == {
        "flag": "true",
        "small": "-128",
        "big": "18446744073709551615",
        "huge": "1267650600228229401496703205376",
        "real": "0.30000000000000004",
        "limits": "Infinity",
        "single": "0.1",
        "money": "1.50",
        "bytes": "AP8=",
        "day": "1969-12-31",
        "at": "2026-01-01T12:00:00.000005+00:00",
        "here": "2026-07-01T12:00:00.000+02:00",
        "naive": "2026-01-01T00:00:00.000000000",
        "clock": "01:02:03.000004000",
        "took": "PT1.5S",
        "kind": "x,y",
        "nothing": "",
    }
    assert second[:8] == ["false", "127", "0", "-1267650600228229401496703205376", "NaN", "-Infinity", "-0.0", "-0.01"]
    assert (second[9], second[10]) == ("9999-12-31", "1969-12-31T23:59:59.999999+00:00")
    assert [value for name, value in zip(EVERY.columns, third, strict=True) if name != "limits"] == [""] * 16


def test_times_for_sql_are_in_utc_and_without_a_zone():
    text = separated(EVERY.select("at", "here", "naive", "day").head(1), SeparatedValues(header=False, times="sql")).decode()
    assert text == "2026-01-01 12:00:00.000005,2026-07-01 10:00:00.000,2026-01-01 00:00:00.000000000,1969-12-31\n"


@given(st.lists(st.floats(allow_nan=False) | st.none(), min_size=1))
def test_floats_read_back_as_the_same(values):
    frame = pl.DataFrame({"f": pl.Series(values, dtype=pl.Float64), "g": ["x"] * len(values)})
    read = [row[0] for row in csv.reader(io.StringIO(separated(frame, SeparatedValues(header=False)).decode()))]
    assert [float(text) if text else None for text in read] == values
    assert [math.copysign(1, float(text)) for text in read if text] == [math.copysign(1, value) for value in values if value is not None]


@pytest.mark.parametrize("options", [{}, {"quoting": "always"}, {"delimiter": "\t", "quote": "'"}, {"line_end": "crlf", "delimiter": ";"}])
@given(ROWS)
@settings(max_examples=100, deadline=None)
def test_the_csv_module_of_python_reads_every_text_back(options, rows):
    form = SeparatedValues(**options)
    body = separated(frame_of(rows), form).decode()
    reader = csv.reader(io.StringIO(body, newline=""), delimiter=form.delimiter, quotechar=form.quote, strict=True)
    assert list(reader) == [["a,1", "b", "n"], *([a or "", b or "", str(n)] for a, b, n in rows)]


@pytest.mark.parametrize(("quote", "quoting"), [(None, csv.QUOTE_NONE), ('"', csv.QUOTE_MINIMAL)])
@given(ROWS)
@settings(max_examples=100, deadline=None)
def test_with_an_escape_the_csv_module_of_python_reads_every_text_back(quote, quoting, rows):
    body = separated(
        frame_of(rows).with_columns(pl.col("a,1", "b").fill_null("-")), SeparatedValues(quote=quote, escape="\\", header=False)
    ).decode()
    reader = csv.reader(
        io.StringIO(body, newline=""), quoting=quoting, quotechar=quote or '"', escapechar="\\", doublequote=False, strict=True
    )
    expected = [["-" if a is None else a, "-" if b is None else b, str(n)] for a, b, n in rows]
    assert list(reader) == expected


@given(ROWS)
@settings(max_examples=100, deadline=None)
def test_polars_and_duckdb_read_every_text_and_tell_null_from_empty_text(tmp_path_factory, rows):
    frame = frame_of(rows)
    body = separated(frame, SeparatedValues())
    assert pl.read_csv(body, schema=frame.schema).rows() == rows
    file = tmp_path_factory.mktemp("csv") / "a.csv"
    file.write_bytes(body)
    with duckdb.connect() as connection:
        columns = "{'a,1': 'VARCHAR', 'b': 'VARCHAR', 'n': 'BIGINT'}"
        options = f"header = true, auto_detect = false, quote = '\"', escape = '\"', allow_quoted_nulls = false, columns = {columns}"
        if not any(text and "\r" in text for row in rows for text in row[:2]):  # DuckDB takes a lone carriage return for another line end
            read = connection.sql(f"SELECT * FROM read_csv('{file}', {options})").fetchall()  # noqa: S608 - a file of this test
            assert read == rows


def test_duckdb_reads_every_type_back(tmp_path):
    frame = EVERY.select("flag", "small", "big", "huge", "real", "limits", "money", "day", "at", "naive", "clock")
    file = tmp_path / "a.csv"
    file.write_bytes(separated(frame, SeparatedValues()))
    kinds = ["BOOLEAN", "TINYINT", "UBIGINT", "HUGEINT", "DOUBLE", "DOUBLE", "DECIMAL(38,2)", "DATE", "TIMESTAMPTZ", "TIMESTAMP", "TIME"]
    stated = ", ".join(f"'{name}': '{kind}'" for name, kind in zip(frame.columns, kinds, strict=True))
    with duckdb.connect() as connection:
        connection.sql("SET TimeZone = 'UTC'")
        read = connection.sql(f"SELECT * FROM read_csv('{file}', header = true, auto_detect = false, columns = {{{stated}}})").pl()  # noqa: S608
    assert read.cast(dict(zip(frame.columns, frame.dtypes, strict=True))).equals(frame, null_equal=True)


NEEDED = {
    "first": "string?",
    "other": "string?",
    "n": "int64",
    "money": "decimal(38,2)?",
    "at": "timestamp?",
    "flag": "bool?",
    "raw": "binary?",
}


@given(
    st.lists(
        st.tuples(st.none() | TEXTS.filter(bool), st.none() | TEXTS.filter(bool), st.integers(-(2**63), 2**63 - 1)), min_size=1, max_size=8
    )
)
@settings(max_examples=100, deadline=None)
def test_our_own_source_and_decoder_read_back_what_was_written(rows):
    """Blank texts are null to the decoder in a column that may be null, so they are left out here."""
    frame = (
        frame_of(rows)
        .rename({"a,1": "first", "b": "other"})
        .with_columns(
            money=pl.lit("1.50").cast(pl.Decimal(38, 2)),
            at=pl.lit(datetime(2026, 1, 1, 12, 0, 0, 5, tzinfo=UTC)).cast(pl.Datetime("us", "UTC")),
            flag=pl.lit(value=True),
            raw=pl.lit(b"\x00\xff"),
        )
    )
    layout = Layout(ObjectFormat.CSV, ObjectCodec.NONE, header=True)
    records = [body for chunk in chunks(layout, io.BytesIO(separated(frame, SeparatedValues())), "a.csv", 0, 10_000) for _, body in chunk]
    applied = CsvDecoder(header=True).bound(parse_schema(NEEDED))(raw_frame(records))
    assert applied.rejects is None or applied.rejects.is_empty()
    assert applied.frame.drop(SYSTEM).rows() == frame.rows()


def test_empty_bytes_are_distinguished_from_null():
    frame = pl.DataFrame({"n": [1, 2], "bytes": [b"", None]})
    assert separated(frame, SeparatedValues(header=False)) == b'1,""\n2,\n'
    assert separated(frame, SeparatedValues(header=False, quote=None, escape="\\")) == b"1,\n2,\\N\n"


def test_what_a_spreadsheet_would_take_for_a_formula_is_written_as_it_is():
    assert separated(pl.DataFrame({"t": ["=1+1", "@x", "-1"]}), SeparatedValues(header=False)) == b"=1+1\n@x\n-1\n"


@pytest.mark.parametrize("options", [{}, {"quote": None, "escape": "\\"}])
def test_a_text_that_begins_with_a_byte_order_mark_is_not_taken_for_one_of_the_file(options):
    body = separated(pl.DataFrame({"t": ["\ufeffa"], "n": [1]}), SeparatedValues(header=False, **options))
    assert "\ufeffa" in body.decode("utf-8-sig")


def test_a_line_that_would_end_the_data_of_postgresql_is_quoted():
    """PostgreSQL manual, COPY: "\\." alone on a line."""
    assert separated(pl.DataFrame({"t": ["\\."]}), SeparatedValues(header=False, null="-")) == b'"\\."\n'


def test_a_byte_order_mark_and_crlf_for_spreadsheets():
    assert (
        separated(pl.DataFrame({"t": ["é"], "n": [1]}), SeparatedValues(bom=True, line_end="crlf")) == b"\xef\xbb\xbft,n\r\n\xc3\xa9,1\r\n"
    )


@pytest.mark.parametrize("delimiter", [":", "-", " ", ".", "1", "e", "+", "="])
def test_a_delimiter_that_numbers_and_times_contain_puts_them_in_quotes(delimiter):
    body = separated(EVERY.drop("kind"), SeparatedValues(delimiter=delimiter, header=False)).decode()
    rows = list(csv.reader(io.StringIO(body, newline=""), delimiter=delimiter, strict=True))
    assert rows == list(csv.reader(io.StringIO(separated(EVERY.drop("kind"), SeparatedValues(header=False)).decode(), newline="")))


def test_a_number_that_looks_like_null_is_distinguished_from_it():
    assert separated(pl.DataFrame({"n": [0, None], "t": ["0", "x"]}), SeparatedValues(null="0", header=False)) == b'"0","0"\n0,x\n'


def test_equal_rows_give_equal_bytes_however_they_lie_in_memory():
    whole = pl.concat([EVERY] * 40)
    pieces = pl.concat([whole.slice(start, 7) for start in range(0, whole.height, 7)], rechunk=False)
    other = whole.with_columns(kind=pl.concat([pl.Series("kind", ["q"]), whole["kind"].cast(pl.String)]).cast(pl.Categorical()).tail(-1))
    for form in (SeparatedValues(), SeparatedValues(quoting="always", escape="\\"), SeparatedValues(quote=None, escape="\\", times="sql")):
        assert separated(pieces, form) == separated(whole, form) == separated(other, form)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"delimiter": ",,"}, "the delimiter; use a single ASCII character"),
        ({"delimiter": "\n"}, "not a line break"),
        ({"delimiter": "\\t"}, "in double quotes"),
        ({"quote": "é"}, "single ASCII"),
        ({"quote": ","}, "delimiter and quote are both ','"),
        ({"escape": '"'}, "quote and escape are both"),
        ({"quote": None}, "need an `escape`"),
        ({"quote": None, "escape": "\\", "quoting": "always"}, "give a quote"),
        ({"quote": None, "escape": "\\", "null": ""}, "without quotes it must be the escape and"),
        ({"quote": None, "escape": "\\", "null": "NULL"}, "text could look like it"),
        ({"quote": None, "escape": "\\", "null": "\\\\"}, "text could look like it"),
        ({"null": "a,b"}, "contains the delimiter"),
        ({"null": "a\nb"}, "must not contain line breaks"),
        ({"times": "local"}, "'iso' or 'sql'"),
    ],
)
def test_options_that_would_not_read_back_are_refused(options, says):
    with pytest.raises(ValidationError, match=says):
        SeparatedValues(**options)
