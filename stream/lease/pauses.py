"""Where pauses are recorded: one small object in the state store that workers read, and a copy of every change, which is kept.

The object is replaced only by compare-and-swap, so two operators at once both get what they asked for. The next change first makes
sure that the copy of the previous change exists; so the history has no hole, although an operator's command may die at any moment.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final

import msgspec

from stream.concurrency import run_concurrently
from stream.contracts import ObjectStore
from stream.errors import Fatal, Retryable
from stream.lease.paused import Change, Pauses, held_at

FOLDER: Final = "pauses/"
NEWEST: Final = f"{FOLDER}newest.json"
"""The key of the newest change, which holds the pauses in force."""

CHANGES: Final = f"{FOLDER}changes/"
_DIGITS: Final = 6
READ_AT_ONCE: Final = 16

_ENCODER: Final = msgspec.json.Encoder(order="sorted")
_DECODER: Final = msgspec.json.Decoder(Change)


class PausesUnreadable(Fatal):
    """What is recorded is not what this build can read, so it is not known what is paused."""


class PauseRecord:
    """The pauses of one application. ``store``: its state."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def newest(self) -> Change | None:
        """The newest change; None if nothing was ever paused. One GET.

        Raises:
            PausesUnreadable: the object is not readable.
            Retryable: the store did not answer.
        """
        stored = await self._store.get(NEWEST)
        return None if stored is None else self._decoded(stored.body, NEWEST)

    async def in_force(self, now: datetime) -> Pauses:
        """The pauses that hold at ``now``; raises as ``newest``."""
        return held_at(await self.newest(), now)

    async def history(self) -> list[Change]:
        """Every change, oldest first; raises as ``newest``."""
        keys = [info.key async for info in self._store.list(CHANGES)]
        found: dict[int, Change] = {}

        async def read(key: str) -> None:
            if (stored := await self._store.get(key)) is not None:
                change = self._decoded(stored.body, key)
                found[change.number] = change

        await run_concurrently([read(key) for key in keys], READ_AT_ONCE)
        if (newest := await self.newest()) is not None:
            found[newest.number] = newest
        return [found[number] for number in sorted(found)]

    async def change(self, decide: Callable[[Change | None], Change | None]) -> Change | None:
        """Record the change that ``decide`` makes of the newest one, and return it; None if ``decide`` returned None.

        ``decide`` is called again whenever somebody else was faster. Raises as ``newest``; after ``Retryable``, the change may be recorded.
        """
        while True:
            stored = await self._store.get(NEWEST)
            newest = None if stored is None else self._decoded(stored.body, NEWEST)
            if stored is not None and newest is not None:
                await self._keep(newest.number, stored.body)
            change = decide(newest)
            if change is None:
                return None
            if newest is None:
                # Somebody may have deleted the object, to end all pauses, and not the history.
                change = msgspec.structs.replace(change, number=await self._last_number() + 1)
            body = _ENCODER.encode(change)
            try:
                made = self._store.create(NEWEST, body) if stored is None else self._store.replace(NEWEST, body, stored.etag)
                done = await made is not None
            except Retryable:
                found = await self._store.get(NEWEST)
                done = found is not None and found.body == body
            if done:
                await self._keep(change.number, body)
                return change

    async def _keep(self, number: int, body: bytes) -> None:
        await self._store.create(f"{CHANGES}{number:0{_DIGITS}d}.json", body)

    async def _last_number(self) -> int:
        numbers = [info.key.removeprefix(CHANGES).removesuffix(".json") async for info in self._store.list(CHANGES)]
        return max((int(number) for number in numbers if number.isdecimal()), default=0)

    def _decoded(self, body: bytes, key: str) -> Change:
        try:
            return _DECODER.decode(body)
        except msgspec.MsgspecError as error:
            msg = (
                f"{key} under {self._store.url}, which says what is paused, is not readable: {error}. Restore its previous version; or "
                "delete it, which ends all pauses"
            )
            raise PausesUnreadable(msg) from error
