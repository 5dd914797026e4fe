"""What is asked of a table that is loaded: how many rows it has, and which records have a value. Pure; no statement contains a value."""

# ruff: noqa: S608 - names pass redshift_names.py before they stand in a statement
from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Final

from stream.batch import SEQUENCE, SHARD, SUBSEQUENCE
from stream.sink.redshift import RedshiftSinkConfig
from stream.sink.redshift_names import identifier, qualified
from stream.sink.redshift_sql import ExistingColumn
from stream.sink.redshift_types import MAX_VARCHAR

LINEAGE: Final = (SHARD, SEQUENCE, SUBSEQUENCE)
"""Columns that name a record."""


def row_counts(config: RedshiftSinkConfig) -> str:
    """Returns ``_shard`` and the number of rows of each shard in the table; rows that others wrote without one do not count."""
    shard = identifier(SHARD)
    return f"SELECT {shard}, COUNT(*) FROM {qualified(*config.target)} WHERE {shard} IS NOT NULL GROUP BY {shard}"


def _in_utc(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    return found.astimezone(UTC).replace(tzinfo=None) if found.tzinfo is not None else found


def _decimal(text: str) -> Decimal:
    value = Decimal(text)
    exponent = value.normalize().as_tuple().exponent
    if not (isinstance(exponent, int) and exponent >= -18 and abs(value) < 10**20):
        msg = f"{text} is not a decimal(38,18)"
        raise ValueError(msg)
    return value


def _bigint(text: str) -> int:
    value = int(text)
    if not -(2**63) <= value < 2**63:
        msg = f"{text} is no bigint"
        raise ValueError(msg)
    return value


_READ: Final[Mapping[str, tuple[str, Callable[[str], object]]]] = {
    **dict.fromkeys(("int2", "smallint", "int4", "integer", "int8", "bigint"), ("bigint", _bigint)),
    **dict.fromkeys(("numeric", "decimal"), ("decimal(38,18)", _decimal)),
    **dict.fromkeys(("float4", "real", "float8"), ("double precision", float)),
    **dict.fromkeys(("varchar", "text", "character varying"), (f"varchar({MAX_VARCHAR})", str)),
    **dict.fromkeys(("bool", "boolean"), ("boolean", lambda text: {"true": "true", "false": "false"}[text.lower()])),
    "date": ("date", date.fromisoformat),
    "timestamp": ("timestamp", _in_utc),
    "timestamptz": ("timestamp", _in_utc),
}
"""By the name that metadata has for a type: the type with which a value is compared, and how it is read from text."""


def comparison(column: ExistingColumn, text: str) -> tuple[str, str] | None:
    """A condition with the parameter ``:value``, and that parameter: true where ``column`` has the value that is written ``text``.

    None if it is not a value of the column's type, or empty, which no parameter can be, or if values of the type are not compared.
    """
    kind, read = _READ.get(column.type.lower(), ("", str))
    try:
        name, value = identifier(column.name), str(read(text))
    except (ValueError, ArithmeticError, KeyError):
        return None
    return (f"{name} = CAST(:value AS {kind})", value) if kind and value else None


def records_where(config: RedshiftSinkConfig, condition: str, most: int) -> str:
    """Returns ``_shard``, ``_sequence`` and ``_subsequence`` of up to ``most`` records with rows for which ``condition`` holds."""
    names = ", ".join(map(identifier, LINEAGE))
    there = " AND ".join(f"{identifier(each)} IS NOT NULL" for each in LINEAGE)
    return f"SELECT DISTINCT {names} FROM {qualified(*config.target)} WHERE {condition} AND {there} LIMIT {int(most)}"
