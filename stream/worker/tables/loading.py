"""The loader: follows the commit log and loads sealed units into a table, many at a time, each exactly once.

It keeps no state that matters: how far each shard is loaded is in the load ledger, which changes in the same transaction as the table. So
after anything whose outcome is unknown (a lost reply, a crash, another loader) it reads the ledger and continues from there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from stream import events
from stream.contracts import Clock, Emit, ObjectStore
from stream.errors import Fatal, Halted, Retryable, unforeseen
from stream.lease.loader import Hold, LoaderLease, life_for
from stream.lease.paused import Pause
from stream.sink.layouts import Layout
from stream.sink.loads import Failure, Link, Load, choose, is_quiet, remaining
from stream.sink.redshift import COPY_MANIFESTS
from stream.sink.tables import TableSinkConfig
from stream.worker.tables.loadlog import LoadLog, LoadState, Parked
from stream.worker.tables.warehouse import LoadFailed, Warehouse

SHARDS_SECONDS: Final = 300.0
"""Seconds between listings of the shards. A new shard's first unit may wait this long."""

CLEAN_UP_SECONDS: Final = 3600.0
"""Seconds between searches for staged files that are old enough to be removed."""

KEEP_ACCOUNTS: Final = timedelta(days=7)
"""How long a record of what is loaded is kept after the next one is written, since somebody may restore older table metadata."""

BAD_LOADS: Final = 3
"""How often a single unit has to fail before its shard is parked, since a transient error of Redshift may look like a data error."""
BAD_LOAD_PAUSE: Final = 1.0
"""Seconds between these attempts."""

FINISH_SECONDS: Final = 5.0
"""Seconds for giving up the lease when a worker ends; an unresponsive store must not hold it up."""

REPORT_SECONDS: Final = 15.0
"""Seconds between two reports of how long units have been waiting while one attempt runs: a statement may wait for a lock for hours."""

LEFT_PAUSE: Final = 5.0
"""Seconds between attempts to load the remaining rows at the end of a run."""

_TRANSIENT: Final = {Failure.TRANSIENT, Failure.RACE}


@dataclass(frozen=True, slots=True)
class LoaderParts:
    """The collaborators of one loader. ``staging``: the store at the sink's URL. ``pause`` returns why an operator has paused the loads."""

    config: TableSinkConfig
    stream: str
    log: LoadLog
    state: LoadState
    warehouse: Warehouse
    staging: ObjectStore
    lease: LoaderLease
    clock: Clock
    emit: Emit
    pause: Callable[[], Pause | None] = lambda: None


@dataclass(frozen=True, slots=True)
class Waiting:
    """What was waiting to be loaded at ``moment`` (monotonic), the last successful look."""

    moment: float
    units: int = 0
    age: float = 0.0
    parked: int = 0


@dataclass(slots=True)
class Loader:
    """Loads one sink of one stream. ``step`` loads what is sealed now; ``run`` repeats it until cancelled."""

    parts: LoaderParts
    positions: dict[str, int] | None = None
    waiting: dict[str, tuple[Link, ...]] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    parked: dict[str, Parked] = field(default_factory=dict)
    fitted: set[Layout] = field(default_factory=set)
    listed_at: float | None = None
    cleaned_at: float | None = None
    needs_clean_up: bool = True
    reported: Waiting | None = None
    paused: Pause | None = None

    async def run(self) -> None:
        """Load until cancelled. Errors are reported and retried with the next ``step``; they never end the worker."""
        clock, config = self.parts.clock, self.parts.config
        while True:
            await self.attempt()
            await clock.sleep(config.every.total_seconds())

    async def attempt(self) -> bool:
        """Do one ``step``; returns whether it succeeded. Reports errors and, while it runs, how long units have been waiting."""
        reporting = asyncio.ensure_future(self._report_meanwhile())
        try:
            await self.step()
        except (Retryable, LoadFailed, Halted, Fatal) as error:
            self._forget()
            transient = isinstance(error, Retryable) or (isinstance(error, LoadFailed) and error.failure is not Failure.SETUP)
            self._emit_failure("transient" if transient else "setup", str(error))
        except Exception as error:  # noqa: BLE001 - an error in loading must not stop reading and sealing
            self._forget()
            self._emit_failure("unexpected", unforeseen(error))
        else:
            return True
        finally:
            reporting.cancel()
        self._report_worst_case()
        return False

    async def _report_meanwhile(self) -> None:
        never = asyncio.Event()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(REPORT_SECONDS):
                    await never.wait()
            self._report_worst_case()

    async def finish(self) -> None:
        """Give up the lease, so that another worker can load at once. Call it after ``run`` has been cancelled."""
        try:
            async with asyncio.timeout(FINISH_SECONDS):
                await self.parts.lease.give_up()
        except (Retryable, Fatal, TimeoutError) as error:
            self._emit_failure("transient", str(error) or "the loader's lease could not be given up in time; it ends by itself")

    async def complete(self) -> str:
        """Load everything that is sealed, or wait until another worker has. Returns why rows are left, or an empty text.

        For runs that end by themselves, after which no other worker may load the rest. Transient errors are retried for as long as a
        loader's lease lasts.
        """
        clock = self.parts.clock
        deadline = clock.monotonic() + life_for(self.parts.config.every).total_seconds()
        self._forget()
        while True:
            if (pause := self.parts.pause()) is not None:
                return str(pause)
            try:
                await self.step()
                await self._look()
                why, may_pass = self._left()
            except (Retryable, LoadFailed, Halted, Fatal) as error:
                self._forget()
                may_pass = isinstance(error, Retryable) or (isinstance(error, LoadFailed) and error.failure in _TRANSIENT)
                why = str(error)
            if not why or not may_pass or clock.monotonic() >= deadline:
                return why
            await clock.sleep(LEFT_PAUSE)

    def _left(self) -> tuple[str, bool]:
        """Why not everything that was seen is loaded (empty if it is), and whether waiting may help."""
        config, waiting = self.parts.config, {shard for shard, links in self.waiting.items() if any(link.files for link in links)}
        if choose(self._loadable(), config.units) is None:
            return "; ".join(self.parked[shard].reason for shard in sorted(waiting & self.parked.keys())), False
        if is_quiet(config.quiet, self.parts.clock.now()):
            return f"`quiet: {', '.join(config.quiet)}` (UTC) allows no loads now", False
        return f"another worker is loading the table {config.table} and has not finished", True

    async def step(self) -> None:
        """Load all that is sealed now, if this worker is the loader, no operator has paused it, and the time of day allows it.

        Raises:
            LoadFailed: a load failed for a reason that concerns all units; nothing of it is in the table.
            Retryable: the outcome of a call is unknown; the state must be read from the ledger again.
            Halted: the log cannot be understood.
            Fatal: a permission or a place is missing.
        """
        parts = self.parts
        if self._is_paused() or is_quiet(parts.config.quiet, parts.clock.now()):
            return
        if not await self._is_loader():
            return
        await self._look()
        self._report_waiting()
        while (load := choose(self._loadable(), parts.config.units)) is not None:
            await self._load(load)
            if self._is_paused() or not await self._is_loader():
                return
            await self._look()
            self._report_waiting()
        await self._clean_up()

    def _is_paused(self) -> bool:
        """Whether an operator has paused these loads. Says so when that changes, and how long units have been waiting."""
        parts, pause = self.parts, self.parts.pause()
        if pause is not None and pause != self.paused:
            until = pause.until.isoformat() if pause.until is not None else ""
            parts.emit(events.LoadsPaused(parts.stream, "", parts.config.name, pause.by, pause.note, until))
        elif pause is None and self.paused is not None:
            parts.emit(events.LoadsResumed(parts.stream, "", parts.config.name))
        self.paused = pause
        if pause is not None and self.reported is not None:
            self._report_worst_case()
        return pause is not None

    async def _is_loader(self) -> bool:
        hold = await self.parts.lease.take()
        if hold is not Hold.KEPT:
            self._forget()
        if hold is Hold.NO and self.reported is not None:
            # Another worker now reports what is waiting; the gauge of this one would otherwise keep its last value.
            self.reported = None
            self._emit_waiting(Waiting(self.parts.clock.monotonic()))
        return hold is not Hold.NO

    def _forget(self) -> None:
        """Read everything again at the next step: the ledger, the log, what is parked, the table's columns."""
        self.positions, self.listed_at = None, None
        self.waiting, self.ended, self.parked, self.fitted = {}, set(), {}, set()

    async def _look(self) -> None:
        parts = self.parts
        now = parts.clock.monotonic()
        if self.positions is None:
            self.positions = await parts.warehouse.positions()
        if self.listed_at is None or now - self.listed_at >= SHARDS_SECONDS:
            self.waiting = {shard: self.waiting.get(shard, ()) for shard in await parts.log.shards()}
            self.listed_at = now
        parked = await parts.state.parked()
        if self.parked.keys() - parked.keys():
            self.fitted.clear()  # whoever resumed a shard has corrected something, perhaps the table's columns
        self.parked = parked
        self.waiting = await parts.log.look(self.waiting, self.positions, self.ended)

    def _loadable(self) -> dict[str, tuple[Link, ...]]:
        return {shard: links for shard, links in self.waiting.items() if shard not in self.parked}

    async def _load(self, load: Load) -> None:
        """Load all of ``load`` except units that the table refuses, whose shards are parked."""
        parts, started = self.parts, self.parts.clock.monotonic()
        try:
            if load.layout is not None and load.layout not in self.fitted:
                await parts.warehouse.fit(load.layout)
                self.fitted.add(load.layout)
            await parts.warehouse.load(load)
        except LoadFailed as error:
            if error.failure is not Failure.DATA:
                raise
            await self._isolate(load, error)
            return
        self._done(load, started)

    async def _isolate(self, load: Load, error: LoadFailed) -> None:
        """Find the units that make a load fail by halving it; load the others."""
        if len(load.links) > 1:
            first, second = load.halves()
            await self._load(first)
            rest = second.without(self.parked.keys())
            if rest.links:
                await self._load(rest)
            return
        for _ in range(BAD_LOADS - 1):
            await self.parts.clock.sleep(BAD_LOAD_PAUSE)
            try:
                await self.parts.warehouse.load(load)
            except LoadFailed as again:
                if again.failure is not Failure.DATA:
                    raise
                error = again
            else:
                self._done(load, self.parts.clock.monotonic())
                return
        await self._park(load.links[0], str(error))

    async def _park(self, link: Link, why: str) -> None:
        parts = self.parts
        names = ", ".join(file.url for file in link.files) or "no file"
        reason = (
            f"the unit after {link.after} ({names}) cannot be loaded: {why}. The other shards go on. Make it loadable (change the table, "
            "or restore the file from a version in the bucket), then run `stream loads retry`."
        )
        self.parked[link.shard] = Parked(str(link.after), reason, parts.clock.now())
        await parts.state.park(link.shard, self.parked[link.shard])
        parts.emit(events.LoadParked(parts.stream, link.shard, parts.config.name, link.after, reason))

    def _done(self, load: Load, started: float) -> None:
        parts = self.parts
        units, seconds = sum(link.links for link in load.links), parts.clock.monotonic() - started
        lag = self._age(load.links)
        parts.emit(events.UnitsLoaded(parts.stream, "", parts.config.name, units, load.rows, load.bytes, lag, seconds))
        positions = self.positions if self.positions is not None else {}
        for link in load.links:
            positions[link.shard] = link.last
        self.positions, self.waiting, self.needs_clean_up = positions, remaining(self.waiting, load), True

    def _report_waiting(self) -> None:
        """Report how much is waiting, and for how long the oldest has been; of a long backlog, only the part that was looked at."""
        links = [link for waiting in self.waiting.values() for link in waiting if link.files]
        self.reported = Waiting(self.parts.clock.monotonic(), len(links), self._age(links), len(self.parked))
        self._emit_waiting(self.reported)

    def _report_worst_case(self) -> None:
        """Report the worst case while it is unknown what is waiting: what was waiting at the last successful look has waited since."""
        now = self.parts.clock.monotonic()
        self.reported = self.reported or Waiting(now)
        self._emit_waiting(replace(self.reported, age=self.reported.age + now - self.reported.moment))

    def _emit_waiting(self, waiting: Waiting) -> None:
        parts = self.parts
        parts.emit(events.LoadsWaiting(parts.stream, "", parts.config.name, waiting.units, waiting.age, waiting.parked))

    def _age(self, links: list[Link] | tuple[Link, ...]) -> float:
        """Seconds since the first of ``links`` was sealed; 0 if there is none."""
        sealed = min((link.sealed_at for link in links if link.sealed_at), default="")
        return max(0.0, (self.parts.clock.now() - datetime.fromisoformat(sealed)).total_seconds()) if sealed else 0.0

    def _emit_failure(self, kind: str, detail: str) -> None:
        parts = self.parts
        parts.emit(events.LoadRefused(parts.stream, "", parts.config.name, kind, detail, parts.config.every.total_seconds()))

    async def _clean_up(self) -> None:
        """Remove staged files that were loaded long enough ago, and leftover COPY manifests.

        If the files belong to the table, only note that table maintenance may replace them from now on.
        """
        parts = self.parts
        now = parts.clock.monotonic()
        # Without a load in the meantime, do not query: that would wake a paused serverless workgroup.
        if not self.needs_clean_up or (self.cleaned_at is not None and now - self.cleaned_at < CLEAN_UP_SECONDS):
            return
        removed = await parts.state.removed()
        if parts.config.keeps_files:
            for shard, last in sorted((await parts.warehouse.positions()).items()):
                if removed.get(shard, 0) < last:
                    await parts.state.note_removed(shard, last)
            await parts.warehouse.forget(parts.clock.now() - KEEP_ACCOUNTS)
            self.cleaned_at, self.needs_clean_up = now, False
            return
        self.cleaned_at, self.needs_clean_up = now, False
        cutoff = parts.clock.now() - parts.config.staged_for
        for shard, last in sorted((await parts.warehouse.positions_before(cutoff)).items()):
            await self._remove(shard, removed.get(shard, 0), last)
        async for info in parts.staging.list(COPY_MANIFESTS):
            if parts.clock.now() - info.modified > timedelta(days=1):
                await parts.staging.delete(info.key)

    async def _remove(self, shard: str, position: int, last: int) -> None:
        parts = self.parts
        while position < last:
            keys, end = await parts.log.keys_between(shard, position, last, parts.staging.url)
            if end == position:
                return
            await parts.state.note_removed(shard, end)
            for key in keys:
                await parts.staging.delete(key)
            position = end


@dataclass(frozen=True, slots=True)
class Standing:
    """How far one shard is loaded. ``since``: when the first waiting unit was sealed; ``parked``: the reason, or empty."""

    shard: str
    loaded: int
    units: int
    rows: int
    since: str
    parked: str


async def standing(parts: LoaderParts) -> list[Standing]:
    """How far every shard is loaded, ascending, without loading anything; raises as ``Loader.step`` does."""
    positions, parked = await parts.warehouse.positions(), await parts.state.parked()
    waiting = await parts.log.look(dict.fromkeys(await parts.log.shards(), ()), positions, set())
    rows = []
    for shard, links in sorted(waiting.items()):
        full = [link for link in links if link.files]
        since = full[0].sealed_at if full else ""
        why = parked[shard].reason if shard in parked else ""
        rows.append(Standing(shard, positions.get(shard, 0), len(full), sum(link.rows for link in full), since, why))
    return rows


async def complete_all(loaders: Sequence[Loader], draining: asyncio.Event, why: str = "a signal came") -> list[str]:
    """Let each of ``loaders`` load what is sealed, until ``draining`` is set, which says ``why``. Returns why rows are left, by sink."""
    if not loaders:
        return []
    ending = asyncio.ensure_future(draining.wait())
    loading = [asyncio.ensure_future(loader.complete()) for loader in loaders]
    all_loaded = asyncio.gather(*loading)
    try:
        await asyncio.wait((ending, all_loaded), return_when=asyncio.FIRST_COMPLETED)
        reasons = all_loaded.result() if all_loaded.done() else [f"{why} before all was loaded"] * len(loading)
    finally:
        ending.cancel()
        all_loaded.cancel()
        await asyncio.gather(ending, *loading, return_exceptions=True)
    return [f"{loader.parts.config.name}: {reason}" for loader, reason in zip(loaders, reasons, strict=True) if reason]
