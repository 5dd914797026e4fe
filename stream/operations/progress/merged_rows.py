"""Whether a table that is merged by key can be right: its rows come and go with their keys, so that their number says nothing.

Each key is there at most once; no row is of a record that was not loaded; and, of some rows, the ledger says that their records were
written to the table; of some rows that were loaded, the table has that one or a newer one.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from random import Random
from typing import Final

import polars as pl

from stream.audit.ledger import NAME as LEDGER
from stream.audit.ledger import SegmentError, read_segment
from stream.audit.outputs import DAMAGE
from stream.audit.trace import RecordQuery, find
from stream.batch import SEQUENCE, SUBSEQUENCE, Outcome
from stream.commit.lookup import shards_of, unit_start
from stream.commit.manifest import Kind, Manifest, decode
from stream.commit.naming import manifest_key
from stream.contracts import ObjectStore, shard_of_chain
from stream.sink.layouts import Layout
from stream.sink.redshift_checks import LoadedRow
from stream.sink.redshift_names import folded
from stream.worker.sources.dead_letters import chain_name
from stream.worker.tables.parts import LoaderParts
from stream.worker.tables.warehouse import MergingWarehouse

RECORDS: Final = 50
"""Rows of the table whose records are looked up: each takes a few listings, a manifest and a ledger segment."""

UNITS: Final = 10
"""Loaded units of which rows are looked for in the table: a file is read for each."""

ROWS: Final = 5
"""Rows of each of these units: one statement asks for all of them, and may have 100 KB."""

NAMED: Final = 3

_BACK: Final = "rolled back. docs/redshift.md (Restored tables) says how to load them again"
_OUTCOME: Final = "the ledger says that it was {}"


@dataclass(slots=True)
class Sample:
    """Some of the units that were loaded, each as likely as any other, and the newest of each chain."""

    rng: Random
    seen: int = 0
    chosen: list[Manifest] = field(default_factory=list)
    newest: dict[tuple[str, str], Manifest] = field(default_factory=dict)

    def add(self, unit: Manifest) -> None:
        """Count ``unit``; units of one chain come in order."""
        self.newest[unit.stream, unit.shard] = unit
        self.seen += 1
        if len(self.chosen) < UNITS:
            self.chosen.append(unit)
        elif (at := self.rng.randrange(self.seen)) < UNITS:
            self.chosen[at] = unit

    def units(self) -> list[Manifest]:
        """Up to ``UNITS`` units, of which half may be the newest."""
        newest = self.rng.sample(list(self.newest.values()), min(len(self.newest), UNITS // 2))
        others = [each for each in self.chosen if each not in newest]
        return [*newest, *self.rng.sample(others, min(len(others), UNITS - len(newest)))]


@dataclass(frozen=True, slots=True)
class Loaded:
    """What the log says is in the table. ``rows``: of the stream's own chain, by the value of ``_shard``; ``others``: of others."""

    rows: Mapping[str, int]
    others: int
    sample: Sample


@dataclass(slots=True)
class Result:
    """What was found. ``wrong``: what is wrong, each a sentence; ``doubtful``: what may be; ``said``: what was looked at."""

    wrong: list[str] = field(default_factory=list)
    doubtful: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    rows: int = 0


async def check_merged(
    tables: Sequence[LoaderParts], stores: tuple[ObjectStore, ObjectStore], positions: Sequence[Mapping[str, int]], loaded: Loaded
) -> Result | None:
    """Check the table that ``tables`` load, the stream's own loader first, each up to ``positions``; None if it has no rows to check.

    All units were merged by the same keys and version. ``stores``: the state, and where ledger segments are. Rows of other applications do
    not count, apart from keys that are there twice.
    """
    own, result = tables[0], Result()
    warehouse, layout = own.warehouse, await _layout(own, loaded.sample)
    merged = await warehouse.merged_rows(layout) if layout is not None and isinstance(warehouse, MergingWarehouse) else None
    if merged is None or layout is None or not isinstance(warehouse, MergingWarehouse):
        return None
    result.said.append("no key is there twice")
    if merged.twice:
        result.wrong.append(
            f"{merged.twice} keys are in the table several times, though it is merged by {', '.join(layout.keys)}: somebody added rows, or "
            "another application loads the table. Delete those that are older"
        )
    for label, (rows, last) in sorted(merged.shards.items()):
        if label not in loaded.rows:
            continue
        result.rows += rows
        shard = label.rpartition("/")[2]
        most = max((end for each in positions for chain, end in each.items() if shard_of_chain(chain)[0] == shard), default=0)
        if last > most:
            result.wrong.append(f"the table has a row of {label} with the sequence number {last}, but is loaded up to {most} only")
        if rows > loaded.rows[label] + loaded.others:
            result.wrong.append(f"the table has {rows} rows of {label}, but only {loaded.rows[label] + loaded.others} were loaded")
    await _records(tables, warehouse, stores, loaded, result)
    await _sealed(tables, warehouse, layout, loaded.sample, result)
    return result


async def _layout(own: LoaderParts, sample: Sample) -> Layout | None:
    """The layout with which rows are merged now: that of the newest unit that was loaded with rows."""
    for unit in sorted(sample.newest.values(), key=lambda each: each.sealed_at, reverse=True):
        layout = (await own.log.link(unit)).layout
        if layout is not None and layout.keys:
            return layout
    return None


# --- from the table to the ledger ---------------------------------------------------------------------------------------------


async def _records(
    tables: Sequence[LoaderParts],
    warehouse: MergingWarehouse,
    stores: tuple[ObjectStore, ObjectStore],
    loaded: Loaded,
    result: Result,
) -> None:
    """Whether the records of some of the table's rows are those that the ledger says were written to it."""
    state, ledger = stores
    rows = await warehouse.some_records(RECORDS, f"{loaded.sample.rng.getrandbits(64):016x}")
    chosen = list(dict.fromkeys(row for row in rows if row[0] in loaded.rows))
    wrong, unknown = [], 0
    for label, sequence, subsequence in chosen:
        why = await _written(tables, ledger, state, label.rpartition("/")[2], RecordQuery(int(sequence), subsequence))
        unknown += why is None
        wrong += [f"{label}:{sequence}:{subsequence} ({why})"] if why else []
    if wrong:
        more = f" and {len(wrong) - NAMED} more" if len(wrong) > NAMED else ""
        result.wrong.append(
            f"{len(wrong)} of {len(chosen)} rows that were looked up are of records that were not written to the table: "
            f"{', '.join(wrong[:NAMED])}{more}. Somebody else wrote them, or changed their lineage columns"
        )
    result.said.append(f"of {len(chosen) - unknown} of its rows, the ledger says that their records were written to it")


async def _written(tables: Sequence[LoaderParts], ledger: ObjectStore, state: ObjectStore, shard: str, record: RecordQuery) -> str | None:
    """Why the record cannot have a row in the table; "" if it can; None if its ledger cannot be read, which other checks report."""
    said: str | None = "no unit of the log has such a record"
    for table in tables:
        for chain in [each async for each in shards_of(state, table.stream) if shard_of_chain(each)[0] == shard]:
            unit = await _unit(state, table.stream, chain, record.sequence)
            why = None if unit is None else await _why_not(table, unit, ledger, record)
            if why == "":
                return why
            said = said if unit is None else why
    redriven = any(each.stream == chain_name(tables[0].stream) for each in tables[1:])
    # A redrive has numbers of its own, and may have written what became a dead letter at first.
    return "" if redriven and said == _OUTCOME.format(Outcome.DEAD_LETTERED.label) else said


async def _unit(state: ObjectStore, stream: str, chain: str, sequence: int) -> Manifest | None:
    """The sealed unit of a chain that has the record."""
    start = await unit_start(state, stream, chain, sequence)
    key = "" if start is None else manifest_key(stream, chain, start)
    stored = await state.get(key) if key else None
    unit = decode(stored.body, key) if stored is not None else None
    is_it = unit is not None and unit.sealed and unit.kind is Kind.UNIT and unit.last is not None and int(unit.last) >= sequence
    return unit if is_it else None


async def _why_not(table: LoaderParts, unit: Manifest, ledger: ObjectStore, record: RecordQuery) -> str | None:
    """As ``_written``, for a record of ``unit``."""
    file = next((each for each in unit.files if each.sink == LEDGER), None)
    stored = None if file is None else await ledger.get(file.key)
    if stored is None or file is None or hashlib.sha256(stored.body).hexdigest() != file.sha256:
        return None
    try:
        segment = read_segment(stored.body)
    except SegmentError:
        return None
    found = find(segment, record)
    if found.is_empty():
        return "the ledger has no such record"
    targets, sink = segment.header.targets, await table.log.sink(unit)
    if sink in targets and found[f"dest_{targets.index(sink)}"][0] is not None:
        return ""
    outcome = str(found["outcome"][0])
    return _OUTCOME.format(outcome) + (", and not to this table" if outcome == Outcome.WRITTEN.label else "")


# --- from what was loaded to the table ----------------------------------------------------------------------------------------


async def _sealed(tables: Sequence[LoaderParts], warehouse: MergingWarehouse, layout: Layout, sample: Sample, result: Result) -> None:
    """Whether, of some rows that were loaded, the table has each or a newer one of its key."""
    rows: list[LoadedRow] = []
    units = 0
    for unit in sample.units():
        table = next(each for each in tables if each.stream == unit.stream)
        some = await _rows(table, unit, sample.rng)
        rows += some
        units += bool(some)
    overtaken = await warehouse.overtaken(layout, rows) if rows else []
    # With versions, a deletion may have been long before the row in the stream, and so may have been forgotten before it.
    wrong = [each for each in overtaken if each.there or each.remembered is None or (each.remembered and layout.version is None)]
    doubtful = [each for each in overtaken if each not in wrong]
    for each in wrong[:NAMED]:
        why = f"{each.there} rows of its key are older, or should have been deleted" if each.there else "the table has no row of its key"
        result.wrong.append(f"the row of the record {each.row.place} was loaded, but {why}: rows were deleted, or the table was {_BACK}")
    if len(wrong) > NAMED:
        result.wrong.append(f"so it is with {len(wrong) - NAMED} more of {len(rows)} rows")
    if doubtful:
        result.doubtful.append(
            f"{len(doubtful)} of {len(rows)} loaded rows have no row of their key, such as the record {doubtful[0].row.place}. Their "
            f"keys were deleted, and that was removed from the table of deleted keys; or rows were deleted, or the table was {_BACK}"
        )
    result.said.append(f"of {len(rows)} loaded rows from {units} units, it has each or a newer one of its key, or that was deleted")


async def _rows(table: LoaderParts, unit: Manifest, rng: Random) -> list[LoadedRow]:
    """Some rows of a unit that was loaded; none if its files are gone, or other than they were."""
    link = await table.log.link(unit)
    if link.layout is None:
        return []
    found: list[LoadedRow] = []
    sums = {file.key: file.sha256 for file in unit.files}
    for file in link.files:
        key = file.url.removeprefix(table.staging.url).removeprefix("/")
        stored = await table.staging.get(key) if file.url.startswith(table.staging.url) else None
        if stored is None or hashlib.sha256(stored.body).hexdigest() != sums.get(key):
            continue
        try:
            frame = await asyncio.to_thread(pl.read_parquet, io.BytesIO(stored.body))
        except DAMAGE:
            continue
        found += _loaded(frame, link.layout, rng.sample(range(frame.height), min(ROWS, frame.height)))
    return found[:ROWS]


def _loaded(frame: pl.DataFrame, layout: Layout, rows: Sequence[int]) -> Iterator[LoadedRow]:
    names, types = {folded(name): name for name in frame.columns}, {column.name: column.type for column in layout.columns}
    version = "" if layout.version is None else names[layout.version.name]
    for row in frame[list(rows)].iter_rows(named=True):
        keys = tuple(_text(row[names[key]], types[key]) for key in layout.keys)
        if all(keys):  # no parameter can be empty
            deletes = bool(row[names[layout.deletes.name]]) if layout.deletes is not None else False
            yield LoadedRow(
                keys, _text(row[version], types[folded(version)]) if version else "", int(row[SEQUENCE]), int(row[SUBSEQUENCE]), deletes
            )


def _text(value: object, kind: str) -> str:
    """``value`` as a parameter that the database casts to ``kind``; files have times in UTC, without a zone."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime):
        return f"{value.isoformat(sep=' ')}{'+00' if kind == 'timestamptz' else ''}"
    return str(value)
