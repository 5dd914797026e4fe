"""What the types of columns become in the files of an ``s3`` sink: each is written and looked at."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from stream.sink.avro import schema
from stream.sink.csv import SeparatedValues, separated
from stream.sink.encode import Compression, Encoder, Format
from tests.docs.tables import table

_AT = datetime(2026, 1, 1, 12, 30, tzinfo=UTC)
EXAMPLES = {
    "bool": pl.Series([True]),
    "int8 to int64": pl.Series([-7], dtype=pl.Int64),
    "uint64": pl.Series([2**64 - 1], dtype=pl.UInt64),
    "float64": pl.Series([0.1]),
    "NaN": pl.Series([float("nan")]),
    "infinity": pl.Series([float("inf")]),
    "string": pl.Series(["a,b"]),
    "binary": pl.Series([b"\x00\xff"]),
    "decimal(10,2)": pl.Series([Decimal("1.50")], dtype=pl.Decimal(10, 2)),
    "date": pl.Series([date(2026, 1, 1)]),
    "timestamp": pl.Series([_AT], dtype=pl.Datetime("us", "UTC")),
    "timestamp(ms), as _arrival": pl.Series([_AT], dtype=pl.Datetime("ms", "UTC")),
    "a time without zone": pl.Series([_AT.replace(tzinfo=None)], dtype=pl.Datetime("us")),
    "a time of day": pl.Series([time(12, 30)]),
    "a duration": pl.Series([timedelta(seconds=1.5)]),
    "list<int64>": pl.Series([[1, None]]),
    "object{a: string}": pl.Series([{"a": "x"}]),
}


def file_types() -> str:
    rows = [(f"`{name}`", *(f"`{each}`" for each in _forms(pl.DataFrame({"c": values})))) for name, values in EXAMPLES.items()]
    return table(("value of type", "Parquet", "Arrow", "Avro", "NDJSON", "CSV"), rows).replace("`refused`", "refused")


def _forms(frame: pl.DataFrame) -> list[str]:
    kind = frame.dtypes[0]
    parquet = pq.read_schema(pa.BufferReader(Encoder().encode(frame))).field("c").type
    with pa.ipc.open_file(pa.BufferReader(Encoder(Format.ARROW, Compression.NONE).encode(frame))) as file:
        arrow = file.schema.field("c").type
    json = Encoder(Format.NDJSON, Compression.NONE).encode(frame).decode().strip().removeprefix('{"c":').removesuffix("}")
    csv = "refused" if kind.is_nested() else separated(frame, SeparatedValues(header=False)).decode().strip()
    return [str(parquet), str(arrow), _avro(schema(frame.schema)["fields"][0]["type"][1]), json, csv]


def _avro(kind: object) -> str:
    if not isinstance(kind, dict):
        return str(kind)
    if "logicalType" in kind:
        digits = f"({kind['precision']},{kind['scale']})" if kind["logicalType"] == "decimal" else ""
        return f"{kind['type']} {kind['logicalType']}{digits}"
    return str(kind["type"])
