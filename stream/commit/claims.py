"""An append-only list of what has been claimed for reading again. Each claim is one object, which is created once and never changed.

To claim something, a process reads the whole list, leaves out what is claimed already, and creates the next entry. If another process was
faster, it starts over. So nothing is claimed twice, however many processes run. Each claim is then read as a shard with its own commit log.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

import msgspec

from stream.concurrency import run_concurrently
from stream.contracts import ObjectStore
from stream.errors import Halted, Retryable

_DIGITS: Final = 6

READ_AT_ONCE: Final = 16

ClaimT = TypeVar("ClaimT", bound=msgspec.Struct)


class Claims(Generic[ClaimT]):
    """The claims of one kind on one stream. ``kind`` is the struct type that their JSON encodes."""

    def __init__(self, store: ObjectStore, stream: str, kind: type[ClaimT]) -> None:
        self._store = store
        self._stream = stream
        self._kind = kind

    async def all(self) -> list[ClaimT]:
        """All claims; the one at index n has the number n + 1.

        Raises:
            Halted: a claim is missing or unreadable, so what it claimed could be read twice.
        """
        keys = [info.key async for info in self._store.list(f"claims/{self._stream}/")]
        claims: dict[int, ClaimT] = {}

        async def read(number: int, key: str) -> None:
            stored = await self._store.get(key) if key == self._key(number) else None
            if stored is None:
                msg = (
                    f"the claim {self._key(number)} under {self._store.url} is missing, yet {key} is there: restore it. Nothing is "
                    "read again until then, because what it claimed could be read twice."
                )
                raise Halted(msg)
            claims[number] = self._decoded(stored.body, key)

        await run_concurrently([read(number, key) for number, key in enumerate(keys, 1)], READ_AT_ONCE)
        return [claims[number] for number in sorted(claims)]

    async def claim(self, choose: Callable[[list[ClaimT]], Awaitable[ClaimT | None]]) -> int | None:
        """Append the claim that ``choose`` makes from all earlier ones. Returns its number, or None if ``choose`` returned None.

        ``choose`` is called again whenever another process appended first. What it returns must differ from every other process's claim.
        """
        while True:
            claims = await self.all()
            chosen = await choose(claims)
            if chosen is None:
                return None
            body, number = msgspec.json.encode(chosen, order="sorted"), len(claims) + 1
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
