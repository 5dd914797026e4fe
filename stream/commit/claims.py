"""What has been claimed for reading again, in order: an append-only list of objects, each created once.

To claim something, a process reads the whole list, leaves out what is claimed already, and creates the next entry. If another process was
faster, it starts over. So nothing is claimed twice, whatever runs at the same time. The commit log does the rest: each claim is read as a
shard of its own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

import msgspec

from stream.contracts import ObjectStore
from stream.errors import Halted, Retryable

_DIGITS: Final = 6

ClaimT = TypeVar("ClaimT", bound=msgspec.Struct)


class Claims(Generic[ClaimT]):
    """The claims of one kind on one stream. ``kind`` is the type that their JSON encodes."""

    def __init__(self, store: ObjectStore, stream: str, kind: type[ClaimT]) -> None:
        self._store = store
        self._stream = stream
        self._kind = kind

    async def all(self) -> list[ClaimT]:
        """Every claim; the one at index n has the number n + 1.

        Raises:
            Halted: one is missing or cannot be read; without it something could be read twice.
        """
        found: list[ClaimT] = []
        async for info in self._store.list(f"claims/{self._stream}/"):
            number = len(found) + 1
            stored = await self._store.get(self._key(number)) if info.key == self._key(number) else None
            if stored is None:
                msg = (
                    f"the claim {self._key(number)} under {self._store.url} is missing, yet {info.key} is there: restore it. Nothing is "
                    "read again until then, because what it claimed could be read twice."
                )
                raise Halted(msg)
            found.append(self._decoded(stored.body, info.key))
        return found

    async def claim(self, choose: Callable[[list[ClaimT]], Awaitable[ClaimT | None]]) -> int | None:
        """Append the claim that ``choose`` makes, given all earlier ones; its number, or None if nothing was chosen.

        ``choose`` is called again whenever another claim came first. What it returns must differ from every other process's claim.
        """
        while True:
            known = await self.all()
            wanted = await choose(known)
            if wanted is None:
                return None
            body, number = msgspec.json.encode(wanted, order="sorted"), len(known) + 1
            try:
                if await self._store.create(self._key(number), body) is not None:
                    return number
            except Retryable:
                stored = await self._store.get(self._key(number))
                if stored is not None and stored.body == body:
                    return number

    def _key(self, number: int) -> str:
        return f"claims/{self._stream}/{number:0{_DIGITS}d}.json"

    def _decoded(self, body: bytes, key: str) -> ClaimT:
        try:
            return msgspec.json.decode(body, type=self._kind)
        except msgspec.MsgspecError as error:
            msg = f"the claim {key} under {self._store.url} is not readable: {error}. Restore its previous version first."
            raise Halted(msg) from error
