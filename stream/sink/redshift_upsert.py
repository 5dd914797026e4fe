"""The statements that merge staged rows into a table by key. Pure: equal layouts give equal statements.

Of all rows of a key the last one counts, whichever was loaded first: shards are loaded side by side. So a deletion has to be remembered,
or a row from before it that is loaded later would come back. Keys that were deleted stand in a table of their own, beside the target, with
the sequence number that deleted them.
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
"""The temporary table with the last staged row of each key."""

_SEQUENCE, _SUBSEQUENCE = (identifier(column) for column in ORDER if column != LINE)


def value_of(column: Column) -> str:
    """The value that the table gets, as an expression over the staged column."""
    name = identifier(column.name)
    if column.parse:
        return f"JSON_PARSE({name})"
    return name if column.staged == column.type or column.type.startswith("varchar") else f"CAST({name} AS {column.type})"


def remembers(config: RedshiftSinkConfig, layout: Layout) -> bool:
    """Whether a load of ``layout`` needs the table of deleted keys: because of the sink's definition now, or when its units were sealed."""
    merges_alike = config.deletes is not None and tuple(map(check_name, config.keys)) == layout.keys
    return bool(layout.keys) and (merges_alike or layout.deletes is not None)


def deleted_layout(layout: Layout) -> Layout:
    """The columns of the table of deleted keys: the keys, and which record deleted them when."""
    wanted = {*layout.keys, *(check_name(name) for name in (*ORDER, ARRIVAL))}
    return Layout(tuple(column for column in layout.target if column.name in wanted))


def upsert(config: RedshiftSinkConfig, layout: Layout) -> tuple[str, ...]:
    """What moves the rows of ``STAGED``, which has all columns of ``layout``, by its keys."""
    keys = [identifier(key) for key in layout.keys]
    staged = ", ".join(identifier(column.name) for column in layout.columns)
    rank = f"ROW_NUMBER() OVER (PARTITION BY {', '.join(keys)} ORDER BY {_padded('')} DESC, {_SUBSEQUENCE} DESC, {identifier(LINE)} DESC)"
    ranked = f'(SELECT {staged}, {rank} AS "stream_rank" FROM {STAGED})'
    tables = [qualified(*config.target)]
    if remembers(config, layout):
        tables.append(qualified(*config.deleted))
    # Behind the deletions whatever a table still has of a key is newer than the row in hand.
    overtaken = " AND ".join(f"NOT EXISTS (SELECT 1 FROM {table} WHERE {_same(table, keys)})" for table in tables)
    gone = layout.deletes
    moves = [_insert(config.target, layout, f"NOT {identifier(gone.name)} AND {overtaken}" if gone else overtaken)]
    if gone:
        moves.append(_insert(config.deleted, deleted_layout(layout), f"{identifier(gone.name)} AND {overtaken}"))
    return (
        f'CREATE TEMP TABLE {NEWEST} AS SELECT {staged} FROM {ranked} AS ranked WHERE "stream_rank" = 1',
        *(f"DELETE FROM {table} USING {NEWEST} WHERE {_same(table, keys)} AND {_older(table)}" for table in tables),
        *moves,
        f"DROP TABLE {NEWEST}",
    )


def _insert(table: tuple[str, str], layout: Layout, which: str) -> str:
    names = ", ".join(identifier(column.name) for column in layout.target)
    values = ", ".join(value_of(column) for column in layout.target)
    return f"INSERT INTO {qualified(*table)} ({names}) SELECT {values} FROM {NEWEST} WHERE {which}"


def _same(table: str, keys: list[str]) -> str:
    return " AND ".join(f"{table}.{key} = {NEWEST}.{key}" for key in keys)


def _padded(prefix: str) -> str:
    """A sequence number as text that sorts like a number."""
    return f"LPAD({prefix}{_SEQUENCE}, {SEQUENCE_BYTES}, '0')"


def _older(table: str) -> str:
    """Of rows of ``table``. One without a sequence number is not of a stream: it was there before."""
    old, new = _padded(f"{table}."), _padded(f"{NEWEST}.")
    same = f"{old} = {new} AND {table}.{_SUBSEQUENCE} <= {NEWEST}.{_SUBSEQUENCE}"
    return f"({table}.{_SEQUENCE} IS NULL OR {old} < {new} OR ({same}))"
