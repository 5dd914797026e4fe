"""Reference tables from SQL databases: the result of a query, as bytes that are equal for equal rows."""

from __future__ import annotations

import io
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import polars as pl

from stream.errors import DefinitionError
from stream.transform.stages.enrich import DATABASES, SQLITE

COLUMN_TYPES: Final[Mapping[str, pl.DataType]] = {
    "int2": pl.Int16(),
    "int4": pl.Int32(),
    "int8": pl.Int64(),
    "float4": pl.Float32(),
    "float8": pl.Float64(),
    "bool": pl.Boolean(),
    "text": pl.String(),
    "varchar": pl.String(),
    "bpchar": pl.String(),
    "name": pl.String(),
    "date": pl.Date(),
    "timestamp": pl.Datetime("us"),
    "timestamptz": pl.Datetime("us", "UTC"),
}
"""Column types by what PostgreSQL calls them, and Redshift, which comes from it."""

_MAX_DIGITS: Final = 38


def decimal_type(precision: int, scale: int) -> pl.DataType | None:
    """The type of a ``numeric(precision, scale)``; None where a decimal of 38 digits does not hold all of its values."""
    return pl.Decimal(precision, scale) if 0 < precision <= _MAX_DIGITS and 0 <= scale <= precision else None


MAX_ROWS: Final = 10_000_000
MAX_UNPACKED: Final = 1024 * 1024 * 1024
"""Bytes of columns; each worker holds them as long as it lives."""
_TYPES: Final = {str: pl.String(), int: pl.Int64(), float: pl.Float64(), bytes: pl.Binary()}
_WORDS: Final = {str: "text", int: "numbers", float: "numbers", bytes: "blobs"}
LOCK_SECONDS: Final = 30.0
"""Seconds to wait while somebody else writes to the database."""


def is_database(url: str) -> bool:
    """Whether ``url`` names a query, as ``sqlite:path#SELECT ...``."""
    return url.startswith(DATABASES)


def read_database(url: str, base: Path) -> bytes:
    """The result of the query as Parquet, its rows sorted, so that equal rows are equal bytes whatever order they come in; blocking.

    The database is opened for reading only.

    Raises:
        DefinitionError: no such database, or the query fails, or gives no columns, two of one name, or too many rows.
    """
    place, _, query = url.removeprefix(SQLITE).partition("#")
    path = base / place
    if not path.is_file():
        msg = f"there is no database {place}: no file {path} (relative paths begin at the pipeline file's directory)"
        raise DefinitionError(msg)
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True, timeout=LOCK_SECONDS)) as connection:
            cursor = connection.execute(query)
            names = [column[0] for column in cursor.description or ()]
            rows = cursor.fetchmany(MAX_ROWS + 1)
    except (sqlite3.Error, sqlite3.Warning) as error:
        msg = f"the query {query!r} on the database {place} failed: {error}"
        raise DefinitionError(msg) from error
    if not names or len(set(names)) < len(names) or len(rows) > MAX_ROWS:
        why = f"more than {MAX_ROWS:,} rows" if len(rows) > MAX_ROWS else f"the columns {names}; each needs a name of its own"
        msg = f"the query {query!r} on the database {place} gives {why}"
        raise DefinitionError(msg)
    return as_table(pl.DataFrame([_column(name, [row[at] for row in rows], place) for at, name in enumerate(names)]))


def as_table(frame: pl.DataFrame) -> bytes:
    """``frame`` as Parquet with its rows sorted, so that equal rows are equal bytes, whatever order a database gave them in."""
    out = io.BytesIO()
    frame.sort(frame.columns).write_parquet(out, compression="uncompressed", statistics=False)
    return out.getvalue()


def _column(name: str, values: list[Any], place: str) -> pl.Series:
    """SQLite types values, not columns: whole and other numbers become float64, anything else has to agree."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int, float}:
        kinds = {float}
    if len(kinds) > 1:
        mixed = " and ".join(sorted(_WORDS[kind] for kind in kinds))
        msg = f"the column {name!r} of the database {place} mixes {mixed}; CAST it in the query"
        raise DefinitionError(msg)
    return pl.Series(name, values, dtype=_TYPES[kinds.pop() if kinds else str], strict=False)
