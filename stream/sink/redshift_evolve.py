"""Whether an existing Redshift table accepts the rows of a layout, and what to run if it does not. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from stream.batch import SHARD
from stream.sink.layouts import Column, Layout
from stream.sink.redshift import Evolve, RedshiftSinkConfig
from stream.sink.redshift_names import check_name, identifier, qualified
from stream.sink.redshift_types import SHARD_BYTES, SHARD_ID_BYTES


@dataclass(frozen=True, slots=True)
class ExistingColumn:
    """An existing column of the table: its type's name in the Data API's metadata, and its length in bytes (0: none)."""

    name: str
    type: str
    length: int


_COMPATIBLE: Final[Mapping[str, frozenset[str]]] = {
    "boolean": frozenset({"bool", "boolean"}),
    "smallint": frozenset({"int2", "smallint", "int4", "integer", "int8", "bigint", "numeric", "decimal"}),
    "integer": frozenset({"int4", "integer", "int8", "bigint", "numeric", "decimal", "float8"}),
    "bigint": frozenset({"int8", "bigint", "numeric", "decimal"}),
    "real": frozenset({"float4", "real", "float8"}),
    "double precision": frozenset({"float8"}),
    "decimal": frozenset({"numeric", "decimal"}),
    "date": frozenset({"date", "timestamp", "timestamptz"}),
    "timestamp": frozenset({"timestamp", "timestamptz"}),
    "timestamptz": frozenset({"timestamptz"}),
    "varchar": frozenset({"varchar", "text", "character varying"}),
    "varbyte": frozenset({"varbyte", "binary varying", "bytea"}),
    "super": frozenset({"super", "jsonb"}),
}


@dataclass(frozen=True, slots=True)
class Evolution:
    """How to make the table fit: statements to run, or problems that an operator has to solve."""

    statements: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def evolve(
    config: RedshiftSinkConfig, table: tuple[str, str], layout: Layout, found: Sequence[ExistingColumn], shard_bytes: int = SHARD_ID_BYTES
) -> Evolution:
    """How to make ``table`` (schema, name), which has the columns ``found``, accept rows of ``layout``.

    ``shard_bytes``: the most bytes that a value of ``_shard`` has, which is all that an existing column of that name must hold. The only
    change ever made is to add columns, and only if the ``evolve`` option allows it.
    """
    existing = {column.name: column for column in found}
    statements, problems = [], []
    for column in layout.target:
        if column.name not in existing:
            addition = f"ALTER TABLE {qualified(*table)} ADD COLUMN {identifier(column.name)} {column.type}"
            if config.evolve is Evolve.ADD:
                statements.append(addition)
            else:
                problems.append(f"there is no column {column.name}, and `evolve: halt` adds none; run: {addition}")
        elif column.name == SHARD and 0 < (bytes_now := existing[column.name].length) < shard_bytes:
            problems.append(_too_narrow(table, bytes_now, shard_bytes))
        elif problem := _mismatch(column, existing[column.name], config.types.get(column.name, _least(column, shard_bytes))):
            problems.append(problem)
    return Evolution(tuple(statements), tuple(problems))


def _least(column: Column, shard_bytes: int) -> str:
    """The type that a table's column must at least have."""
    return f"varchar({shard_bytes})" if column.name == SHARD else column.type


def _too_narrow(table: tuple[str, str], found: int, needed: int) -> str:
    whole, name = qualified(*table), identifier(SHARD)
    return (
        f"column {SHARD} has {found} bytes in the table, and `<stream>/<shard>` of this pipeline up to {needed}. Nothing is loaded until "
        f"it is wider; run, outside of a transaction: ALTER TABLE {whole} ALTER COLUMN {name} TYPE varchar({SHARD_BYTES})"
    )


def _mismatch(column: Column, found: ExistingColumn, type_now: str) -> str:
    """Why the table's column ``found`` cannot hold ``column``; "" if it can.

    ``type_now`` is the column's type in the current pipeline. ``column`` may be from a unit that was sealed under an older one, with a
    wider type whose values may still fit; so the length compared is that of ``type_now``.
    """
    base, size = column.type.partition("(")[0], type_now.partition("(")[2]
    if found.type.lower() not in _COMPATIBLE[base]:
        return (
            f"column {found.name} is {found.type} in the table and {column.type} in the pipeline; if somebody changed the table, give "
            f"the column the type {column.type} again (add one, copy the values, drop the old one, rename), "
            "otherwise cast it in a stage, or use `types`"
        )
    if base in {"varchar", "varbyte"} and 0 < found.length < int(size.removesuffix(")") or 0):
        return (
            f"column {found.name} is {base}({found.length}) in the table and {column.type} in the pipeline; write "
            f"`types: {{{check_name(found.name)}: {base}({found.length})}}`, or widen the table's column"
        )
    return ""
