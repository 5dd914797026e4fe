"""Whether tables hold the rows that were loaded into them: as many of each shard as the log says, no fewer and no more."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final

from stream.audit.ledger import NAME as LEDGER
from stream.audit.report import Check, Finding, Verdict
from stream.batch import ORIGIN
from stream.clock import SystemClock
from stream.commit.log import CommitLog
from stream.commit.manifest import Manifest
from stream.concurrency import run_concurrently
from stream.contracts import ObjectStore, shard_of_chain
from stream.errors import Halted, StreamError
from stream.operations.opening import chains_of
from stream.operations.progress.merged_rows import Loaded, Result, Sample, check_merged
from stream.pipeline.model import Pipeline
from stream.sink.tables import TableSinkConfig
from stream.worker.opening.places import session_of
from stream.worker.opening.stores import Stores
from stream.worker.recipes.definitions import Definitions
from stream.worker.tables.loaders import open_loader_parts
from stream.worker.tables.parts import LoaderParts

AT_ONCE: Final = 16
"""Chains whose manifests are read at a time."""

NO_KEYS: Final = ((), None)
"""How rows are merged that are not."""

ATTEMPTS: Final = 3
"""How often to count if a loader adds rows meanwhile."""


@dataclass(slots=True)
class TableRows:
    """The result. ``rows``: how many were counted in tables."""

    findings: list[Finding] = field(default_factory=list)
    rows: int = 0

    def found(self, table: str, verdict: Verdict, why: str, shard: str = "", position: int = ORIGIN) -> TableRows:
        """The result with one more finding."""
        last = str(position) if position else ""
        self.findings.append(Finding(shard, Check.TABLES, verdict, why, str(ORIGIN) if last else "", last, object=table))
        return self


async def check_tables(pipeline: Pipeline, base: Path, stack: AsyncExitStack) -> TableRows:
    """Count the rows in each table that ``pipeline``, which reads one stream, loads, and compare them with what the log says is loaded.

    A table that cannot be asked gives ``unknown``.
    """
    result, session, clock = TableRows(), session_of(pipeline), SystemClock()
    if not any(isinstance(config, TableSinkConfig) for config in pipeline.sinks):
        return result
    stores = Stores.open(pipeline, base, session)
    log = CommitLog(stores.state, pipeline.application, clock, "audit")
    definitions = Definitions(stores.state, base, os.environ, clock)
    opened: dict[str, list[LoaderParts]] = {}
    for chain in await chains_of(pipeline, base):
        identity = ("audit", clock, lambda _: None)
        for table in await open_loader_parts(pipeline, chain, session, log, stores.targets, definitions, identity, stack):
            opened.setdefault(table.config.name, []).append(table)
    for tables in opened.values():
        counted = await count(tables, log, definitions, stores.targets[LEDGER], Random(clock.now().timestamp()))  # noqa: S311 - it only chooses rows
        result.findings += counted.findings
        result.rows += counted.rows
    return result


async def count(tables: Sequence[LoaderParts], log: CommitLog, definitions: Definitions, ledger: ObjectStore, rng: Random) -> TableRows:
    """Compare one table with the log. ``tables``: its loaders, one for each chain of the stream, the stream's own first.

    ``rng`` chooses the rows of a merged table that are looked at, so that each time others are.
    """
    result, own = TableRows(), tables[0]
    name = own.config.table
    try:
        for _ in range(ATTEMPTS):
            positions, sample = [await table.warehouse.positions() for table in tables], Sample(rng)
            there = await own.warehouse.row_counts()
            expected = [await _loaded(table, log, definitions, loaded, sample) for table, loaded in zip(tables, positions, strict=True)]
            merges = {each for one in expected for each in one.merges}
            merged = None
            if len(merges) == 1 and not merges <= {NO_KEYS}:
                loaded = Loaded(expected[0].rows, sum(each.total for each in expected[1:]), sample)
                merged = await check_merged(tables, (log.store, ledger), positions, loaded)
            if positions == [await table.warehouse.positions() for table in tables]:
                break
        else:
            why = "a loader added rows each time they were looked at; try again, or pause the loads meanwhile"
            return result.found(name, Verdict.UNKNOWN, why)
    except Halted as error:
        return result.found(name, Verdict.FAILED, str(error))
    except StreamError as error:
        return result.found(name, Verdict.UNKNOWN, f"the table could not be compared with the log: {error}")
    if merged is not None:
        return _concluded(result, name, merged)
    if there is None or merges - {NO_KEYS}:
        why = "its rows were not counted: they lack the column _shard, or some are merged by key and others not, or otherwise"
        why = why if merges else "no rows have been loaded into it yet"
        return result.found(name, Verdict.OK, f"{why}. How far it is loaded agrees with the log")
    _compare(result, own, there, expected, positions[0])
    return result


def _concluded(result: TableRows, name: str, merged: Result) -> TableRows:
    result.rows = merged.rows
    for why in merged.wrong:
        result.found(name, Verdict.FAILED, why)
    for why in merged.doubtful:
        result.found(name, Verdict.UNKNOWN, why)
    said = f"its rows are merged by key, so they were not counted: {'; '.join(merged.said)}"
    return result if result.findings else result.found(name, Verdict.OK, said)


def _compare(
    result: TableRows, own: LoaderParts, there: Mapping[str, int], expected: Sequence[_Loaded], positions: Mapping[str, int]
) -> None:
    """Compare the rows that are ``there``, by shard, with those of the stream's own chain, which is ``expected[0]``, and of others."""
    first, others, name = expected[0], sum(each.total for each in expected[1:]), own.config.table
    result.rows = sum(there.get(label, 0) for label in first.rows)
    for label, rows in sorted(first.rows.items()):
        if (counted := there.get(label, 0)) < rows:
            why = (
                f"the table has {counted} rows of this shard, but {rows} were loaded: {rows - counted} or more were deleted, or the "
                "table was rolled back or replaced. They are in the files of the units, as long as these are kept; "
                "docs/redshift.md (Restored tables) and docs/iceberg.md (Rolling back) say how to load them again"
            )
            result.found(name, Verdict.FAILED, why, first.chains[label], positions.get(first.chains[label], ORIGIN))
    if result.rows > first.total + others:
        why = (
            f"the table has {result.rows} rows of the shards of {own.stream}, but only {first.total + others} were loaded by this "
            "application: find out who else writes to it. Another application that loads the same stream has every row a second time"
        )
        result.found(name, Verdict.FAILED, why)


@dataclass(slots=True)
class _Loaded:
    """What the log says is in a table: rows by the value of ``_shard``, and the chain of each. ``merges``: by which keys, and version."""

    rows: Counter[str] = field(default_factory=Counter)
    chains: dict[str, str] = field(default_factory=dict)
    merges: set[tuple[tuple[str, ...], str | None]] = field(default_factory=set)

    @property
    def total(self) -> int:
        return sum(self.rows.values())


async def _loaded(table: LoaderParts, log: CommitLog, definitions: Definitions, positions: Mapping[str, int], sample: Sample) -> _Loaded:
    """The rows of ``table`` in the units of its chain that are loaded up to ``positions``; adds the units with rows to ``sample``.

    Raises:
        Halted: it is loaded up to where no unit ends; a definition is missing.
    """
    result = _Loaded()

    async def one(chain: str, position: int) -> None:
        await table.log.confirm(chain, position)
        async for entry in log.chain(table.stream, chain):
            manifest = entry.manifest
            if not manifest.sealed or manifest.last is None or int(manifest.last) > position:
                return
            await add(manifest, chain)

    async def add(manifest: Manifest, chain: str) -> None:
        if not manifest.pipeline:
            return
        recorded, name = await definitions.pipeline(manifest.pipeline), await table.log.sink(manifest)
        sink = next((each for each in recorded.sinks if each.name == name and isinstance(each, TableSinkConfig)), None)
        if sink is None:
            return
        shard_id, _ = shard_of_chain(chain)
        label = f"{table.stream}/{shard_id}" if recorded.source.kinesis.streams else shard_id
        rows = sum(file.rows for file in manifest.files if file.sink == sink.name)
        result.rows[label] += rows
        result.chains[label] = chain
        if rows:
            result.merges.add((getattr(sink, "keys", ()), getattr(sink, "version", None)))
            sample.add(manifest)

    await run_concurrently([one(chain, position) for chain, position in positions.items()], AT_ONCE)
    return result
