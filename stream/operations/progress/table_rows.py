"""Whether tables hold the rows that were loaded into them: as many of each shard as the log says, no fewer and no more."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from stream.audit.report import Check, Finding, Verdict
from stream.batch import ORIGIN
from stream.clock import SystemClock
from stream.commit.log import CommitLog
from stream.commit.manifest import Manifest
from stream.concurrency import run_concurrently
from stream.contracts import shard_of_chain
from stream.errors import Halted, StreamError
from stream.operations.opening import chains_of
from stream.pipeline.model import Pipeline
from stream.sink.tables import TableSinkConfig
from stream.worker.opening.places import session_of
from stream.worker.opening.stores import Stores
from stream.worker.recipes.definitions import Definitions
from stream.worker.tables.loaders import open_loader_parts
from stream.worker.tables.loadlog import is_same_table
from stream.worker.tables.parts import LoaderParts

AT_ONCE: Final = 16
"""Chains whose manifests are read at a time."""

ATTEMPTS: Final = 3
"""How often to count if a loader adds rows meanwhile."""


@dataclass(slots=True)
class TableRows:
    """The result. ``rows``: how many were counted in tables."""

    findings: list[Finding] = field(default_factory=list)
    rows: int = 0


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
        counted = await count(tables, log, definitions)
        result.findings += counted.findings
        result.rows += counted.rows
    return result


async def count(tables: Sequence[LoaderParts], log: CommitLog, definitions: Definitions) -> TableRows:
    """Compare one table with the log. ``tables``: its loaders, one for each chain of the stream, the stream's own first."""
    result, own = TableRows(), tables[0]
    name = own.config.table

    def found(verdict: Verdict, why: str, shard: str = "", position: int = ORIGIN) -> TableRows:
        last = str(position) if position else ""
        result.findings.append(Finding(shard, Check.TABLES, verdict, why, str(ORIGIN) if last else "", last, object=name))
        return result

    try:
        for _ in range(ATTEMPTS):
            positions = [await table.warehouse.positions() for table in tables]
            there = await own.warehouse.row_counts()
            if positions == [await table.warehouse.positions() for table in tables]:
                break
        else:
            return found(Verdict.UNKNOWN, "a loader added rows each time they were counted; try again, or pause the loads meanwhile")
        expected = [await _loaded(table, log, definitions, loaded) for table, loaded in zip(tables, positions, strict=True)]
    except Halted as error:
        return found(Verdict.FAILED, str(error))
    except StreamError as error:
        return found(Verdict.UNKNOWN, f"the table could not be compared with the log: {error}")
    if there is None or any(each.merged for each in expected):
        why = (
            "its rows were not counted: they are merged by key, or do not have the column _shard. How far it is loaded agrees with the log"
        )
        return found(Verdict.OK, why)
    first, others = expected[0], sum(each.total for each in expected[1:])
    result.rows = sum(there.get(label, 0) for label in first.rows)
    for label, rows in sorted(first.rows.items()):
        if (counted := there.get(label, 0)) < rows:
            why = (
                f"the table has {counted} rows of this shard, but {rows} were loaded: {rows - counted} or more were deleted, or the "
                "table was rolled back or replaced. They are in the files of the units, as long as these are kept; "
                "docs/redshift.md (Restored tables) and docs/iceberg.md (Rolling back) say how to load them again"
            )
            found(Verdict.FAILED, why, first.chains[label], positions[0].get(first.chains[label], ORIGIN))
    if result.rows > first.total + others:
        why = (
            f"the table has {result.rows} rows of the shards of {own.stream}, but only {first.total + others} were loaded by this "
            "application: find out who else writes to it. Another application that loads the same stream has every row a second time"
        )
        found(Verdict.FAILED, why)
    return result


@dataclass(slots=True)
class _Loaded:
    """What the log says is in a table: rows by the value of ``_shard``, and the chain of each. ``merged``: some are merged by key."""

    rows: Counter[str] = field(default_factory=Counter)
    chains: dict[str, str] = field(default_factory=dict)
    merged: bool = False

    @property
    def total(self) -> int:
        return sum(self.rows.values())


async def _loaded(table: LoaderParts, log: CommitLog, definitions: Definitions, positions: Mapping[str, int]) -> _Loaded:
    """The rows of ``table`` in the units of its chain that are loaded up to ``positions``.

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
        recorded = await definitions.pipeline(manifest.pipeline)
        sink = next((each for each in recorded.sinks if is_same_table(each, table.config)), None)
        if sink is None:
            return
        shard_id, _ = shard_of_chain(chain)
        label = f"{table.stream}/{shard_id}" if recorded.source.kinesis.streams else shard_id
        result.rows[label] += sum(file.rows for file in manifest.files if file.sink == sink.name)
        result.chains[label] = chain
        result.merged |= bool(getattr(sink, "keys", ()))

    await run_concurrently([one(chain, position) for chain, position in positions.items()], AT_ONCE)
    return result
