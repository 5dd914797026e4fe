"""Claims objects of a watched source, and reports what is claimed and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from stream import events
from stream.aws.errors import AccessRefused
from stream.commit.retry import Repeater
from stream.contracts import Clock, Emit, ObjectInfo, RangedStore, Shard
from stream.worker.objects.choosing import claim_of, sort_out
from stream.worker.objects.claimlog import ClaimLog
from stream.worker.objects.slice import Slice

REPORTED: Final = 10_000
"""Changed objects that are remembered, so that each is reported once and not with every listing."""


@dataclass(frozen=True, slots=True)
class WatchSettings:
    """``stream``: the source's name. ``place``: bucket and prefix that notifications must name. ``every``: seconds between listings.

    ``hold``: the longest that a message waits for its claim, in seconds. ``shards``: how many shards objects are appended to. ``shared``:
    whether other workers read some of them.
    """

    stream: str
    place: tuple[str, str]
    every: float
    hold: float
    shards: int
    worker: str
    shared: bool = False


_GOES_ON: Final = "It is tried again every minute, and goes on by itself as soon as that works; nothing is lost until then"


class Claimer:
    """Claims objects of ``store`` in ``log``. An object that several workers or calls claim at once is claimed once."""

    def __init__(self, settings: WatchSettings, log: ClaimLog, store: RangedStore, clock: Clock, emit: Emit) -> None:
        self.waiting: dict[str, float] = {}
        """Keys that messages name and that wait for a claim, and since when (Unix time) each waits."""
        self._settings = settings
        self._log = log
        self._store = store
        self._clock = clock
        self._emit = emit
        self._repeat = Repeater(clock, emit)
        self._reported: set[tuple[str, str]] = set()
        self._halted: set[str] = set()
        """What access is refused to now."""

    async def claim(self, infos: Sequence[ObjectInfo]) -> Sequence[ObjectInfo]:
        """Claim those of ``infos`` that nobody has claimed. Returns those of which another version is claimed.

        Raises:
            Halted: a claim is unreadable.
        """
        if not infos:
            return ()
        oldest = min(info.modified for info in infos)
        self._tell(len(infos), min(self.waiting.values(), default=self._clock.now().timestamp()))

        def choose() -> Slice | None:
            fresh = sort_out(infos, self._log.claimed).fresh
            if not fresh:
                return None
            claim = claim_of(fresh, self._log.ends, self._settings.shards, self._log.last)
            now = self._clock.now().isoformat()
            return msgspec.structs.replace(claim, worker=self._settings.worker, claimed_at=now, url=self._store.url)

        claim = await self._repeat("claim objects", Shard(self._settings.stream, ""), lambda: self._log.append(choose))
        if claim is not None:
            size, age = sum(item.size for item in claim.objects), (self._clock.now() - oldest).total_seconds()
            self._emit(events.ObjectsClaimed(self._settings.stream, "", self._log.last, len(claim.objects), size, max(0.0, age)))
        self.tell_waiting()
        changed = sort_out(infos, self._log.claimed).changed
        self.refuse_changed(changed)
        return changed

    def refuse_changed(self, infos: Sequence[ObjectInfo]) -> None:
        """Report those of ``infos``, of which another version is claimed, that have not been reported yet."""
        for info in infos:
            if (known := (info.key, info.version)) in self._reported:
                continue
            if len(self._reported) < REPORTED:
                self._reported.add(known)
            what = f"the object {info.key} under {self._store.url} ({info.size} bytes, modified {info.modified.isoformat()})"
            self.refuse("changed", f"{what} is another version than the one that was claimed, and is not read: give it a key of its own")

    def refuse(self, why: str, detail: str) -> None:
        """Report that an object or a message is not used."""
        self._emit(events.ObjectRefused(self._settings.stream, "", why, detail))

    def halt(self, what: str, error: AccessRefused) -> None:
        """Report that access is refused to ``what`` is done to find objects; it is tried again."""
        self._halted.add(what)
        self._emit(events.ShardHalted(self._settings.stream, "", f"cannot {what}: {str(error).rstrip('.')}. {_GOES_ON}"))

    def go_on(self, what: str) -> None:
        """Report that ``what`` was done, if access to it was refused before."""
        if what in self._halted:
            self._halted.remove(what)
            if not self._halted:
                self._emit(events.StreamResumed(self._settings.stream, ""))

    def tell_waiting(self) -> None:
        """Report how many objects wait, and since when."""
        self._tell(len(self.waiting), min(self.waiting.values(), default=0.0))

    def _tell(self, objects: int, since: float) -> None:
        self._emit(events.ObjectsWaiting(self._settings.stream, "", objects, since))
