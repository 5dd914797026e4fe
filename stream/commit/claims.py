"""An append-only list of what has been claimed for reading again. Each claim is one object, which is created once and never changed.

To claim something, a process reads the whole list, leaves out what is claimed already, and creates the next entry. If another process was
faster, it starts over. So nothing is claimed twice, however many processes run. Each claim is then read as a shard with its own commit log.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final, Generic, TypeVar

import msgspec

from stream.concurrency import run_concurrently
from stream.contracts import ObjectStore
from stream.errors import Halted, Retryable

_DIGITS: Final = 6
_MORE_DIGITS: Final = 12
"""Digits of numbers beyond six; such names begin with a letter, so that they sort after the others."""

READ_AT_ONCE: Final = 16
READ_TOGETHER: Final = 64
"""Claims that are in memory at a time while all are read; one may name thousands of objects."""

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
        return [claim async for _, claim in self.after(0)]

    async def after(self, last: int) -> AsyncIterator[tuple[int, ClaimT]]:
        """The claims whose number is greater than ``last``, with their numbers, ascending; a few hundred are in memory at a time.

        Raises:
            Halted: a claim is missing or unreadable, so what it claimed could be read twice.
        """
        names: list[str] = []
        async for info in self._store.list(self._folder, self.key(last) if last else ""):
            names.append(info.key)
            if len(names) == READ_TOGETHER:
                async for each in self._read(last, names):
                    yield each
                last, names = last + len(names), []
        async for each in self._read(last, names):
            yield each

    async def _read(self, last: int, names: Sequence[str]) -> AsyncIterator[tuple[int, ClaimT]]:
        """The claims under ``names``, which should be those that follow number ``last``."""
        claims: dict[int, ClaimT] = {}

        async def read(number: int, key: str) -> None:
            claim = await self.read(number) if key == self.key(number) else None
            if claim is None:
                msg = (
                    f"the claim {self.key(number)} under {self._store.url} is missing, yet {key} is there: restore it. Nothing is "
                    "read again until then, because what it claimed could be read twice."
                )
                raise Halted(msg)
            claims[number] = claim

        await run_concurrently([read(number, key) for number, key in enumerate(names, last + 1)], READ_AT_ONCE)
        for number in sorted(claims):
            yield number, claims[number]

    async def read(self, number: int) -> ClaimT | None:
        """The claim with that number; None if there is none yet.

        Raises:
            Halted: it is unreadable.
        """
        stored = await self._store.get(self.key(number))
        return None if stored is None else self._decoded(stored.body, self.key(number))

    async def create(self, number: int, claim: ClaimT) -> bool:
        """Append ``claim`` as ``number``, which must follow the last one; False if another process has appended one with that number.

        Raises:
            Retryable: it is not known whether it was appended.
        """
        body = msgspec.json.encode(claim, order="sorted")
        try:
            return await self._store.create(self.key(number), body) is not None
        except Retryable:
            stored = await self._store.get(self.key(number))
            if stored is None:
                raise
            return stored.body == body

    async def claim(self, choose: Callable[[list[ClaimT]], Awaitable[ClaimT | None]]) -> int | None:
        """Append the claim that ``choose`` makes from all earlier ones. Returns its number, or None if ``choose`` returned None.

        ``choose`` is called again whenever another process appended first. What it returns must differ from every other process's claim.
        """
        while True:
            claims = await self.all()
            chosen = await choose(claims)
            if chosen is None:
                return None
            number = len(claims) + 1
            with suppress(Retryable):
                if await self.create(number, chosen):
                    return number

    def key(self, number: int) -> str:
        """Where the claim with that number is kept; keys sort like numbers."""
        name = f"{number:0{_DIGITS}d}" if number < 10**_DIGITS else f"x{number:0{_MORE_DIGITS}d}"
        return f"{self._folder}{name}.json"

    @property
    def _folder(self) -> str:
        return f"claims/{self._stream}/"

    def _decoded(self, body: bytes, key: str) -> ClaimT:
        try:
            return msgspec.json.decode(body, type=self._kind)
        except msgspec.MsgspecError as error:
            msg = f"the claim {key} under {self._store.url} is not readable: {error}. Restore its previous version first."
            raise Halted(msg) from error
