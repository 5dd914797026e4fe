"""COPY ... FORMAT AS PARQUET MANIFEST, as strict as the developer guide says it is."""

from __future__ import annotations

import asyncio
import io
import json
import re
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.redshift.double.dialect import Copy, Refused

FITS = {
    "character varying": lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind) or kind == pa.string_view(),
    "bigint": lambda kind: kind == pa.int64(),
    "integer": lambda kind: kind == pa.int32(),
    "smallint": lambda kind: kind == pa.int16(),
    "boolean": pa.types.is_boolean,
    "bytea": lambda kind: pa.types.is_binary(kind) or pa.types.is_large_binary(kind),
    "double precision": lambda kind: kind == pa.float64(),
    "real": lambda kind: kind == pa.float32(),
    "timestamp without time zone": lambda kind: pa.types.is_timestamp(kind) and kind.tz is None,
    "date": lambda kind: kind == pa.date32(),
    "numeric": pa.types.is_decimal,
    "jsonb": pa.types.is_nested,
}


CODECS = {"GZIP", "SNAPPY", "UNCOMPRESSED"}
"""Of Parquet's codecs, those that the developer guide lists ("Compression types for Redshift Spectrum", whose readers COPY uses)."""


class LoadError(Refused):
    """A COPY error that the system view of load errors lists."""

    def __init__(self, file: str, line: int, column: str, message: str) -> None:
        super().__init__(f"ERROR: Load into table failed. Check 'sys_load_error_detail' system table for details. {message}")
        self.row = (file, line, column, message)


async def run_copy(connection: Any, s3: Any, copy: Copy) -> int:
    """Execute ``copy`` inside the connection's transaction; rows copied."""
    columns = await connection.fetch(
        "SELECT attname, format_type(atttypid, atttypmod) AS kind FROM pg_attribute "
        "WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
        copy.table,
    )
    if not columns:
        raise Refused(f"ERROR: relation {copy.table} does not exist")
    manifest = json.loads(await _object(s3, copy.url))
    rows = 0
    for entry in manifest["entries"]:
        if set(entry) != {"url", "mandatory", "meta"} or "content_length" not in entry["meta"]:
            raise Refused("ERROR: COPY from columnar data needs meta.content_length in every entry of the manifest")
        body = await _object(s3, entry["url"])
        if len(body) != entry["meta"]["content_length"]:
            raise Refused(f"ERROR: content_length of {entry['url']} is {entry['meta']['content_length']}, the object has {len(body)} bytes")
        rows += await _copy_file(connection, copy, columns, entry["url"], body)
    return rows


async def _object(s3: Any, url: str) -> bytes:
    bucket, _, key = url.removeprefix("s3://").partition("/")
    try:
        answer = await asyncio.to_thread(s3.get_object, Bucket=bucket, Key=key)
    except (s3.exceptions.NoSuchKey, s3.exceptions.NoSuchBucket) as error:
        raise Refused(f"ERROR: S3ServiceException: The specified key does not exist, {url}") from error
    return await asyncio.to_thread(answer["Body"].read)


async def _copy_file(connection: Any, copy: Copy, columns: Any, url: str, body: bytes) -> int:
    try:
        table = pq.read_table(io.BytesIO(body))
        codecs = _codecs(body)
    except (pa.ArrowException, OSError) as error:
        raise LoadError(url, 0, "", f"not a readable Parquet file: {error}") from error
    if not codecs <= CODECS:
        raise LoadError(url, 0, "", f"Parquet compression {', '.join(sorted(codecs - CODECS))} is none of {', '.join(sorted(CODECS))}")
    if table.num_columns != len(columns):
        raise Refused(f"ERROR: Unmatched number of columns between table and file. Table {len(columns)}, file {table.num_columns}")
    values = []
    for field, column in zip(table.schema, columns, strict=True):
        kind, _, size = re.sub(r"\)$", "", column["kind"]).partition("(")
        if not FITS[kind](field.type) or (kind == "jsonb" and not copy.nested):
            raise LoadError(
                url, 0, column["attname"], f"incompatible Parquet schema: {column['attname']} {column['kind']} and {field.type}"
            )
        values.append(_values(table[field.name].to_pylist(), kind, size, url, column["attname"]))
    name = copy.table.strip('"')
    await connection.copy_records_to_table(name, records=list(zip(*values, strict=True)), columns=[column["attname"] for column in columns])
    return table.num_rows


def _codecs(body: bytes) -> set[str]:
    found = pq.ParquetFile(io.BytesIO(body)).metadata
    groups = (found.row_group(each) for each in range(found.num_row_groups))
    return {group.column(each).compression for group in groups for each in range(group.num_columns)}


def _values(values: list[Any], kind: str, size: str, url: str, column: str) -> list[Any]:
    if kind == "jsonb":
        return [None if value is None else json.dumps(value, default=str) for value in values]
    if kind == "character varying":
        for line, value in enumerate(values):
            if value is not None and size and len(value.encode()) > int(size):
                raise LoadError(url, line, column, f"String length exceeds DDL length {size}")
            if value is not None and "\0" in value:
                raise LoadError(url, line, column, "Invalid null byte")
    return values
