"""What an operator has paused, as a worker sees it: it looks every few seconds, and keeps the shards that it must not read."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from stream import events
from stream.concurrency import run_concurrently
from stream.contracts import Clock, Emit, Shard
from stream.errors import Halted, LeaseLost, Retryable, StreamError
from stream.lease.paused import NONE, Change, Pause, Pauses, held_at, seconds_to_next_end
from stream.lease.pauses import PauseRecord

if TYPE_CHECKING:
    from stream.worker.parts import Parts

LOOK_SECONDS: Final = 5.0
"""Seconds between two looks at the recorded pauses: each is one GET, 17,280 a day for each worker."""

CALL: Final = "look for pauses"
"""The name of that call in events. Shards do not wait for it."""

LOOKS_AT_ONCE: Final = 16


class PauseWatch:
    """``now``: the pauses that hold for one worker. They change only at a look, which then calls ``listeners``.

    Look once before anything is read, so that nothing is read that is paused already; then either ``run``, or look again.
    """

    def __init__(self, record: PauseRecord, clock: Clock, emit: Emit) -> None:
        self.listeners: list[Callable[[], None]] = []
        self.now: Pauses = NONE
        self._record = record
        self._clock = clock
        self._emit = emit
        self._newest: Change | None = None

    async def look(self) -> None:
        """Look now: one GET.

        Raises:
            Fatal: what is recorded cannot be read.
            Retryable: the store did not answer; call it again.
        """
        self._newest = await self._record.newest()
        self._update()

    async def run(self) -> None:
        """Look now and then until cancelled. While a look fails, what was known last still counts, and pauses that end by themselves do."""
        while True:
            ends = seconds_to_next_end(self.now, self._clock.now())
            await self._clock.sleep(LOOK_SECONDS if ends is None else min(LOOK_SECONDS, max(0.0, ends)))
            try:
                self._newest = await self._record.newest()
            except StreamError as error:
                self._emit(events.CallRepeated("", "", CALL, str(error), LOOK_SECONDS))
            self._update()

    def loads(self, stream: str, sink: str) -> Pause | None:
        """As ``Pauses.loads``, of those that hold now."""
        return self.now.loads(stream, sink)

    def _update(self) -> None:
        found = held_at(self._newest, self._clock.now())
        if found != self.now:
            self.now = found
            for listener in tuple(self.listeners):
                listener()


@dataclass(slots=True)
class PausedShards:
    """The shards of one stream that its supervisor could work on, and does not because they are paused. ``shown``: by id, and why."""

    stream: str
    parts: Parts
    shown: dict[str, Pause] = field(default_factory=dict)

    async def hold_back(self, shard_ids: Collection[str]) -> set[str]:
        """Those of ``shard_ids`` that are paused now; none of them is being worked on. Announces what is paused or resumed since."""
        found = {each: pause for each in shard_ids if (pause := self.parts.pause_of(Shard(self.stream, each))) is not None}
        await run_concurrently(
            [self._announce(each, found[each]) for each in sorted(found) if self.shown.get(each) != found[each]], LOOKS_AT_ONCE
        )
        for each in sorted(self.shown.keys() - found.keys()):
            self.parts.emit(events.ShardResumed(self.stream, each))
        self.shown = found
        return set(found)

    def drop_lost(self, held: Collection[str]) -> None:
        """Forget shards whose lease another worker has now, which keeps them from being read in the same way."""
        for each in sorted(self.shown.keys() - held):
            del self.shown[each]
            self.parts.emit(events.ShardReleased(self.stream, each, "lease_lost"))

    async def _announce(self, shard_id: str, pause: Pause) -> None:
        now = self.parts.clock.now()
        committed = await committed_until(Shard(self.stream, shard_id), self.parts)
        behind = max(timedelta(), now - (committed or pause.since)).total_seconds()
        until = pause.until.isoformat() if pause.until is not None else ""
        self.parts.emit(events.ShardPaused(self.stream, shard_id, pause.by, pause.note, until, behind))


async def committed_until(shard: Shard, parts: Parts) -> datetime | None:
    """The time up to which everything that arrived in the shard is committed, as far as its checkpoint tells; None if it does not.

    Two reads. Records that are not committed arrived later, so none of them expires before a whole retention has passed since then.
    """
    try:
        hint = await parts.checkpoints.read(shard)
        if hint is None:
            return None
        entry = await parts.log.read(replace(shard, generation=hint.generation), hint.unit_after)
    except (Halted, LeaseLost, Retryable):
        # Only a metric is less exact for it.
        return None
    arrived = datetime.fromisoformat(entry.manifest.last_arrival) if entry is not None and entry.manifest.last_arrival else None
    return max((each for each in (hint.tip, arrived) if each is not None), default=None)
