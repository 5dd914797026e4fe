"""What each reader makes of our files, as docs/files.md shows it: ``make readers-check`` holds every cell against the reader itself."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

REQUIREMENTS = Path(__file__).parents[2] / "requirements" / "readers.txt"
FORMATS = ("Parquet", "Iceberg", "NDJSON", "CSV", "Avro", "Arrow")
PACKAGES = {
    "Apache Spark": "pyspark",
    "ClickHouse": "chdb-core",
    "DataFusion": "datafusion",
    "DuckDB": "duckdb",
    "pandas": "pandas",
    "Polars": "polars",
}

Row = dict[str, Any]
SAME = "the same"
EMPTY_IS_NULL = "empty text is null"
NO_NULL_LISTS = "a null list is empty"
NO_NULL_OBJECTS = "a null list is empty, a null object has nulls"
NO_ZSTD = "the same, but not `zstd`"
NOT_TRIED = ""


def _same(row: Row) -> Row:
    return row


def _empty_is_null(row: Row) -> Row:
    return {name: None if value in ("", b"") else value for name, value in row.items()}


def _no_null_lists(row: Row) -> Row:
    lists = {name: row[name] or [] for name in ("tags", "cart") if name in row}
    return row | lists | ({"grid": [each or [] for each in row["grid"] or []]} if "grid" in row else {})


def _no_null_objects(row: Row) -> Row:
    who = row["who"] or {"name": None, "home": None}
    return _no_null_lists(row) | {"who": who | {"home": who["home"] or {"city": None, "since": None}}}


DIFFERENCES: dict[str, Callable[[Row], Row]] = {
    SAME: _same,
    NO_ZSTD: _same,
    EMPTY_IS_NULL: _empty_is_null,
    NO_NULL_LISTS: _no_null_lists,
    NO_NULL_OBJECTS: _no_null_objects,
}
"""What a reader finds in place of a row that was written."""

FOUND: dict[str, dict[str, str]] = {
    "Apache Spark": {"Parquet": SAME, "NDJSON": NO_ZSTD, "CSV": EMPTY_IS_NULL},
    "ClickHouse": {
        "Parquet": NO_NULL_OBJECTS,
        "Iceberg": NO_NULL_OBJECTS,
        "NDJSON": SAME,
        "CSV": SAME,
        "Avro": NO_NULL_LISTS,
        "Arrow": NO_NULL_LISTS,
    },
    "DataFusion": {"Parquet": SAME, "Avro": SAME, "Arrow": SAME},
    "DuckDB": {"Parquet": SAME, "NDJSON": SAME, "CSV": SAME},
    "pandas": {"Parquet": SAME, "Arrow": SAME},
    "Polars": {"Parquet": SAME, "CSV": SAME, "Avro": NO_ZSTD, "Arrow": SAME},
}


def version(package: str) -> str:
    """The locked version."""
    return re.findall(rf"^{package}==(\S+)", REQUIREMENTS.read_text(), re.MULTILINE)[0]


def cells() -> list[tuple[str, ...]]:
    """The rows of the table."""
    return [(f"{name} {version(PACKAGES[name])}", *(found.get(each, NOT_TRIED) for each in FORMATS)) for name, found in FOUND.items()]
