"""Columns, tables, options of COPY and regular expressions."""

import re
from dataclasses import replace

import pytest

from stream.datapipeline.formats import COPY_DEFAULT, CSV, Column, columns_of, copy_options, table_of, with_named_groups


def test_hive_columns_become_typed_columns():
    found = columns_of(["Name STRING", "Score INT, Rate decimal(8,2)", "`odd name` double", "Day DATE", "bare", "tags array<string>", " "])
    assert [(each.name, each.type, each.known) for each in found] == [
        ("Name", "string", True),
        ("Score", "int32", True),
        ("Rate", "decimal(8,2)", True),
        ("odd name", "float64", True),
        ("Day", "date", True),
        ("bare", "string", True),
        ("tags", "string", False),
    ]
    assert columns_of(["x DECIMAL", "y varchar(12)", "z FLOAT"]) == [
        Column("x", "decimal(10,0)"),
        Column("y", "string", 12),
        Column("z", "float32"),
    ]


def test_the_columns_of_a_create_table_statement_are_read():
    found = table_of(
        'create table if not exists "shop"."orders" (id bigint identity(0,1) primary key distkey, '
        "\"State\" character varying(20) default 'a,b', "
        "price numeric(12,2) encode zstd, at timestamp without time zone, x float, unique (id)) diststyle key sortkey(at);"
    )
    assert [(each.name, each.type, each.max_bytes) for each in found.columns] == [
        ("id", "int64", 0),
        ("State", "string", 20),
        ("price", "decimal(12,2)", 0),
        ("at", "timestamp", 0),
        ("x", "float64", 0),
    ]
    assert found.keys == ("id",)
    assert table_of("CREATE TABLE t (a int, b int, PRIMARY KEY (a, b))").keys == ("a", "b")


@pytest.mark.parametrize("text", ["", "create table t as select 1", "create table t (", "drop table t", "create table t ()"])
def test_a_statement_without_columns_gives_no_table(text):
    assert table_of(text) is None


def test_copy_options_about_the_format_become_decoder_options():
    found = copy_options(["QUOTE AS '%'", "NULL AS '\\\\N' IGNOREHEADER 1 CSV BZIP2"], COPY_DEFAULT)
    assert found.reading.decode == {"csv": {"quote": "%", "null": ["", "\\N"], "header": True}}
    assert (found.reading.compression, found.reading.empty_is_null) == ("bz2", True)
    assert found.to_do[0].startswith("NULL: became `decode.csv.null`")
    assert found.to_do[1].startswith(
        "IGNOREHEADER: became `decode.csv.header`, for which the first line must have the names of the columns"
    )
    assert copy_options([], COPY_DEFAULT).reading.decode == {"csv": {"delimiter": "|", "quote": "\x02"}}
    assert copy_options(["DELIMITER ';' REMOVEQUOTES EMPTYASNULL"], COPY_DEFAULT).reading == replace(
        CSV, decode={"csv": {"delimiter": ";", "quote": '"'}}, empty_is_null=True
    )
    assert copy_options(["FORMAT AS CSV DELIMITER ';'"], COPY_DEFAULT).reading.decode == {"csv": {"delimiter": ";"}}
    assert copy_options(["DELIMITER '\\t'"], CSV).reading.decode == {"csv": {"delimiter": "\t"}}


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("FORMAT AS JSON 'auto'", "ndjson"),
        ("JSON AS 'auto'", "ndjson"),
        ("json 'auto' GZIP", "ndjson"),
        ("FORMAT PARQUET", "parquet"),
        ("PARQUET", "parquet"),
    ],
)
def test_copy_options_select_other_formats(text, form):
    found = copy_options([text, "TIMEFORMAT 'auto'"], CSV)
    assert (found.reading.format, found.reading.decode, found.to_do) == (form, "json", [])


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("FORMAT AS JSON 's3://x/paths.json'", "JSON: a file of JSONPath expressions has no counterpart"),
        ("AVRO 'auto'", "FORMAT: avro"),
        ("IGNOREHEADER 2", "IGNOREHEADER"),
        ("ESCAPE", "ESCAPE"),
        ("MAXERROR 5", "MAXERROR"),
        ("ACCEPTINVCHARS '?'", "ACCEPTINVCHARS"),
        ("DATEFORMAT 'DD.MM.YYYY'", "DATEFORMAT"),
        ("wat", "it contains a word that is not an option"),
    ],
)
def test_copy_options_without_a_counterpart_are_reported(text, name):
    (reported,) = [each for each in copy_options([text], CSV).to_do if each.startswith(name)]
    assert reported


def test_irrelevant_copy_options_are_accepted():
    found = copy_options(["EMPTYASNULL COMPUPDATE OFF STATUPDATE ON REGION 'eu-west-1' IGNOREBLANKLINES PARALLEL OFF"], CSV)
    assert (len(found.handled), found.to_do, found.reading) == (6, [], replace(CSV, empty_is_null=True))


def test_credentials_give_a_role_and_nothing_else():
    keys = copy_options(
        ["CREDENTIALS 'aws_access_key_id=canary;aws_secret_access_key=canary' ACCESS_KEY_ID 'canary' SECRET_ACCESS_KEY AS 'canary'"], CSV
    )
    assert (keys.role, keys.to_do) == ("", [])
    assert "canary" not in repr(keys)
    loose = copy_options(["CREDENTIALS aws_access_key_id=canary canary 'canary'"], CSV)
    assert "canary" not in repr(loose)
    role = copy_options(["IAM_ROLE 'arn:aws:iam::111122223333:role/copy'"], CSV)
    assert role.role == "arn:aws:iam::111122223333:role/copy"
    assert copy_options(["credentials 'aws_iam_role=arn:aws:iam::111122223333:role/copy'"], CSV).role == role.role


def test_groups_are_named_after_columns():
    columns = tuple(columns_of(["b INT", "a STRING"]))
    made = with_named_groups(r"(\d+) \((x|y)\) [(] (?:z)(.)", "%3$s %1$s", columns)
    assert made == r"(?P<a>\d+) \((?:x|y)\) [(] (?:z)(?P<b>.)"
    assert re.fullmatch(made, "7 (x) ( z!").groupdict() == {"a": "7", "b": "!"}
    assert with_named_groups("(.)(.)", "", columns) == "(?P<b>.)(?P<a>.)"


@pytest.mark.parametrize(
    ("expression", "output"), [("(.)", ""), ("(.)(.)", "%1$s"), ("(.)(.)", "%1$s %1$s"), ("(.)(.)", "%1$s %3$s"), ("", "")]
)
def test_groups_that_cannot_be_named_give_no_pattern(expression, output):
    assert with_named_groups(expression, output, tuple(columns_of(["b INT", "a STRING"]))) is None
