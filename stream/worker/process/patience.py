"""When a run that ends by itself stops waiting for what does not answer: whoever started it waits for it, and has to be told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from stream import events
from stream.contracts import Clock
from stream.errors import Fatal

GIVE_UP_SECONDS: Final = 900.0
"""Seconds without any success after which such a run ends. A store that fails over, or a table that is throttled, is back before."""

_FRESH_SECONDS: Final = 120.0
"""Calls are repeated more often than that; if none was, the run is busy with something that only takes long."""
_LOOK_SECONDS: Final = 15.0
_MAX_SHOWN: Final = 10

_RESTART: Final = "run shard"

_SUCCESSES: Final = (
    events.FileWritten,
    events.ManifestSealed,
    events.Checkpointed,
    events.ShardEnded,
    events.ShardReleased,
    events.SpansExported,
    events.UnitsLoaded,
)


class Patience:
    """An ``Emit`` that knows for how long nothing has succeeded while calls are repeated. Callable from any thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since: float | None = None
        """When the first call was repeated after the last success."""
        self._last = 0.0
        self._waiting: dict[tuple[str, str], str] = {}
        self._restarted: set[tuple[str, str]] = set()
        """Shards that were restarted since their last seal: what they read, they have read before."""

    def __call__(self, event: events.Event) -> None:
        """Note a success, or a call that is repeated."""
        where = event.stream, event.shard
        match event:
            case events.CallRepeated(call=call, detail=detail):
                self._repeated(where, f"{call}: {detail}")
                if call == _RESTART:
                    self._restarted.add(where)
            case events.PollRepeated(detail=detail):
                self._repeated(where, f"read: {detail}")
            case events.PageReceived(records=records) if records and where not in self._restarted:
                self._succeeded(where)
            case _ if isinstance(event, _SUCCESSES):
                self._restarted.discard(where)
                self._succeeded(where)
            case _:
                pass

    def _repeated(self, where: tuple[str, str], what: str) -> None:
        self._last = self._clock.monotonic()
        self._since = self._last if self._since is None else self._since
        self._waiting[where] = what

    def _succeeded(self, where: tuple[str, str]) -> None:
        self._since = None
        self._waiting.pop(where, None)

    def judge(self) -> None:
        """Raise if the run is to end now.

        Raises:
            Fatal: nothing has succeeded for too long.
        """
        now = self._clock.monotonic()
        if self._since is None or now - self._since < GIVE_UP_SECONDS or now - self._last > _FRESH_SECONDS:
            return
        lines = [f"  {'/'.join(filter(None, where)) or 'all'} waits for {what}" for where, what in sorted(self._waiting.items())]
        more = [f"  and {len(lines) - _MAX_SHOWN:,} more"] if len(lines) > _MAX_SHOWN else []
        msg = (
            f"nothing of this run has succeeded for {now - self._since:.0f} s, so it ends without having read everything. Nothing is lost: "
            "repair what is named here, and run it again to continue:\n" + "\n".join(lines[:_MAX_SHOWN] + more)
        )
        raise Fatal(msg)

    @asynccontextmanager
    async def limiting(self, *, ends: bool) -> AsyncIterator[None]:
        """Cancel what is in the block once it is to end; without ``ends``, which says that the run ends by itself, never.

        Raises:
            ExceptionGroup: with the ``Fatal`` that says why.
        """
        if not ends:
            yield
            return
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(self._watch(), name="watch for an end of patience")
            yield
            watching.cancel()

    async def _watch(self) -> None:
        while True:
            asked = self._clock.monotonic()
            await self._clock.sleep(_LOOK_SECONDS)
            late = self._clock.monotonic() - asked - _LOOK_SECONDS
            if late > _LOOK_SECONDS and self._since is not None:
                self._since += late  # the process was frozen, and tried nothing
            self.judge()
