"""Dead letters of a pipeline: which exist, which may be redriven, and the claims that ensure that each is redriven only once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import msgspec
import polars as pl

from stream.audit.objects import unit_of
from stream.batch import ARRIVAL, ATTEMPT, DATA, SEQUENCE, SHARD, SUBSEQUENCE
from stream.budget import ByteBudget
from stream.commit.claims import Claims
from stream.commit.lookup import last_starts
from stream.commit.manifest import decode
from stream.commit.naming import manifest_key
from stream.concurrency import run_concurrently
from stream.contracts import Clock, Emit, ObjectStore
from stream.errors import DefinitionError, Halted
from stream.pipeline.replay import RedriveBudget
from stream.sink import rejects
from stream.source.bounded import BoundedSource
from stream.source.dead_letters import ChosenRows, OpenObject, part_of, read_dead_letters, runs_of
from stream.transform.engine import OBJECT_UNREADABLE
from stream.transform.expressions import compile_expression
from stream.transform.stage import SchemaMismatch
from stream.worker.objects.finished_claims import FinishedClaims

READ_AT_ONCE: Final = 32
"""Small objects read at a time. A log of months has hundreds of thousands of them, and latency dominates."""
FILE: Final = "file"
LINE: Final = "line"
STATE: Final = "state"

WAITING: Final = "waiting"
CLAIMED: Final = "redriven"
EXHAUSTED: Final = "exhausted"

SCHEMA: Final = pl.Schema({**rejects.SCHEMA, FILE: pl.String(), LINE: pl.UInt32(), STATE: pl.String()})
"""Columns of the table: those of a rejects file, the letter's place, and ``state``: waiting, redriven (sent through again), exhausted
(its budget of attempts or age is used up)."""


class Redrive(msgspec.Struct, frozen=True, omit_defaults=True):
    """Dead letters that are redriven together. ``worker`` and ``claimed_at`` tell claims apart.

    With ``link``, a rewind that is about to create that link of the log, and to go back to ``target``, has claimed all letters of the
    rejects files ``keys``, so that none of them is redriven; nor is a file of what it takes back compacted. It claims nothing any more once
    something else is in the place of the link.
    """

    files: tuple[ChosenRows, ...]
    records: int
    where: str
    worker: str
    claimed_at: str
    link: str = ""
    keys: tuple[str, ...] = ()
    target: str = ""


def chain_name(stream: str) -> str:
    """The name under which the commit log keeps the redrives of ``stream``. Its shards have names that no stream's shards have."""
    return f"dlq.{stream}"


@dataclass(frozen=True, slots=True)
class DeadLetters:
    """The dead letters of one stream. ``state`` is the application's store, ``store`` that of its rejects files.

    ``open_object``: how to read again what could not be read of objects; None if the pipeline reads none, or nothing is to be read.
    """

    stream: str
    state: ObjectStore
    store: ObjectStore
    budget: RedriveBudget
    clock: Clock
    open_object: OpenObject | None = None

    @property
    def claims(self) -> Claims[Redrive]:
        """Redrives so far."""
        return Claims(self.state, chain_name(self.stream), Redrive)

    async def table(self, *, contents: bool = True) -> pl.DataFrame:
        """Every dead letter in a sealed unit, with ``SCHEMA``, ordered by shard and position; those of redrives come last.

        Units that a rewind has taken back have none: their records are processed again. Without ``contents``, record data is null.
        """
        sealed = [key for stream in (self.stream, chain_name(self.stream)) for key in await self._sealed_files(stream)]
        gone = await self._taken_back(sealed)
        keys = [key for key in sealed if key not in gone]
        empty = SCHEMA.to_frame().drop(STATE)
        frames: dict[str, pl.DataFrame] = {}

        async def one(key: str) -> None:
            try:
                frame = await read_dead_letters(self.store, key, contents=contents)
            except Halted:
                if key in await self._taken_back([key]):
                    return
                raise
            lines = pl.int_range(frame.height, dtype=pl.UInt32, eager=True).alias(LINE)
            frames[key] = frame.with_columns(pl.lit(key).alias(FILE), lines).select(empty.columns)

        await run_concurrently((one(key) for key in keys), READ_AT_ONCE)
        whole = pl.concat([empty, *(frames[key] for key in keys if key in frames)])
        return with_state(whole, await self.claims.all(), self.budget, self.clock.now())

    async def redrive(self, where: str | None, limit: int | None, worker: str) -> tuple[int, int] | None:
        """Claim the waiting letters that ``where`` (an SQL expression over the table) selects. Returns number and size of the redrive.

        None if no letter is selected. Letters that another process claims at the same moment are left to it.

        Raises:
            DefinitionError: ``where`` is not a condition on the table's columns, or all that it selects is about to be taken back.
        """
        table = picked(await self.table(contents=needs_contents(where)), where).drop(DATA)

        async def choose(known: list[Redrive]) -> Redrive | None:
            now = self.clock.now()
            waiting = with_state(table.drop(STATE), known, self.budget, now).filter(pl.col(STATE) == WAITING)
            held = await self._held(known)
            # The table may be minutes old. A link that was created meanwhile is found here, and one that was not is still awaited above.
            gone = await self._taken_back(waiting[FILE].unique().to_list())
            waiting = waiting.filter(~pl.col(FILE).is_in(gone))
            free = waiting.filter(~pl.col(FILE).is_in(held))
            chosen = free if limit is None else free.head(limit)
            if chosen.is_empty() and waiting.height:
                msg = (
                    f"all {waiting.height:,} dead letters that would be redriven are about to be taken back by a rewind; try again. If it "
                    "was interrupted, run it again, or wait until a worker has committed the next unit of the shard"
                )
                raise DefinitionError(msg)
            if chosen.is_empty():
                return None
            is_object = (pl.col("stage") == rejects.SOURCE) & (pl.col("reason") == OBJECT_UNREADABLE)
            groups = chosen.filter(~is_object).group_by(FILE, maintain_order=True).agg(pl.col(LINE).sort())
            files = [ChosenRows(key, runs_of(rows)) for key, rows in groups.iter_rows()]
            files += [
                ChosenRows(key, ((row, row + 1),), is_object=True) for key, row in chosen.filter(is_object).select(FILE, LINE).iter_rows()
            ]
            return Redrive(tuple(files), chosen.height, where or "", worker, now.isoformat())

        number = await self.claims.claim(choose)
        return None if number is None else (number, (await self.claims.all())[number - 1].records)

    async def source(self, budget: ByteBudget, emit: Emit, finished: FinishedClaims | None = None) -> BoundedSource:
        """Every redrive so far that is not ``finished``, each as a shard."""
        parts = [
            [part_of(number, each.files, self.store, self.open_object)] if each.files else []
            for number, each in enumerate(await self.claims.all(), 1)
        ]
        if finished is not None:
            parts = parts[await finished.count(parts) :]
        left = [part for each in parts for part in each]
        return BoundedSource(chain_name(self.stream), left, budget=budget, clock=self.clock, emit=emit)

    async def _held(self, claims: Sequence[Redrive]) -> set[str]:
        """Rejects files that a rewind has claimed, which has neither created its link yet nor lost the place of it to a worker."""
        found: set[str] = set()

        async def check(claim: Redrive) -> None:
            if await self.state.get(claim.link) is None:
                found.update(claim.keys)

        await run_concurrently([check(claim) for claim in claims if claim.link], READ_AT_ONCE)
        return found

    async def _taken_back(self, keys: Sequence[str]) -> set[str]:
        """Those of the rejects files ``keys`` that a rewind removes, whether or not it has done so yet."""
        # A chain that was rewound ends with the link that lists what is removed.
        chains = {unit[0] for key in keys if (unit := unit_of(key, self.stream)) is not None}
        found: set[str] = set()

        async def check(chain: str) -> None:
            for after in await last_starts(self.state, self.stream, chain, 1):
                place = manifest_key(self.stream, chain, after)
                stored = await self.state.get(place)
                link = None if stored is None else decode(stored.body, place)
                if link is not None and link.target is not None:
                    found.update(file.key for file in link.superseded if file.sink == rejects.NAME)

        await run_concurrently([check(chain) for chain in chains], READ_AT_ONCE)
        return found

    async def _sealed_files(self, stream: str) -> list[str]:
        """Keys of rejects files that a sealed manifest lists."""
        found: list[tuple[tuple[str, int], str]] = []

        async def check(key: str, unit: tuple[str, int]) -> None:
            place = manifest_key(stream, *unit)
            stored = await self.state.get(place)
            manifest = None if stored is None else decode(stored.body, place)
            if manifest is not None and manifest.sealed and any((each.sink, each.key) == (rejects.NAME, key) for each in manifest.files):
                found.append((unit, key))

        listed = [(info.key, unit_of(info.key, stream)) async for info in self.store.list(f"{stream}/")]
        await run_concurrently((check(key, unit) for key, unit in listed if unit is not None), READ_AT_ONCE)
        return [key for _, key in sorted(found)]


def with_state(table: pl.DataFrame, claims: Sequence[Redrive], budget: RedriveBudget, now: datetime) -> pl.DataFrame:
    """``table`` with the column ``state``."""
    taken = pl.DataFrame(
        [(chosen.key, row) for claim in claims for chosen in claim.files for row in chosen.rows],
        schema={FILE: pl.String(), LINE: pl.UInt32()},
        orient="row",
    ).with_columns(pl.lit(value=True).alias("taken"))
    spent = (pl.col(ATTEMPT) >= _bound(table, {name: each.attempts for name, each in budget.stages.items()}, budget.attempts)) | (
        (pl.lit(now) - pl.col(ARRIVAL)).dt.total_milliseconds() / 1000
        > _bound(
            table,
            {name: each.age.total_seconds() if each.age else None for name, each in budget.stages.items()},
            budget.age.total_seconds(),
        )
    )
    state = pl.when(pl.col("taken")).then(pl.lit(CLAIMED)).when(spent).then(pl.lit(EXHAUSTED)).otherwise(pl.lit(WAITING))
    joined = table.join(taken, on=[FILE, LINE], how="left", maintain_order="left")
    return joined.with_columns(state.alias(STATE)).drop("taken")


def _bound(table: pl.DataFrame, stages: Mapping[str, float | None], otherwise: float) -> pl.Series:
    """For each letter, the bound of the stage or sink that refused it."""
    return pl.Series([float(stages.get(stage) or otherwise) for stage in table["stage"]], dtype=pl.Float64)


def needs_contents(where: str | None) -> bool:
    """Whether the condition ``where`` needs the records' bytes, which for a million letters may not fit into a pod."""
    return where is not None and DATA in where


def picked(table: pl.DataFrame, where: str | None) -> pl.DataFrame:
    """The rows of ``table`` for which the SQL expression ``where`` holds; all without one.

    Raises:
        DefinitionError: it is not a condition on the table's columns.
    """
    if where is None:
        return table
    try:
        condition, kind = compile_expression(where, table.schema)
    except SchemaMismatch as error:
        msg = f"--where: {error.message}" + (f" ({error.hint})" if error.hint else "")
        raise DefinitionError(msg) from error
    if kind != pl.Boolean:
        msg = f"--where: `{where}` is {kind}, not a condition; compare it with something, as in reason = 'json_syntax'"
        raise DefinitionError(msg)
    return table.filter(condition)


def top(table: pl.DataFrame) -> pl.DataFrame:
    """The causes, most frequent first: ``fingerprint``, ``cause``, ``stage``, ``reason``, ``records``, ``waiting``, ``first``, ``last``.

    ``example`` names the newest record of each, as `stream dlq show` and `stream trace` take it.
    """
    name = pl.format("{}:{}:{}", SHARD, SEQUENCE, SUBSEQUENCE)
    return (
        table.group_by("fingerprint", "cause", "stage", "reason")
        .agg(
            pl.len().alias("records"),
            (pl.col(STATE) == WAITING).sum().alias("waiting"),
            pl.col(ARRIVAL).min().alias("first"),
            pl.col(ARRIVAL).max().alias("last"),
            name.sort_by(ARRIVAL, SEQUENCE, SUBSEQUENCE, ATTEMPT).last().alias("example"),
        )
        .sort(["records", "fingerprint"], descending=[True, False])
    )


def place_of(letters: pl.DataFrame, shard: str | None, sequence: str, subsequence: int | None) -> pl.DataFrame:
    """The letters of one record, one per attempt, in order."""
    is_it = pl.col(SEQUENCE) == sequence
    if shard is not None:
        is_it &= pl.col(SHARD) == shard
    if subsequence is not None:
        is_it &= pl.col(SUBSEQUENCE) == subsequence
    return letters.filter(is_it).sort(ATTEMPT, maintain_order=True)
