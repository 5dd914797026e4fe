"""Other people's readers, unmodified: each reads files and returns rows as Python values.

Options are those that docs/files.md tells its users to give, and no others.
"""

from __future__ import annotations

import functools
import math
from datetime import UTC, datetime
from typing import Any

import chdb
import datafusion
import duckdb
import pandas as pd
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession

Rows = list[dict[str, Any]]

JSON_TYPES = {
    "ubig": "DECIMAL(20,0)",
    "price": "DECIMAL(38,10)",
    "cents": "DECIMAL(9,2)",
    "at": "TIMESTAMPTZ",
    "at_ms": "TIMESTAMPTZ",
    "day": "DATE",
    "text": "VARCHAR",
    "place": "VARCHAR",
    "bytes": "VARCHAR",
    "id": "BIGINT",
    "flag": "BOOLEAN",
    "double": "DOUBLE",
}
"""In DuckDB; other columns have the types that it guesses."""
CLICKHOUSE_TYPES = {
    "id": "Int64",
    "flag": "Bool",
    "big": "Int64",
    "ubig": "UInt64",
    "double": "Float64",
    "price": "Decimal(38, 10)",
    "cents": "Decimal(9, 2)",
    "at": "DateTime64(6, 'UTC')",
    "day": "String",
    "bytes": "String",
    "text": "String",
    "place": "String",
}
CLICKHOUSE_STRUCTURE = ", ".join(f"{name} Nullable({kind})" for name, kind in CLICKHOUSE_TYPES.items())


@functools.cache
def session() -> SparkSession:
    settings = {
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.sql.session.timeZone": "UTC",
        "spark.driver.extraJavaOptions": "-Duser.timezone=UTC",
        "spark.sql.shuffle.partitions": "2",
    }
    builder = SparkSession.builder.master("local[2]")
    for key, value in settings.items():
        builder = builder.config(key, value)
    made = builder.getOrCreate()
    made.sparkContext.setLogLevel("OFF")
    return made


def spark(frame: DataFrame) -> Rows:
    return [row.asDict(recursive=True) for row in frame.collect()]


def clickhouse(query: str) -> Rows:
    settings = {
        "output_format_arrow_string_as_string": "0",
        "session_timezone": "'UTC'",
        "use_hive_partitioning": "0",
        "date_time_input_format": "'best_effort'",
        "input_format_csv_trim_whitespaces": "0",
        "format_csv_null_representation": "''",
    }
    answer = chdb.query(f"{query} SETTINGS {', '.join(f'{name} = {value}' for name, value in settings.items())}", "Arrow").bytes()
    return [{name: _text(value) for name, value in row.items()} for row in pa.ipc.open_file(pa.BufferReader(answer)).read_all().to_pylist()]


def _text(value: Any) -> Any:
    """ClickHouse has one type for text and bytes: what is no UTF-8 stays bytes."""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value
    if isinstance(value, dict):
        return {name: _text(each) for name, each in value.items()}
    return [_text(each) for each in value] if isinstance(value, list) else value


def duck(query: str) -> Rows:
    with duckdb.connect() as connection:
        connection.execute("SET timezone = 'UTC'")
        return connection.sql(query).to_arrow_table().to_pylist()


def fusion(create: str) -> Rows:
    context = datafusion.SessionContext()
    context.sql("SET datafusion.execution.listing_table_factory_infer_partitions = false")
    context.sql(f"CREATE EXTERNAL TABLE t STORED AS {create}")
    return context.table("t").to_pylist()


def plain(value: Any) -> Any:
    """A value that equals those of other readers if it is the same."""
    if value is None or value is pd.NaT or value is pd.NA:
        return None
    if isinstance(value, pd.Timestamp):
        value = value.to_pydatetime()
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    if isinstance(value, float) and math.isnan(value):
        return "NaN"
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple) or type(value).__name__ == "ndarray":
        return [plain(each) for each in value]
    return value
