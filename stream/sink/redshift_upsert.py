"""The statements that merge staged rows into a table by key. Pure: equal layouts give equal statements.

For each key, the row with the highest sequence number wins, in whatever order rows are loaded: shards are loaded independently. With a
version column, the row with the highest version wins, and of those the one with the highest sequence number. So deletions must be
remembered: otherwise, a row from before a deletion that is loaded after it would reappear. A table beside the target records each deleted
key with the sequence number, and the version, that deleted it.
"""

# ruff: noqa: S608 - names pass redshift_names.py before they stand in a statement
from __future__ import annotations

from typing import Final

from stream.batch import ARRIVAL
from stream.sink.layouts import Column, Layout
from stream.sink.redshift import RedshiftSinkConfig
from stream.sink.redshift_names import check_name, identifier, qualified
from stream.sink.redshift_types import LINE, ORDER, SEQUENCE_BYTES

STAGED: Final = '"stream_staged"'
"""The temporary table that COPY fills."""
NEWEST: Final = '"stream_newest"'
"""The temporary table with the newest staged row of each key."""

_SEQUENCE, _SUBSEQUENCE = (identifier(column) for column in ORDER if column != LINE)


def value_of(column: Column, prefix: str = "") -> str:
    """The SQL expression that turns the staged column, of the table that ``prefix`` names, into the target column's value."""
    name = f"{prefix}{identifier(column.name)}"
    if column.parse:
        return f"JSON_PARSE({name})"
    return name if column.staged == column.type or column.type.startswith("varchar") else f"CAST({name} AS {column.type})"


def needs_deleted_keys(config: RedshiftSinkConfig, layout: Layout) -> bool:
    """Whether a load of ``layout`` needs the table of deleted keys: the sink has ``deletes`` now, or had it when the units were sealed."""
    same_merge = config.deletes is not None and tuple(map(check_name, config.keys)) == layout.keys
    return bool(layout.keys) and (same_merge or layout.deletes is not None)


def deleted_layout(layout: Layout) -> Layout:
    """The columns of the table of deleted keys: the keys, and the version, position and arrival time of the record that deleted them."""
    names = {*layout.keys, *(check_name(name) for name in (*ORDER, ARRIVAL))}
    return Layout(tuple(column for column in layout.target if column.name in names or column.version))


def upsert(config: RedshiftSinkConfig, layout: Layout) -> tuple[str, ...]:
    """The statements that merge ``STAGED``, which has all columns of ``layout``, into the target by the layout's keys."""
    keys = [identifier(key) for key in layout.keys]
    staged = ", ".join(identifier(column.name) for column in layout.columns)
    order = (*([identifier(layout.version.name)] if layout.version else []), _padded(""), _SUBSEQUENCE, identifier(LINE))
    rank = f"ROW_NUMBER() OVER (PARTITION BY {', '.join(keys)} ORDER BY {', '.join(f'{each} DESC' for each in order)})"
    ranked = f'(SELECT {staged}, {rank} AS "stream_rank" FROM {STAGED})'
    tables = [qualified(*config.target)]
    if needs_deleted_keys(config, layout):
        tables.append(qualified(*config.deleted_keys))
    # Once older rows are deleted, any row that a table still has for a key is newer than the staged row.
    no_newer_row = " AND ".join(f"NOT EXISTS (SELECT 1 FROM {table} WHERE {_same(table, keys)})" for table in tables)
    flag = layout.deletes
    moves = [_insert(config.target, layout, f"NOT {identifier(flag.name)} AND {no_newer_row}" if flag else no_newer_row)]
    if flag:
        moves.append(_insert(config.deleted_keys, deleted_layout(layout), f"{identifier(flag.name)} AND {no_newer_row}"))
    return (
        f'CREATE TEMP TABLE {NEWEST} AS SELECT {staged} FROM {ranked} AS ranked WHERE "stream_rank" = 1',
        *(f"DELETE FROM {table} USING {NEWEST} WHERE {_same(table, keys)} AND {_older(table, layout)}" for table in tables),
        *moves,
        f"DROP TABLE {NEWEST}",
    )


def _insert(table: tuple[str, str], layout: Layout, condition: str) -> str:
    names = ", ".join(identifier(column.name) for column in layout.target)
    values = ", ".join(value_of(column) for column in layout.target)
    return f"INSERT INTO {qualified(*table)} ({names}) SELECT {values} FROM {NEWEST} WHERE {condition}"


def _same(table: str, keys: list[str]) -> str:
    return " AND ".join(f"{table}.{key} = {NEWEST}.{key}" for key in keys)


def _padded(prefix: str) -> str:
    """The sequence number, zero-padded so that text order is numeric order."""
    return f"LPAD({prefix}{_SEQUENCE}, {SEQUENCE_BYTES}, '0')"


def _older(table: str, layout: Layout) -> str:
    """Whether a row of ``table`` is not newer than the staged row."""
    version = value_of(layout.version, f"{NEWEST}.") if layout.version is not None else ""
    return older(table, layout, version, _padded(f"{NEWEST}."), f"{NEWEST}.{_SUBSEQUENCE}", or_same=True)


def older(table: str, layout: Layout, version: str, sequence: str, subsequence: str, *, or_same: bool) -> str:
    """Whether a row of ``table`` is older than the one with these expressions, or with ``or_same`` of the same record, if not newer.

    ``sequence`` is zero-padded. A row without a version is older than any with one, and of equal versions, one without a sequence number,
    which is not from a stream.
    """
    old = _padded(f"{table}.")
    same = f"{old} = {sequence} AND {table}.{_SUBSEQUENCE} {'<=' if or_same else '<'} {subsequence}"
    earlier = f"({table}.{_SEQUENCE} IS NULL OR {old} < {sequence} OR ({same}))"
    if layout.version is None:
        return earlier
    there = f"{table}.{identifier(layout.version.name)}"
    return f"({there} IS NULL OR {there} < {version} OR ({there} = {version} AND {earlier}))"
