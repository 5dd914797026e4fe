"""Keeps readiness and liveness in step with the shards: what needs a person makes the worker not ready, and nothing in between flaps."""

from __future__ import annotations

from typing import Final

from stream import events
from stream.metrics.server import Health
from stream.metrics.standstill import GoingOn

NO_ACCESS: Final = (
    "other workers have taken shards of this one, to which access is refused, or to which nothing answers: `shard_halted` and "
    "`call_repeated` in its log name the call; `stream doctor` in this pod tries all of them"
)
"""Why a worker is not ready to which nothing is halted any more."""


DEAD_SECONDS: Final = 600.0
"""Seconds after which a process is to be restarted in which a call of a file system has not returned, as a shard that stalls is: a new pod
may be placed on another node, and mounts anew."""


class Readiness:
    """An ``Emit`` that changes ``health``. Call it from the event loop only."""

    def __init__(self, health: Health) -> None:
        self._health = health
        self._goes_on = GoingOn()
        self._dead: dict[str, str] = {}
        """Stores that have not answered for so long that the process is to be restarted, and why."""

    def __call__(self, event: events.Event) -> None:
        """Note what ``event`` changes."""
        if self._goes_on(event):
            self._health.clear(f"shard {event.stream}/{event.shard}")
        self._of_shards(event)
        self._of_streams(event)
        self._of_stores(event)

    def _of_shards(self, event: events.Event) -> None:
        match event:
            case events.ShardHalted(stream, shard, reason):
                self._health.block(f"shard {stream}/{shard}" if shard else f"stream {stream}", reason)
            case events.ShardPaused(stream, shard):
                self._health.clear(f"shard {stream}/{shard}")
            case events.ShardReleased(stream, shard, _) | events.ShardEnded(stream, shard, _):
                self._health.clear(f"shard {stream}/{shard}")
                self._health.clear(f"export {stream}/{shard}")
            case events.ShardStalled(stream, shard, seconds):
                self._health.fault = f"shard {stream}/{shard} has not moved for {seconds:.0f} s, and nothing is known to hold it up"
            case events.ExportHalted(stream, shard, _, reason, _, True):
                self._health.block(f"export {stream}/{shard}", reason)
            case events.ExportResumed(stream, shard):
                self._health.clear(f"export {stream}/{shard}")
            case _:
                pass

    def _of_stores(self, event: events.Event) -> None:
        match event:
            case events.StoreHung(_, _, store, detail, seconds):
                self._health.block(f"store {store}", detail)
                if seconds >= DEAD_SECONDS:
                    self._dead[store] = self._health.fault = f"the store {store} does not answer: {detail}"
            case events.StoreAnswered(_, _, store):
                self._health.clear(f"store {store}")
                if self._health.fault is not None and self._health.fault == self._dead.pop(store, None):
                    self._health.fault = next(iter(self._dead.values()), None)
            case _:
                pass

    def _of_streams(self, event: events.Event) -> None:
        match event:
            case events.StreamResumed(stream):
                self._health.clear(f"stream {stream}")
            case events.QueueFailed(stream, _, detail):
                self._health.block(f"queue of {stream}", detail)
            case events.QueueAnswered(stream, _):
                self._health.clear(f"queue of {stream}")
            case events.LeaseDropped(stream, _, "refused"):
                self._health.block(f"access of {stream}", NO_ACCESS)
            case events.ManifestSealed(stream):
                self._health.clear(f"access of {stream}")
            case events.DrainStarted():
                self._health.block("worker", "draining")
            case _:
                pass
