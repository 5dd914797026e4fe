"""The loader: follows the commit log and loads sealed units into a table, many at a time, each exactly once.

It keeps no state that matters: how far each shard is loaded is in the load ledger, which changes in the same transaction as the table. So
after anything whose outcome is unknown (a lost reply, a crash, another loader) it reads the ledger and continues from there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from stream import events
from stream.batch import ORIGIN
from stream.errors import Fatal, Halted, Retryable, unforeseen
from stream.lease.loader import Hold, life_for
from stream.lease.paused import Pause
from stream.sink.layouts import Layout
from stream.sink.loads import Failure, Link, Load, choose, is_quiet, remaining
from stream.worker.tables.clean_up import CleanUp
from stream.worker.tables.loadlog import Parked
from stream.worker.tables.parts import LoaderParts
from stream.worker.tables.reports import LoadReports, age_of
from stream.worker.tables.warehouse import LoadFailed

SHARDS_SECONDS: Final = 300.0
"""Seconds between listings of the shards. A new shard's first unit may wait this long."""

BAD_LOADS: Final = 3
"""How often a single unit has to fail before its shard is parked, since a transient error of Redshift may look like a data error."""
BAD_LOAD_PAUSE: Final = 1.0
"""Seconds between these attempts."""

FINISH_SECONDS: Final = 5.0
"""Seconds for giving up the lease when a worker ends; an unresponsive store must not hold it up."""

LEFT_PAUSE: Final = 5.0
"""Seconds between attempts to load the remaining rows at the end of a run."""

FIRST_PARKED: Final = 300.0
LONGEST_PARKED: Final = 1800.0
"""Seconds before a parked shard is tried again, doubled each time from the first to the longest. Each time costs one load of one unit, and
may wake a workgroup that sleeps."""

_TRANSIENT: Final = {Failure.TRANSIENT, Failure.RACE}


class Loader:
    """Loads one sink of one stream. ``step`` loads what is sealed now; ``run`` repeats it until cancelled.

    ``ended``: shards that are loaded to their end, as far as the log was followed.
    """

    def __init__(self, parts: LoaderParts) -> None:
        self.parts = parts
        self.ended: set[str] = set()
        self._reports = LoadReports(parts)
        self._clean_up = CleanUp(parts)
        self._paused: Pause | None = None
        self._retries: dict[str, tuple[float, float]] = {}
        """For parked shards: when each is tried again, and how many seconds later once more."""
        # What `_forget` resets.
        self._positions: dict[str, int] | None = None
        self._listed_at: float | None = None
        self._waiting: dict[str, tuple[Link, ...]] = {}
        self._parked: dict[str, Parked] = {}
        self._fitted: set[Layout] = set()

    async def run(self) -> None:
        """Load until cancelled. Errors are reported and retried with the next ``step``; they never end the worker."""
        clock, config = self.parts.clock, self.parts.config
        while True:
            await self.attempt()
            await clock.sleep(config.every.total_seconds())

    async def attempt(self) -> bool:
        """Do one ``step``; returns whether it succeeded. Reports errors and, while it runs, how long units have been waiting."""
        reporting = asyncio.ensure_future(self._reports.repeat_worst_case())
        try:
            await self.step()
        except (Retryable, LoadFailed, Halted, Fatal) as error:
            self._forget()
            transient = isinstance(error, Retryable) or (isinstance(error, LoadFailed) and error.failure is not Failure.SETUP)
            self._reports.failure("transient" if transient else "setup", str(error))
        except Exception as error:  # noqa: BLE001 - an error in loading must not stop reading and sealing
            self._forget()
            self._reports.failure("unexpected", unforeseen(error))
        else:
            return True
        finally:
            reporting.cancel()
        self._reports.worst_case()
        return False

    async def finish(self) -> None:
        """Give up the lease, so that another worker can load at once. Call it after ``run`` has been cancelled."""
        try:
            async with asyncio.timeout(FINISH_SECONDS):
                await self.parts.lease.give_up()
        except (Retryable, Fatal, TimeoutError) as error:
            self._reports.failure("transient", str(error) or "the loader's lease could not be given up in time; it ends by itself")

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
                await self._read()
                why, may_pass = self._left()
            except (Retryable, LoadFailed, Halted, Fatal) as error:
                self._forget()
                may_pass = isinstance(error, Retryable) or (isinstance(error, LoadFailed) and error.failure in _TRANSIENT)
                why = str(error)
                if may_pass:
                    self._reports.failure("transient", why, LEFT_PAUSE)
            if not why or not may_pass or clock.monotonic() >= deadline:
                return why
            await clock.sleep(LEFT_PAUSE)

    def _left(self) -> tuple[str, bool]:
        """Why not everything that was seen is loaded (empty if it is), and whether waiting may help."""
        config, waiting = self.parts.config, {shard for shard, links in self._waiting.items() if any(link.files for link in links)}
        if choose(self._loadable(), config.units) is None:
            return "; ".join(self._parked[shard].reason for shard in sorted(waiting & self._parked.keys())), False
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
        await self._read()
        self._report()
        while (load := (again := self._due_again()) or choose(self._loadable(), parts.config.units)) is not None:
            await (self._load(load) if again is None else self._load_again(load))
            if self._is_paused() or not await self._is_loader():
                return
            await self._read()
            self._report()
        await self._clean_up.run()

    def _due_again(self) -> Load | None:
        """The unit of a parked shard that is to be tried again now, by itself; None if there is none."""
        now = self.parts.clock.monotonic()
        self._retries = {shard: known for shard, known in self._retries.items() if shard in self._parked}
        for shard in sorted(shard for shard, parked in self._parked.items() if parked.after):
            due, _ = self._retries.setdefault(shard, (now, FIRST_PARKED))
            if now >= due and (load := choose({shard: self._waiting.get(shard, ())}, 1)) is not None:
                return load
        return None

    async def _load_again(self, load: Load) -> None:
        """Load the unit of a parked shard. What the table refuses about it alone does not stop the others."""
        self._fitted.clear()
        try:
            await self._load(load)
        except LoadFailed as error:
            if error.failure is not Failure.SETUP:
                raise
            await self._park(load.links[0], str(error))

    def _is_paused(self) -> bool:
        """Whether an operator has paused these loads. Says so when that changes, and how long units have been waiting."""
        parts, pause = self.parts, self.parts.pause()
        if pause is not None and pause != self._paused:
            until = pause.until.isoformat() if pause.until is not None else ""
            parts.emit(events.LoadsPaused(parts.stream, "", parts.config.name, pause.by, pause.note, until))
        elif pause is None and self._paused is not None:
            parts.emit(events.LoadsResumed(parts.stream, "", parts.config.name))
            self._forget()  # loads are paused, among other reasons, to roll the table back
        self._paused = pause
        if pause is not None and self._reports.last is not None:
            self._reports.worst_case()
        return pause is not None

    async def _is_loader(self) -> bool:
        hold = await self.parts.lease.take()
        if hold is not Hold.KEPT:
            self._forget()
        if hold is Hold.NO:
            self._reports.stop()
        return hold is not Hold.NO

    def _forget(self) -> None:
        """Read everything again at the next step: the ledger, the log, what is parked, the table's columns."""
        self._positions, self._listed_at = None, None
        self._waiting, self.ended, self._parked, self._fitted = {}, set(), {}, set()

    def _report(self) -> None:
        self._reports.waiting([link for links in self._waiting.values() for link in links if link.files], len(self._parked))

    async def _read(self) -> None:
        """Read what is sealed, loaded and parked now."""
        parts = self.parts
        now = parts.clock.monotonic()
        if self._positions is None:
            self._positions = await parts.warehouse.positions()
        if self._listed_at is None or now - self._listed_at >= SHARDS_SECONDS:
            self._waiting = {shard: self._waiting.get(shard, ()) for shard in await parts.log.shards()}
            self._listed_at = now
        parked = await parts.state.parked()
        for shard in [each for each, note in parked.items() if note.is_over(self._positions.get(each, ORIGIN))]:
            # Another loader failed at the unit, and parked the shard after this one had loaded it.
            await parts.state.release(shard)
            del parked[shard]
        if self._parked.keys() - parked.keys():
            # Whoever resumed a shard has corrected something, perhaps the table's columns, which the other shards may have waited for too.
            self._fitted.clear()
            self._retries.clear()
        self._parked = parked
        self._waiting = await parts.log.read_on(self._waiting, self._positions, self.ended)

    def _loadable(self) -> dict[str, tuple[Link, ...]]:
        return {shard: links for shard, links in self._waiting.items() if shard not in self._parked}

    async def _load(self, load: Load) -> None:
        """Load all of ``load`` except units that the table refuses, whose shards are parked."""
        parts, started = self.parts, self.parts.clock.monotonic()
        try:
            if load.layout is not None and load.layout not in self._fitted:
                await parts.warehouse.fit(load.layout)
                self._fitted.add(load.layout)
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
            rest = second.without(self._parked.keys())
            if rest.links:
                await self._load(rest)
            return
        if load.layout is not None:
            # If somebody has altered the table since it was looked at, no unit is to blame.
            await self.parts.warehouse.fit(load.layout)
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
            f"the unit after {link.after} ({names}) cannot be loaded: {why}. The other shards continue. Make it loadable (change the "
            f"table, or restore the file from a version in the bucket).{await self._left_behind(link)} It is tried again by itself, after "
            f"five minutes, then less and less often, at last every half hour; `stream loads retry FILE --sink {parts.config.name}` has it "
            "tried at once."
        )
        now, (_, wait) = parts.clock.monotonic(), self._retries.get(link.shard, (0.0, FIRST_PARKED))
        self._retries[link.shard] = now + wait, min(2 * wait, LONGEST_PARKED)
        since = known.since if (known := self._parked.get(link.shard)) is not None and known.after == str(link.after) else parts.clock.now()
        self._parked[link.shard] = Parked(str(link.after), reason, since)
        await parts.state.park(link.shard, self._parked[link.shard])
        parts.emit(events.LoadParked(parts.stream, link.shard, parts.config.name, link.after, reason))

    async def _left_behind(self, link: Link) -> str:
        """What to do if the files of ``link`` were removed, since they had been loaded: into another table, or this one, made anew."""
        end = (await self.parts.state.removed()).get(link.shard, ORIGIN)
        how = self.parts.warehouse.passing_over(Link(link.shard, link.after, end)) if end >= link.last else ""
        if not how:
            return ""
        return (
            f" Files of this shard up to {end} were loaded before under the name of this sink, and then removed: into another table, or "
            f"into this one before it was made anew. If it need not have these rows, pass over them: {how}"
        )

    def _done(self, load: Load, started: float) -> None:
        parts = self.parts
        units, seconds = sum(link.links for link in load.links), parts.clock.monotonic() - started
        lag = age_of(load.links, parts.clock)
        parts.emit(events.UnitsLoaded(parts.stream, "", parts.config.name, units, load.rows, load.bytes, lag, seconds))
        positions = self._positions if self._positions is not None else {}
        for link in load.links:
            positions[link.shard] = link.last
        self._positions, self._waiting = positions, remaining(self._waiting, load)
        self._clean_up.needed = True


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
        for task in (ending, *loading):
            task.cancel()
        # Also `all_loaded`, whose error would otherwise be reported as one that nobody has seen.
        await asyncio.gather(ending, all_loaded, *loading, return_exceptions=True)
    return [f"{loader.parts.config.name}: {reason}" for loader, reason in zip(loaders, reasons, strict=True) if reason]
