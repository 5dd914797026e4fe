"""Every reader finds every row and value in every format, and its filters find what they would find without statistics."""

# ruff: noqa: S608 - queries of these tests, on files of these tests

from __future__ import annotations

import base64
import math
import os
from datetime import date
from pathlib import Path

import datafusion
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.readers import tools
from tests.readers.known import DIFFERENCES, EMPTY_IS_NULL, FOUND, SAME
from tests.readers.values import FLAT, rows

FOLDER = Path(os.environ["READERS_SAMPLE"])
LARGE = FOLDER / "large" / "large.parquet"
IDS = [row["id"] for row in rows()]


def path(name):
    return str(FOLDER / name)


def one(name):
    (found,) = (each for each in FOLDER.glob(name) if not each.name.startswith("."))
    return str(found)


def with_bytes(found):
    """Rows with what text files hold as text."""
    decoded = [row | {"bytes": None if row["bytes"] is None else base64.b64decode(row["bytes"])} for row in found]
    return [row | {"day": date.fromisoformat(row["day"]) if isinstance(row["day"], str) else row["day"]} for row in decoded]


def spark_schema(names):
    """The types of the Parquet files; bytes are text, since text files have base64."""
    schema = tools.session().read.parquet(path("nested/parquet")).schema
    return ", ".join(
        f"{each.name} {'string' if each.name == 'bytes' else each.dataType.simpleString()}" for each in schema if each.name in names
    )


def spark_csv():
    reader = tools.session().read.option("header", True).option("multiLine", True).option("escape", '"')
    return tools.spark(reader.schema(spark_schema(FLAT)).csv(path("flat/csv")))


def spark_json():
    return tools.spark(tools.session().read.schema(spark_schema(rows()[0])).json(path("nested/ndjson")))


def duck_json(pattern):
    columns = ", ".join(f"'{name}': '{kind}'" for name, kind in tools.JSON_TYPES.items())
    return tools.duck(f"SELECT * FROM read_json('{path(pattern)}', columns = {{{columns}}})")


def duck_csv():
    types = ", ".join(f"'{name}': '{kind}'" for name, kind in tools.JSON_TYPES.items())
    return tools.duck(f"SELECT * FROM read_csv('{path('flat/csv/*')}', types = {{{types}}}, allow_quoted_nulls = false)")


def clickhouse_file(pattern, kind, structure=""):
    return tools.clickhouse(f"SELECT * FROM file('{one(pattern)}', {kind}{f', $${structure}$$' if structure else ''})")


def polars_csv():
    kinds = {
        "price": pl.Decimal(38, 10),
        "cents": pl.Decimal(9, 2),
        "day": pl.Date,
        "ubig": pl.UInt64,
        "place": pl.String,
        "text": pl.String,
    }
    frame = pl.read_csv(one("flat/csv/*"), schema_overrides=kinds)
    return frame.with_columns(pl.col("at", "at_ms").str.to_datetime(time_unit="us", time_zone="UTC")).to_dicts()


def pandas_rows(frame):
    return frame.to_dict("records")


PARQUET = ("parquet", "parquet-gzip", "parquet-snappy", "parquet-none")
AVRO = tuple(f"avro-{codec}" for codec in ("deflate", "zstd", "snappy", "none"))
ARROW = tuple(f"arrow-{codec}" for codec in ("zstd", "lz4", "none"))
NDJSON = ("ndjson", "ndjson-zstd")
READERS = {
    ("Apache Spark", "Parquet"): (PARQUET, lambda name: tools.spark(tools.session().read.parquet(path(f"nested/{name}")))),
    ("Apache Spark", "NDJSON"): (("ndjson",), lambda _: with_bytes(spark_json())),
    ("Apache Spark", "CSV"): (("csv",), lambda _: with_bytes(spark_csv())),
    ("ClickHouse", "Parquet"): (PARQUET, lambda name: clickhouse_file(f"nested/{name}/*", "Parquet")),
    ("ClickHouse", "Iceberg"): (("iceberg",), lambda name: tools.clickhouse(f"SELECT * FROM icebergLocal('{path(name)}/table')")),
    ("ClickHouse", "NDJSON"): (
        NDJSON,
        lambda name: with_bytes(clickhouse_file(f"nested/{name}/*", "JSONEachRow", tools.CLICKHOUSE_STRUCTURE)),
    ),
    ("ClickHouse", "CSV"): (("csv",), lambda _: with_bytes(clickhouse_file("flat/csv/*", "CSVWithNames", tools.CLICKHOUSE_STRUCTURE))),
    ("ClickHouse", "Avro"): (AVRO, lambda name: clickhouse_file(f"nested/{name}/*", "Avro")),
    ("ClickHouse", "Arrow"): (ARROW, lambda name: clickhouse_file(f"nested/{name}/*", "Arrow")),
    ("DataFusion", "Parquet"): (PARQUET, lambda name: tools.fusion(f"PARQUET LOCATION '{path('nested')}/{name}/'")),
    ("DataFusion", "Avro"): (AVRO, lambda name: tools.fusion(f"AVRO LOCATION '{path('nested')}/{name}/'")),
    ("DataFusion", "Arrow"): (ARROW, lambda name: tools.fusion(f"ARROW LOCATION '{path('nested')}/{name}/'")),
    ("DuckDB", "Parquet"): (PARQUET, lambda name: tools.duck(f"SELECT * FROM read_parquet('{path('nested')}/{name}/*')")),
    ("DuckDB", "NDJSON"): (NDJSON, lambda name: with_bytes(duck_json(f"nested/{name}/*"))),
    ("DuckDB", "CSV"): (("csv",), lambda _: with_bytes(duck_csv())),
    ("pandas", "Parquet"): (PARQUET, lambda name: pandas_rows(pd.read_parquet(path(f"nested/{name}"), dtype_backend="pyarrow"))),
    ("pandas", "Arrow"): (ARROW, lambda name: pandas_rows(pd.read_feather(one(f"nested/{name}/*"), dtype_backend="pyarrow"))),
    ("Polars", "Parquet"): (PARQUET, lambda name: pl.read_parquet(path(f"nested/{name}/*")).to_dicts()),
    ("Polars", "CSV"): (("csv",), lambda _: with_bytes(polars_csv())),
    ("Polars", "Avro"): (
        tuple(name for name in AVRO if name != "avro-zstd"),
        lambda name: pl.read_avro(one(f"nested/{name}/*")).to_dicts(),
    ),
    ("Polars", "Arrow"): (ARROW, lambda name: pl.read_ipc(one(f"nested/{name}/*")).to_dicts()),
}
CASES = [pytest.param(*key, name, read, id=f"{key[0]}-{name}") for key, (names, read) in READERS.items() for name in names]


def differing(found, difference=SAME, least=12):
    """The columns in which ``found`` differs from what was written, each with a value that was found and the one expected."""
    wanted = {row["id"]: DIFFERENCES[difference](row) for row in rows()}
    assert sorted(row["id"] for row in found) == IDS
    names = [name for name in found[0] if name in wanted[0]]
    assert len(names) >= least
    pairs = [(name, tools.plain(row[name]), tools.plain(wanted[row["id"]][name])) for row in found for name in names]
    return {name: (value, expected) for name, value, expected in pairs if value not in (expected, as_text(expected))}


def as_text(expected):
    """Bytes as text, for engines that have one type for both; anything else as it is."""
    return expected.decode(errors="replace") if isinstance(expected, bytes) else expected


def test_the_table_has_what_is_tried_here():
    assert {(name, kind) for name, kinds in FOUND.items() for kind in kinds} == set(READERS)


@pytest.mark.parametrize(("reader", "kind", "name", "read"), CASES)
def test_every_row_and_value_is_read_as_the_table_says(reader, kind, name, read):
    assert differing(read(name), FOUND[reader][kind]) == {}


BY_PLACE = {
    "Spark": lambda: tools.spark(tools.session().read.parquet(path("flat/byplace"))),
    "DuckDB": lambda: tools.duck(f"SELECT * FROM read_parquet('{path('flat/byplace')}/**/*.parquet')"),
    "DuckDB, from the files": lambda: tools.duck(
        f"SELECT * FROM read_parquet('{path('flat/byplace')}/**/*.parquet', hive_partitioning = false)"
    ),
    "ClickHouse": lambda: tools.clickhouse(f"SELECT * FROM file('{path('flat/byplace')}/**/*.parquet')"),
    "pandas": lambda: pandas_rows(pd.read_parquet(path("flat/byplace"), partitioning=None, dtype_backend="pyarrow")),
    "DataFusion": lambda: tools.fusion(f"PARQUET LOCATION '{path('flat/byplace')}/'"),
    "Polars": lambda: pl.scan_parquet(path("flat/byplace"), hive_partitioning=False).collect().to_dicts(),
}


@pytest.mark.parametrize("reader", BY_PLACE)
def test_folders_named_by_any_value_are_read(reader):
    """Spark and DuckDB take the folder's value where the file has the column too, and Spark its bytes for characters, as Hive does."""
    found = BY_PLACE[reader]()
    given = {"Spark": {"__EMPTY__": "", "größer ✓".encode().decode("latin-1"): "größer ✓"}, "DuckDB": {"__EMPTY__": ""}}.get(reader, {})
    assert {row["place"] for row in found} - {row["place"] for row in rows()} == set(given)
    assert differing([row | {"place": given.get(row["place"], row["place"])} for row in found]) == {}


def test_a_column_that_also_names_folders_is_refused_by_pandas_and_datafusion_without_the_options_of_the_page():
    with pytest.raises(pa.ArrowTypeError, match="incompatible types"):
        pd.read_parquet(path("flat/byplace"))
    context = datafusion.SessionContext()
    context.sql(f"CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '{path('flat/byplace')}/'")
    with pytest.raises(Exception, match=r"(?i)duplicate"):
        context.table("t")


BY_KEY = {
    "Spark": lambda: tools.spark(tools.session().read.parquet(path("flat/bykey"))),
    "DuckDB": lambda: tools.duck(f"SELECT * FROM read_parquet('{path('flat/bykey')}/**/*.parquet')"),
    "pandas": lambda: pandas_rows(pd.read_parquet(path("flat/bykey"), dtype_backend="pyarrow")),
    "Polars": lambda: pl.scan_parquet(path("flat/bykey"), hive_partitioning=True).collect().to_dicts(),
}


@pytest.mark.parametrize("reader", BY_KEY)
def test_folders_with_names_of_their_own_need_no_option(reader):
    found = BY_KEY[reader]()
    assert differing(found) == {}
    for row in found:
        at = tools.plain(row["at"])
        month = tools.plain(row["month"])
        assert (None if month is None else str(month)[:7]) == (None if at is None else f"{at:%Y-%m}"), row


FILTERS = {
    "x > 1": lambda row: row["x"] > 1,
    "x < 1": lambda row: row["x"] < 1,
    "x <> 1": lambda row: row["x"] != 1,
    "x = 2": lambda row: row["x"] == 2,
    "zero = 0": lambda row: row["zero"] == 0,
    "t > 't2'": lambda row: row["t"] > "t2",
    "t = 't1'": lambda row: row["t"] == "t1",
    "u > 9223372036854775807": lambda row: row["u"] > 2**63 - 1,
    "u = 9223372036854775807": lambda row: row["u"] == 2**63 - 1,
    "s < 0": lambda row: row["s"] is not None and row["s"] < 0,
    "s IS NULL": lambda row: row["s"] is None,
    "s IS NOT NULL": lambda row: row["s"] is not None,
    "n = 250007": lambda row: row["n"] == 250007,
    "n >= 499999": lambda row: row["n"] >= 499999,
}
NAN_IS_LARGEST = {"Spark", "DuckDB", "DataFusion", "Polars"}
"""Engines for which NaN is more than every other number, and different from each."""


@pytest.fixture(scope="module")
def large():
    return pq.read_table(LARGE).to_pylist()


def fusion_count(where):
    context = datafusion.SessionContext()
    context.register_parquet("t", str(LARGE))
    return context.sql(f"SELECT count(*) AS n FROM t WHERE {where}").to_pylist()[0]["n"]


def polars_count(where):
    return pl.scan_parquet(LARGE).filter(pl.sql_expr(where)).select(pl.len()).collect().item()


COUNTS = {
    "Spark": lambda where: tools.session().read.parquet(str(LARGE)).where(where).count(),
    "DuckDB": lambda where: tools.duck(f"SELECT count(*) AS n FROM read_parquet('{LARGE}') WHERE {where}")[0]["n"],
    "ClickHouse": lambda where: tools.clickhouse(f"SELECT count() AS rows FROM file('{LARGE}') WHERE {where}")[0]["rows"],
    "DataFusion": fusion_count,
    "Polars": polars_count,
}


@pytest.mark.parametrize("reader", COUNTS)
@pytest.mark.parametrize("where", FILTERS)
def test_filters_find_what_they_would_find_without_statistics(reader, where, large):
    test = FILTERS[where]
    nan = sum(math.isnan(row["x"]) for row in large)
    wanted = sum(test(row) for row in large)
    if where == "x > 1" and reader in NAN_IS_LARGEST:
        wanted += nan
    assert nan == 1
    assert COUNTS[reader](where) == wanted


def test_spark_reads_dead_letters_ledger_and_commit_log():
    read = tools.session().read.option("recursiveFileLookup", True)
    state = path("nested/state/nested")
    dead = tools.spark(read.parquet(f"{state}/rejects"))
    assert sorted((row["reason"], bytes(row["_data"])) for row in dead) == [("json_syntax", b'{"id": '), ("wrong_type:id", b'{"id": "x"}')]
    counts = {row["outcome"]: row["count"] for row in tools.spark(read.parquet(f"{state}/ledger/v1").groupBy("outcome").count())}
    assert counts == {"written": len(IDS), "dead_lettered": 2}
    log = read.option("multiLine", True).option("pathGlobFilter", "0*.json").json(f"{state}/commits")
    assert [row["records"] for row in tools.spark(log.where("kind = 'unit' AND state = 'sealed'"))] == [len(IDS) + 2]


def test_what_spark_refuses():
    read = tools.session().read
    with pytest.raises(Exception, match="Illegal Parquet type"):
        read.parquet(path("odd/clock.parquet"))
    with pytest.raises(Exception, match="READ_ANCIENT_DATETIME"):
        read.parquet(path("odd/ancient.parquet")).collect()
    corrected = read.option("datetimeRebaseMode", "CORRECTED").parquet(path("odd/ancient.parquet"))
    assert [row["text"] for row in tools.spark(corrected.selectExpr("CAST(day AS string) AS text"))] == ["0001-01-01", "1582-10-14"]
    with pytest.raises(Exception, match="zStandard"):
        tools.session().read.schema("id long").json(path("nested/ndjson-zstd")).collect()
    with pytest.raises(Exception, match="UNABLE_TO_INFER_SCHEMA"):
        tools.session().read.parquet(path("nested/state/nested/rejects"))


def test_differences_are_differences():
    """The table would say so if a reader did not lose what it is said to lose."""
    assert any(DIFFERENCES[EMPTY_IS_NULL](row) != row for row in rows())
