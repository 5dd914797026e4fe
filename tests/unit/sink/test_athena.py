from __future__ import annotations

import io
import json
import re
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

import duckdb
import fastavro
import polars as pl
import pytest
import sqlglot
from sqlglot import exp

from stream.batch import ROW
from stream.sink.athena import external_table
from stream.sink.athena_formats import character
from stream.sink.objects import ObjectsSink, ObjectsSinkConfig
from stream.sink.partition import SinkMismatch
from stream.transform.types import SYSTEM_SCHEMA

SINCE = date(2026, 1, 1)
NOON = datetime(2026, 1, 1, 12, 30, tzinfo=UTC)
COLUMNS = {
    "flag": pl.Series([True, None]),
    "tiny": pl.Series([-128, None], dtype=pl.Int8),
    "small": pl.Series([-(2**15), None], dtype=pl.Int16),
    "plain": pl.Series([-(2**31), None], dtype=pl.Int32),
    "big": pl.Series([-(2**63), None], dtype=pl.Int64),
    "utiny": pl.Series([255, None], dtype=pl.UInt8),
    "usmall": pl.Series([2**16 - 1, None], dtype=pl.UInt16),
    "uplain": pl.Series([2**32 - 1, None], dtype=pl.UInt32),
    "ubig": pl.Series([2**63 - 1, None], dtype=pl.UInt64),
    "huge": pl.Series([2**100, None], dtype=pl.Int128),
    "single": pl.Series([1.5, None], dtype=pl.Float32),
    "double": pl.Series([1.1, None], dtype=pl.Float64),
    "text": pl.Series(["größer ✓", None]),
    "category": pl.Series(["a", None], dtype=pl.Categorical()),
    "bytes": pl.Series([b"\x00\xff", None]),
    "price": pl.Series([Decimal("12345678901234567890.12"), None], dtype=pl.Decimal(38, 2)),
    "day_of": pl.Series([date(1969, 12, 31), None]),
    "at": pl.Series([NOON, None], dtype=pl.Datetime("us", "UTC")),
    "local": pl.Series([NOON.replace(tzinfo=None), None], dtype=pl.Datetime("ms")),
    "took": pl.Series([timedelta(seconds=1), None], dtype=pl.Duration("us")),
    "nested": pl.Series([{"A": 1, "deep": [{"x": "y"}]}, None]),
    "list": pl.Series([[1, None], None], dtype=pl.List(pl.Int16)),
}
LINEAGE = {
    "_shard": pl.Series(["s", "s"]),
    "_sequence": pl.Series(["1", "2"]),
    "_subsequence": pl.Series([0, 1], dtype=pl.UInt32),
    "_arrival": pl.Series([NOON, NOON], dtype=pl.Datetime("ms", "UTC")),
    ROW: pl.Series([0, 1], dtype=pl.UInt32),
}
FRAME = pl.DataFrame({**LINEAGE, **COLUMNS})


def config(**options):
    return ObjectsSinkConfig.model_validate({"url": "s3://lake/t/", **options})


def table(options=None, schema=FRAME.schema, name="lake.t"):
    return external_table(config(**(options or {})), schema, name, SINCE)


def columns_of(text):
    """The columns' and the partitions' names and types, the properties and the location, as an independent parser reads the statement."""
    made = sqlglot.parse_one(text, read="athena")
    assert isinstance(made, exp.Create)
    assert made.kind == "TABLE"
    definitions = {each.name: each.args["kind"].sql("hive") for each in made.this.expressions}
    properties = made.args["properties"].expressions
    partitions = next((each for each in properties if isinstance(each, exp.PartitionedByProperty)), None)
    folders = {} if partitions is None else {each.name: each.args["kind"].sql("hive") for each in partitions.this.expressions}
    stated = {each.this.name: each.args["value"].name for each in properties if type(each) is exp.Property}
    location = next(each.this.name for each in properties if isinstance(each, exp.LocationProperty))
    return definitions, folders, stated, location


def duck(kind):
    """The type's name in DuckDB, translated by the parser."""
    return sqlglot.exp.DataType.build(kind, dialect="hive").sql("duckdb")


def test_written_files_have_the_columns_and_types_of_the_statement(tmp_path):
    file = tmp_path / "a.parquet"
    (made,) = ObjectsSink(config()).encode(FRAME, "u").files
    file.write_bytes(made.body)
    definitions, folders, _, location = columns_of(table().text)
    assert folders == {}
    assert location == "s3://lake/t/"
    with duckdb.connect() as connection:
        found = connection.sql(f"SELECT * FROM read_parquet('{file}')")  # noqa: S608 - a file of this test
        assert [each.lower() for each in found.columns] == list(definitions)
        for name, kind in definitions.items():
            same = f'"{name}" IS NOT DISTINCT FROM CAST("{name}" AS {duck(kind)})'
            fits = connection.sql(f'SELECT {same}, "{name}" IS NULL FROM found').fetchall()  # noqa: S608 - names of this test
            assert fits == [(True, False), (True, not name.startswith("_"))], (name, kind)


def test_every_type_has_its_exact_athena_type():
    definitions, *_ = columns_of(table().text)
    assert definitions == {
        "flag": "BOOLEAN",
        "tiny": "TINYINT",
        "small": "SMALLINT",
        "plain": "INT",
        "big": "BIGINT",
        "utiny": "SMALLINT",
        "usmall": "INT",
        "uplain": "BIGINT",
        "ubig": "BIGINT",
        "huge": "STRING",
        "single": "FLOAT",
        "double": "DOUBLE",
        "text": "STRING",
        "category": "STRING",
        "bytes": "BINARY",
        "price": "DECIMAL(38, 2)",
        "day_of": "DATE",
        "at": "TIMESTAMP",
        "local": "TIMESTAMP",
        "took": "BIGINT",
        "nested": "STRUCT<a: BIGINT, deep: ARRAY<STRUCT<x: STRING>>>",
        "list": "ARRAY<SMALLINT>",
        "_shard": "STRING",
        "_sequence": "STRING",
        "_subsequence": "BIGINT",
        "_arrival": "TIMESTAMP",
    }
    assert any("`ubig`" in note for note in table().notes)


def test_written_json_lines_have_the_columns_of_the_statement(tmp_path):
    frame = FRAME.drop("bytes")
    file = tmp_path / "a.ndjson"
    (made,) = ObjectsSink(config(format="ndjson", compression="none")).encode(frame, "u").files
    file.write_bytes(made.body)
    statement = table({"format": "ndjson"}, frame.schema)
    definitions, *_ = columns_of(statement.text)
    assert "JsonSerDe" in statement.text
    assert (definitions["price"], definitions["at"], definitions["ubig"]) == ("STRING", "STRING", "DECIMAL(20, 0)")
    kinds = {name: duck(kind) for name, kind in definitions.items()}
    with duckdb.connect() as connection:
        stated = ", ".join(f"'{name}': '{kind}'" for name, kind in kinds.items())
        found = connection.sql(f"SELECT * FROM read_json('{file}', format = 'newline_delimited', columns = {{{stated}}})")  # noqa: S608 - as above
        first = dict(zip(found.columns, found.fetchall()[0], strict=True))
    assert (first["price"], first["at"], first["day_of"]) == ("12345678901234567890.12", "2026-01-01T12:30:00+00:00", "1969-12-31")
    assert (first["ubig"], first["huge"], first["uplain"]) == (2**63 - 1, 2**100, 2**32 - 1)
    assert any("`at` is text" in note for note in statement.notes)


TIMES = [
    ("strftime(_arrival, '%Y-%m-%d')", "yyyy-MM-dd", "2026-01-01,NOW", "DAYS"),
    ("strftime(_arrival, '%Y-%m-%d-%H')", "yyyy-MM-dd-HH", "2026-01-01-00,NOW", "HOURS"),
    ("STRFTIME( \"_arrival\" , '%Y%m')", "yyyyMM", "202601,NOW", "MONTHS"),
    ("strftime(_arrival, '%Y')", "yyyy", "2026,NOW", "YEARS"),
    # What a folder's name spells as %XX is a literal of the pattern.
    ("strftime(_arrival, '%FT%H:00')", "yyyy-MM-dd'T'HH'%3A00'", "2026-01-01T00%3A00,NOW", "HOURS"),
]


@pytest.mark.parametrize(("expression", "form", "span", "unit"), TIMES)
def test_times_are_projected_to_the_folders_that_the_sink_writes(expression, form, span, unit):
    options = {"partition_by": [{"Hour_of": expression}]}
    statement = table(options)
    _, folders, stated, _ = columns_of(statement.text)
    assert folders == {"hour_of": "STRING"}
    prefix = "projection.hour_of."
    assert stated[prefix + "type"] == "date"
    assert (stated[prefix + "range"], stated[prefix + "interval"], stated[prefix + "interval.unit"]) == (span, "1", unit)
    assert stated[prefix + "format"] == form
    assert stated["storage.location.template"] == "s3://lake/t/Hour_of=${hour_of}/"
    assert not [note for note in statement.notes if "hour_of`:" in note]
    # The first folder of the range, and that of a record, are of one form.
    key = ObjectsSink(config(**options)).encode(FRAME.head(1), "u").files[0].key
    folder = key.partition("=")[2].partition("/")[0]
    first = span.partition(",")[0]
    assert [len(folder), [each.isdigit() for each in folder]] == [len(first), [each.isdigit() for each in first]]


@pytest.mark.parametrize(
    ("entry", "kind", "stated"),
    [
        ({"p": "strftime(at, '%m')"}, "STRING", {"type": "integer", "range": "1,12", "digits": "2"}),
        ({"p": "strftime(at, '%H')"}, "STRING", {"type": "integer", "range": "0,23", "digits": "2"}),
        ({"p": "month(at)"}, "INT", {"type": "integer", "range": "1,12"}),
        ({"p": "year(_arrival)"}, "INT", {"type": "integer", "range": "2026,2100"}),
        ({"p": "strftime(at, '%d.%m.')"}, "STRING", {"type": "injected"}),
        ({"p": "strftime(at, '%j')"}, "STRING", {"type": "injected"}),
        ({"p": "UPPER(text)"}, "STRING", {"type": "injected"}),
        ("flag", "STRING", {"type": "enum", "values": "true,false"}),
        ("day_of", "STRING", {"type": "date", "format": "yyyy-MM-dd", "range": "2026-01-01,NOW", "interval": "1", "interval.unit": "DAYS"}),
        ("text", "STRING", {"type": "injected"}),
        ("plain", "STRING", {"type": "injected"}),
    ],
)
def test_partitions_are_projected_where_possible_and_injected_otherwise(entry, kind, stated):
    statement = table({"partition_by": [entry]})
    definitions, folders, properties, _ = columns_of(statement.text)
    (name,) = folders
    assert folders[name] == kind
    assert name not in definitions
    prefix = f"projection.{name}."
    assert {key.removeprefix(prefix): value for key, value in properties.items() if key.startswith(prefix)} == stated
    notes = [note for note in statement.notes if note.startswith(f"partition `{name}`")]
    assert bool(notes) is (stated["type"] == "injected" or "_arrival" not in str(entry))


def test_a_projected_folder_is_the_folder_of_its_records():
    options = {"partition_by": [{"m": "month(at)"}, {"h": "strftime(at, '%H')"}, "flag"]}
    key = ObjectsSink(config(**options)).encode(FRAME.head(1), "u").files[0].key
    assert key.startswith("m=1/h=12/flag=true/")


def test_a_renamed_column_and_a_column_taken_from_the_folder_are_noted():
    frame = FRAME.rename({"text": "Text"})
    statement = table({"partition_by": ["plain"]}, frame.schema)
    assert "column 'Text' is called `text`: Athena ignores case" in statement.notes
    assert "column `plain` is read from the folder's name, as text, and not from the files" in statement.notes


@pytest.mark.parametrize(
    ("options", "changes", "name", "says"),
    [
        ({}, {"Text": pl.String()}, "lake.t", "'text' and 'Text' are one column"),
        ({}, {"a-b": pl.String()}, "lake.t", "'a-b' is not allowed"),
        ({}, {"s": pl.Struct({"a b": pl.Int64()})}, "lake.t", "'a b' is not allowed"),
        ({}, {"s": pl.Struct({"a": pl.Int64(), "A": pl.Int64()})}, "lake.t", "'a' and 'A' are one column"),
        ({}, {"clock": pl.Time()}, "lake.t", "the type Time"),
        ({"partition_by": [{"Text": "UPPER(text)"}]}, {}, "lake.t", "'text' and the partition 'Text' are one column"),
        ({"partition_by": [{"a b": "UPPER(text)"}]}, {}, "lake.t", "'a b' is not allowed"),
        ({"url": "file:./lake"}, {}, "lake.t", "Athena reads only s3:// locations"),
        ({}, {}, "t", "write database.table"),
        ({}, {}, "lake.T", "write database.table"),
    ],
)
def test_names_and_types_that_athena_changes_or_refuses_are_refused(options, changes, name, says):
    schema = pl.Schema({**SYSTEM_SCHEMA, "text": pl.String(), **changes})
    with pytest.raises(SinkMismatch, match=says):
        table(options, schema, name)


def test_a_time_of_day_in_json_is_text():
    schema = pl.Schema({**SYSTEM_SCHEMA, "clock": pl.Time()})
    assert pl.Series([time(1, 2)]).dtype == pl.Time
    assert columns_of(table({"format": "ndjson"}, schema).text)[0]["clock"] == "STRING"


def stated_in(statement, pattern):
    found = re.search(pattern, statement.text, re.DOTALL)
    assert found, statement.text
    return found[1]


FLAT = FRAME.drop("nested", "list", "bytes")


def test_quoted_values_are_columns_of_text_in_the_order_of_the_files(tmp_path):
    statement = table({"format": "csv", "csv": {"escape": "\\"}, "partition_by": ["text"]}, FLAT.schema)
    definitions, folders, properties, _ = columns_of(statement.text)
    (made, *_) = ObjectsSink(config(format="csv", compression="none", csv={"escape": "\\"})).encode(FLAT, "u").files
    header = made.body.decode().splitlines()[0].split(",")
    assert list(definitions) == ["text_in_file" if name == "text" else name for name in header]
    assert set(definitions.values()) == {"STRING"}
    assert folders == {"text": "STRING"}
    assert properties["skip.header.line.count"] == "1"
    assert stated_in(statement, r"WITH SERDEPROPERTIES \((.*?)\)\n") == "'separatorChar' = ',', 'quoteChar' = '\"', 'escapeChar' = '\\\\'"
    assert "OpenCSVSerde" in statement.text
    assert any("every column is text, and null is empty text" in note for note in statement.notes)
    assert not any("backslash" in note for note in statement.notes)


def test_a_backslash_that_athena_would_drop_is_reported():
    notes = table({"format": "csv"}, FLAT.schema).notes
    assert any("give the sink `csv: {escape: '\\'}`" in note for note in notes)
    assert any("a line break inside a text ends the row" in note for note in notes)


def test_escaped_values_have_types_that_their_texts_fit(tmp_path):
    options = {"format": "csv", "csv": {"quote": None, "escape": "\\", "delimiter": "\t", "times": "sql", "header": False}}
    statement = table(options, FLAT.schema)
    definitions, _, properties, _ = columns_of(statement.text)
    assert "skip.header.line.count" not in properties
    assert "FIELDS TERMINATED BY '\\t' ESCAPED BY '\\\\'" in statement.text
    assert "LINES TERMINATED BY '\\n' NULL DEFINED AS '\\\\N'" in statement.text
    assert (definitions["at"], definitions["price"], definitions["day_of"], definitions["took"]) == (
        "TIMESTAMP",
        "DECIMAL(38, 2)",
        "DATE",
        "STRING",
    )
    file = tmp_path / "a.csv"
    (made,) = ObjectsSink(config(compression="none", **options)).encode(FLAT, "u").files
    file.write_bytes(made.body)
    with duckdb.connect() as connection:
        stated = ", ".join(f"'{name}': '{duck(kind)}'" for name, kind in definitions.items())
        read = f"read_csv('{file}', delim = '\t', header = false, auto_detect = false, nullstr = '\\N', columns = {{{stated}}})"
        first, second = connection.sql(f"SELECT * FROM {read}").fetchall()  # noqa: S608 - a file of this test
    values = dict(zip(definitions, first, strict=True))
    assert None not in first
    assert (values["ubig"], values["huge"], values["price"]) == (2**63 - 1, 2**100, Decimal("12345678901234567890.12"))
    assert (values["at"], values["day_of"]) == (NOON.replace(tzinfo=None), date(1969, 12, 31))
    assert second[: len(COLUMNS) - 3] == (None,) * (len(COLUMNS) - 3)


def test_avro_is_read_by_a_schema_without_the_times_that_hive_does_not_know():
    statement = table({"format": "avro", "partition_by": ["plain"]})
    definitions, *_ = columns_of(statement.text)
    assert {
        name: definitions[name] for name in ("tiny", "utiny", "ubig", "bytes", "at", "local", "_arrival", "took", "huge", "nested")
    } == {
        "tiny": "INT",
        "utiny": "INT",
        "ubig": "DECIMAL(20, 0)",
        "bytes": "BINARY",
        "at": "BIGINT",
        "local": "BIGINT",
        "_arrival": "TIMESTAMP",
        "took": "BIGINT",
        "huge": "STRING",
        "nested": "STRUCT<a: BIGINT, deep: ARRAY<STRUCT<x: STRING>>>",
    }
    assert "plain" not in definitions
    assert "column `at` is a number, since Hive does not know this type of Avro: convert it with from_unixtime(at / 1e6)" in statement.notes
    schema = json.loads(stated_in(statement, r"'avro.schema.literal' = '(.*?)'\)"))
    (made,) = ObjectsSink(config(format="avro", compression="none")).encode(FRAME, "u").files
    first, _ = fastavro.reader(io.BytesIO(made.body), fastavro.parse_schema(schema))
    assert [name.lower() for name in first] == list(definitions)
    stated = {field["name"]: field["type"] for field in schema["fields"]}
    assert (stated["at"], stated["local"]) == (["null", "long"], ["null", "long"])
    assert stated["_arrival"] == ["null", {"type": "long", "logicalType": "timestamp-millis"}]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"format": "arrow"}, "writes arrow, which Athena does not read"),
        ({"format": "csv", "csv": {"bom": True, "header": False}}, "byte order mark"),
    ],
)
def test_files_that_athena_cannot_read_are_refused(options, says):
    with pytest.raises(SinkMismatch, match=says):
        table(options, FLAT.schema)


@pytest.mark.parametrize(("text", "literal"), [("|", "'|'"), ("\t", "'\\t'"), ("\\", "'\\\\'"), ("'", '"\'"'), ("\x01", "'\\001'")])
def test_characters_as_hive_writes_them(text, literal):
    assert character(text) == literal
