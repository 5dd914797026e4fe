"""When a shard that had halted is known to go on, for everything that shows people or probes that it stands still."""

from __future__ import annotations

from stream import events


class GoingOn:
    """Knows whether a shard moves again. Ask it about every event, in order. Callable from any thread.

    That it is started again is no sign of it: where access to the store is refused, reading works until the first unit is to be written.
    Whoever believed it would see the shard go on and halt again at each attempt. So a unit has to be sealed, or the shard be read to its
    tip without a record at which it could halt.
    """

    def __init__(self) -> None:
        self._received: set[tuple[str, str]] = set()
        """Shards of which records were received since they were started."""

    def __call__(self, event: events.Event) -> bool:
        """Whether ``event`` shows that its shard goes on, whatever it had halted for before."""
        where = event.stream, event.shard
        match event:
            case events.ShardStarted() | events.ShardReleased():
                self._received.discard(where)
                return False
            case events.PageReceived():
                if event.records:
                    self._received.add(where)
                return event.behind_ms == 0 and where not in self._received
            case events.UnitSealed() | events.ManifestSealed() | events.ShardEnded():
                return True
            case _:
                return False
