# ruff: noqa: S608 - the names of tables are our own
"""Rows merged by key, in whatever order units are loaded: the loader's own statements, run by DuckDB, and an oracle that sees all rows."""

from itertools import pairwise, permutations

import duckdb
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stream.batch import LINEAGE, ROW
from stream.sink.redshift_upsert import deleted_layout, upsert
from tests.contract.warehouse import config

SCHEMA = pl.Schema(
    {
        "k": pl.String(),
        "n": pl.Int64(),
        "at": pl.Int64(),
        "gone": pl.Boolean(),
        **dict(zip(LINEAGE, (pl.String(), pl.String(), pl.UInt32(), pl.Datetime("ms", "UTC")), strict=True)),
        ROW: pl.UInt32(),
    }
)
PLAIN = config(mode="upsert", keys=["k"], deletes="gone")
VERSIONED = config(mode="upsert", keys=["k"], deletes="gone", version="at")


class Table:
    """A table and its deleted keys in DuckDB, as the loader makes them for ``settings``."""

    def __init__(self, settings, there=()):
        self.settings, self.layout = settings, settings.layout(SCHEMA)
        self.db = duckdb.connect(config={"threads": 1})
        self.db.execute('CREATE SCHEMA "public"')
        for name, layout in ((settings.target, self.layout), (settings.deleted_keys, deleted_layout(self.layout))):
            columns = ", ".join(f'"{column.name}" {column.type}' for column in layout.target)
            self.db.execute(f'CREATE TABLE "public"."{name[1]}" ({columns})')
        self.become(there)

    def become(self, there):
        """Hold nothing but rows that somebody else has written: (key, version)."""
        self.db.execute('DELETE FROM "public"."events"; DELETE FROM "public"."events__deleted"')
        for key, version in there:
            self.db.execute('INSERT INTO "public"."events" ("k", "n", "at") VALUES (?, -1, ?)', [key, version])

    def load(self, rows):
        """Load ``rows`` in one transaction: (key, version, gone, sequence, line)."""
        columns = ", ".join(f'"{column.name}" {column.staged}' for column in self.layout.columns)
        self.db.execute(f'CREATE TEMP TABLE "stream_staged" ({columns})')
        names = '"k", "n", "at", "gone", "_line", "_shard", "_sequence", "_subsequence"'
        values = ", ".join(
            f"('{key}', {10 * sequence + line}, {version}, {gone}, {line}, 's', '{sequence}', 0)"
            for key, version, gone, sequence, line in rows
        )
        self.db.execute(f'INSERT INTO "stream_staged" ({names}) VALUES {values}')
        for statement in upsert(self.settings, self.layout):
            self.db.execute(statement)
        self.db.execute('DROP TABLE "stream_staged"')

    def rows(self):
        return sorted(self.db.execute('SELECT "k", "n" FROM "public"."events"').fetchall())

    def deleted(self):
        return sorted(self.db.execute('SELECT "k" FROM "public"."events__deleted"').fetchall())


def expected(rows, versioned, there=()):
    """The rows of the table and the deleted keys: of each key the last row counts, by version if there is one, then in the stream."""
    last = (
        {key: (version, -1, -1, -1, False) for key, version in there} if versioned else dict.fromkeys(dict(there), (0, -1, -1, -1, False))
    )
    for key, version, gone, sequence, line in rows:
        order = (version if versioned else 0, sequence, line, 10 * sequence + line, gone)
        last[key] = max(last.get(key, order), order)
    return sorted((key, n) for key, (*_, n, gone) in last.items() if not gone), sorted((key,) for key, (*_, gone) in last.items() if gone)


ROWS = st.lists(st.tuples(st.sampled_from("abc"), st.integers(-2, 3), st.booleans()), min_size=1, max_size=7)
THERE = st.dictionaries(st.sampled_from("abd"), st.integers(-2, 3), max_size=2)


@given(ROWS, st.lists(st.integers(1, 6), max_size=2, unique=True), st.lists(st.booleans(), min_size=7, max_size=7), THERE)
@settings(max_examples=40, deadline=None, print_blob=True)
@example([("a", 2, False), ("a", 3, True), ("a", 1, False)], [1, 2], [False] * 7, {})
@pytest.mark.parametrize("versioned", [False, True])
def test_whatever_the_order_of_loads_the_last_row_of_each_key_counts(versioned, rows, cuts, again, there):
    """``again``: whether a row is of the same record as the one before it."""
    numbered, sequence, line = [], 0, 0
    for (key, version, gone), same in zip(rows, again, strict=False):
        sequence, line = (sequence, line + 1) if same and numbered else (sequence + 1, 0)
        numbered.append((key, version, gone, sequence, line))
    # A unit never splits a record, so cuts inside of one do not count.
    starts = [at for at in sorted(cuts) if at < len(numbered) and numbered[at][4] == 0]
    units = [numbered[first:last] for first, last in pairwise([0, *starts, len(numbered)])]
    wanted, table = expected(numbered, versioned, there.items()), Table(VERSIONED if versioned else PLAIN)
    for order in permutations(units):
        table.become(there.items())
        for unit in order:
            table.load(unit)
        assert (table.rows(), table.deleted()) == wanted, order
    for unit in units:  # a second time, as a source sends them that goes back
        table.load(unit)
    assert (table.rows(), table.deleted()) == wanted


def test_a_late_update_does_not_bring_a_deleted_key_back_and_a_newer_one_does():
    table = Table(VERSIONED)
    table.load([("a", 5, False, 1, 0)])
    table.load([("a", 7, True, 2, 0)])
    table.load([("a", 6, False, 3, 0)])
    assert (table.rows(), table.deleted()) == ([], [("a",)])
    table.load([("a", 6, True, 4, 0), ("a", 8, False, 5, 0)])
    assert (table.rows(), table.deleted()) == ([("a", 50)], [])
    table.load([("a", 7, True, 6, 0)])
    assert (table.rows(), table.deleted()) == ([("a", 50)], [])


def test_a_row_without_a_version_is_older_than_any():
    table = Table(VERSIONED, [("a", None), ("b", 9)])
    table.load([("a", -5, False, 1, 0), ("b", 8, False, 2, 0)])
    assert table.rows() == [("a", 10), ("b", -1)]


def test_units_sealed_without_a_version_are_merged_by_the_order_of_the_stream():
    table = Table(VERSIONED)
    table.load([("a", 9, False, 1, 0)])
    table.layout = PLAIN.layout(SCHEMA)
    table.load([("a", 1, False, 2, 0)])
    assert table.rows() == [("a", 20)]
