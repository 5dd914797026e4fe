"""What is asked of a loaded table: its rows, the records of a value, the keys of merged rows. Pure; no statement contains a value."""

# ruff: noqa: S608 - names pass redshift_names.py before they stand in a statement
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Final

from stream.batch import SEQUENCE, SHARD, SUBSEQUENCE
from stream.sink.layouts import Column, Layout
from stream.sink.redshift import RedshiftSinkConfig
from stream.sink.redshift_evolve import ExistingColumn
from stream.sink.redshift_names import identifier, literal, qualified
from stream.sink.redshift_sql import padded
from stream.sink.redshift_types import MAX_VARCHAR, SEQUENCE_BYTES
from stream.sink.redshift_upsert import older

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
    "timestamptz": ("timestamptz", lambda text: f"{_in_utc(text)}+00"),
}
"""By the name that metadata has for a type: the type with which a value is compared, and how it is read from text."""


def comparison(column: ExistingColumn, text: str, parameter: str = "value") -> tuple[str, str] | None:
    """A condition with the parameter named ``parameter``, and its value: true where ``column`` has the value that is written ``text``.

    None if it is not a value of the column's type, or empty, which no parameter can be, or if values of the type are not compared.
    """
    kind, read = _READ.get(column.type.lower(), ("", str))
    try:
        name, value = identifier(column.name), str(read(text))
    except (ValueError, ArithmeticError, KeyError):
        return None
    return (f"{name} = CAST(:{parameter} AS {kind})", value) if kind and value else None


def records_where(config: RedshiftSinkConfig, conditions: Sequence[str], most: int) -> str:
    """Returns ``_shard``, ``_sequence`` and ``_subsequence`` of up to ``most`` records with rows for which all ``conditions`` hold."""
    names = ", ".join(map(identifier, LINEAGE))
    holds = " AND ".join((*conditions, *(f"{identifier(each)} IS NOT NULL" for each in LINEAGE)))
    return f"SELECT DISTINCT {names} FROM {qualified(*config.target)} WHERE {holds} LIMIT {int(most)}"


def keys_twice(config: RedshiftSinkConfig, layout: Layout) -> str:
    """Returns how many keys have several rows, of which one at least is from a stream."""
    keys = ", ".join(map(identifier, layout.keys))
    again = (
        f'SELECT 1 AS "again" FROM {qualified(*config.target)} GROUP BY {keys} HAVING COUNT(*) > 1 AND COUNT({identifier(SEQUENCE)}) > 0'
    )
    return f'SELECT COUNT(*) FROM ({again}) AS "twice"'


def newest_by_shard(config: RedshiftSinkConfig) -> str:
    """Returns ``_shard``, the number of its rows, and the greatest of their sequence numbers, zero-padded."""
    shard, sequence = identifier(SHARD), identifier(SEQUENCE)
    greatest = f"MAX(LPAD({sequence}, {SEQUENCE_BYTES}, '0'))"
    return f"SELECT {shard}, COUNT(*), {greatest} FROM {qualified(*config.target)} WHERE {shard} IS NOT NULL GROUP BY {shard}"


def oldest_deleted(config: RedshiftSinkConfig) -> str:
    """Returns the smallest sequence number in the table of deleted keys, zero-padded; null if it is empty."""
    return f"SELECT MIN(LPAD({identifier(SEQUENCE)}, {SEQUENCE_BYTES}, '0')) FROM {qualified(*config.deleted_keys)}"


def some_records(config: RedshiftSinkConfig, most: int, salt: str) -> str:
    """Returns ``_shard``, ``_sequence`` and ``_subsequence`` of ``most`` rows, others for each ``salt``."""
    names = ", ".join(map(identifier, LINEAGE))
    there = " AND ".join(f"{identifier(each)} IS NOT NULL" for each in LINEAGE)
    order = f"MD5({identifier(SHARD)} || {identifier(SEQUENCE)} || {literal(salt)})"
    return f"SELECT {names} FROM {qualified(*config.target)} WHERE {there} ORDER BY {order} LIMIT {int(most)}"


@dataclass(frozen=True, slots=True)
class LoadedRow:
    """What decides about a row that was loaded: the values of its keys and its version as text, its place, and whether it deletes."""

    keys: tuple[str, ...]
    version: str
    sequence: int
    subsequence: int
    deletes: bool = False

    @property
    def place(self) -> str:
        """The record that it is of, as `stream trace` takes it."""
        return f"{self.sequence}:{self.subsequence}"


def not_older(table: tuple[str, str], layout: Layout, rows: Sequence[LoadedRow]) -> tuple[str, dict[str, str]]:
    """Returns the numbers of those ``rows`` of whose key ``table`` (schema, name) has a row that is not older; and the parameters for that.

    If the database takes the keys of several rows for equal, it may return only one of these.
    """
    name, columns, parameters = qualified(*table), {column.name: column for column in layout.columns}, dict[str, str]()
    cases = []
    for at, row in enumerate(rows):
        parameters |= {f"k{at}_{index}": value for index, value in enumerate(row.keys)}
        same = [f"{name}.{identifier(key)} = {_parameter(f'k{at}_{index}', columns[key])}" for index, key in enumerate(layout.keys)]
        version = ""
        if layout.version is not None:
            parameters[f"v{at}"] = row.version
            version = _parameter(f"v{at}", layout.version)
        is_older = older(name, layout, version, literal(padded(row.sequence)), str(row.subsequence), or_same=False)
        cases.append(f"WHEN {' AND '.join(same)} AND NOT {is_older} THEN {at}")
    found = f'SELECT CASE {" ".join(cases)} END AS "row" FROM {name}'
    return f'SELECT DISTINCT "row" FROM ({found}) AS "found" WHERE "row" IS NOT NULL', parameters


def rows_of_key(table: tuple[str, str], layout: Layout, row: LoadedRow) -> tuple[str, dict[str, str]]:
    """Returns how many rows of the key of ``row`` are in ``table``, whatever their age; and the parameters for that."""
    name, columns = qualified(*table), {column.name: column for column in layout.columns}
    same = " AND ".join(f"{name}.{identifier(key)} = {_parameter(f'k{index}', columns[key])}" for index, key in enumerate(layout.keys))
    return f"SELECT COUNT(*) FROM {name} WHERE {same}", {f"k{index}": value for index, value in enumerate(row.keys)}


def _parameter(name: str, column: Column) -> str:
    return f"CAST(:{name} AS {column.type})"
