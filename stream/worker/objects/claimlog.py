"""The claims of a watched source, followed as they grow: what is claimed, and which objects were appended to which shard.

Only the digests of claimed objects stay in memory. The objects that are still to be read are in the claims, which are read again when a
shard comes to them; a claim that holds a shard's position is found by bisection, since what was appended never shrinks.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from stream.commit.claims import Claims
from stream.concurrency import run_concurrently
from stream.contracts import ObjectStore, RangedStore
from stream.errors import Halted
from stream.source.object_formats import Layout
from stream.source.objects import ObjectPiece, PinnedObject
from stream.worker.objects.claimed import FAN, LEVELS, Block, Claimed, block_key, joined, last_of
from stream.worker.objects.slice import Slice

_KEPT: Final = 16
"""Claims kept in memory, of a thousand objects at most: the shards of a worker read about the same ones at the same time."""

_READ_AT_ONCE: Final = 16


class ClaimLog:
    """The claims under ``name`` in ``state``; ``url`` is what the source's keys are relative to.

    ``last`` is the number of the last known claim, ``ends`` how many objects have been appended to each shard, ``bounded`` the numbers of
    the claims that have shards of their own. Use it from one event loop.
    """

    def __init__(self, state: ObjectStore, name: str, url: str) -> None:
        self._state = state
        self._name = name
        self._url = url
        self._claims = Claims(state, name, Slice)
        self.last = 0
        self.ends: tuple[int, ...] = ()
        self.bounded: list[int] = []
        self.claimed = Claimed()
        self.changed = asyncio.Event()
        """Set whenever a claim becomes known; whoever waits for one clears it."""
        self._kept: OrderedDict[int, Slice] = OrderedDict()
        self._tail: list[Block] = []
        self._lock = asyncio.Lock()
        """Held while claims become known, each of them once and in order."""

    async def open(self, *, write_blocks: bool) -> None:
        """Learn all claims that there are. With ``write_blocks``, sum up those that nobody has summed up yet.

        Raises:
            Halted: a claim is missing or unreadable.
        """
        await self._open_blocks()
        async for number, claim in self._claims.after(self.last):
            await self._learn(number, claim, write_blocks=write_blocks)

    async def follow(self, *, write_blocks: bool = True) -> None:
        """Learn the claims that others have appended since: one request if there is none. ``write_blocks`` as for ``open``."""
        async with self._lock:
            await self._follow(write_blocks=write_blocks)

    async def _follow(self, *, write_blocks: bool = True) -> None:
        while (claim := await self._claims.read(self.last + 1)) is not None:
            await self._learn(self.last + 1, claim, write_blocks=write_blocks)

    async def append(self, choose: Callable[[], Slice | None]) -> Slice | None:
        """Append the claim that ``choose`` makes from what is known now; returns it, or None if ``choose`` returned None.

        ``choose`` is called again whenever another worker has appended one first. What it returns must differ from every other worker's.

        Raises:
            Retryable: it is not known whether the claim was appended; calling again finds out.
        """
        async with self._lock:
            while (claim := choose()) is not None:
                if await self._claims.create(self.last + 1, claim):
                    await self._learn(self.last + 1, claim, write_blocks=True)
                    return claim
                await self._follow()
            return None

    async def slices(self, numbers: Sequence[int]) -> list[Slice]:
        """The claims with these numbers."""
        found: dict[int, Slice] = {}

        async def read(number: int) -> None:
            found[number] = await self._claim(number)

        await run_concurrently([read(number) for number in numbers], _READ_AT_ONCE)
        return [found[number] for number in numbers]

    async def appended(self, shard: int, piece: int, hint: int) -> tuple[int, Sequence[PinnedObject]]:
        """The claim that appended the object number ``piece`` (from 1) to ``shard`` (from 1), and the objects of it from that one on.

        ``hint``: the number of a claim, not after that one, from which to look. The result is ``(hint, ())`` if it is not appended yet.
        """
        if shard > len(self.ends) or piece > self.ends[shard - 1]:
            return hint, ()
        number = max(1, hint)
        claim = await self._claim(number)
        if claim.end(shard) < piece:
            number = await self._bisect(shard, piece, number)
            claim = await self._claim(number)
        return number, claim.objects_of(shard)[piece - claim.begin(shard) - 1 :]

    async def _bisect(self, shard: int, piece: int, before: int) -> int:
        """The first claim after ``before`` with which ``shard`` has at least ``piece`` objects. The next one is tried first."""
        low, high, step = before + 1, self.last, 1
        while low < high:
            middle = min(low + step - 1, high) if step else (low + high) // 2
            if (await self._claim(middle)).end(shard) >= piece:
                high, step = middle, 0
            else:
                low, step = middle + 1, step * 4
        return low

    async def _claim(self, number: int) -> Slice:
        if (kept := self._kept.get(number)) is not None:
            self._kept.move_to_end(number)
            return kept
        claim = await self._claims.read(number)
        if claim is None:
            msg = (
                f"the claim {self._claims.key(number)} under {self._state.url} is missing: restore it. What it claimed cannot be read "
                "until then"
            )
            raise Halted(msg)
        self._keep(number, claim)
        return claim

    def _keep(self, number: int, claim: Slice) -> None:
        self._kept[number] = claim
        if len(self._kept) > _KEPT:
            self._kept.popitem(last=False)

    # --- what is claimed --------------------------------------------------------------------------------------------------

    async def _learn(self, number: int, claim: Slice, *, write_blocks: bool) -> None:
        own = claim.url == self._url
        keys, versions = self.claimed.add(claim.under(self._url))
        bounded, others = (number,) if claim.bounds else (), () if own else (number,)
        self._tail.append(Block(self._url, keys if own else b"", versions if own else b"", bounded, others))
        if claim.bounds:
            self.bounded.append(number)
        if claim.appended:
            self.ends = tuple(end for _, end in claim.appended)
        self._keep(number, claim)
        self.last = number
        self.changed.set()
        if number % FAN == 0:
            tail, self._tail = self._tail, []
            if write_blocks and len(tail) == FAN:
                await self._sum_up(tail)

    async def _sum_up(self, tail: Sequence[Block]) -> None:
        """Write the block of the claims up to ``last``, and that of the next level if it is due."""
        await self._write(1, joined(tail))
        if self.last % FAN**2 == 0:
            lasts = range(self.last - FAN**2 + FAN, self.last + 1, FAN)
            blocks = [block for last in lasts if (block := await self._read_block(block_key(self._name, 1, last))) is not None]
            if len(blocks) == FAN:
                await self._write(2, joined(blocks))

    async def _write(self, level: int, block: Block) -> None:
        await self._state.put(block_key(self._name, level, self.last), msgspec.msgpack.encode(block))

    async def _open_blocks(self) -> None:
        """Learn what blocks say, the largest first, up to the first claim that none of them holds."""
        for level in range(LEVELS, 0, -1):
            size, folder = FAN**level, f"claimed/{self._name}/{level}/"
            after = block_key(self._name, level, self.last) if self.last else ""
            due = self.last
            keys = []
            async for info in self._state.list(folder, after):
                if last_of(info.key) == due + size:
                    keys.append(info.key)
                    due += size
            blocks: dict[str, Block | None] = {}

            async def read(key: str, into: dict[str, Block | None] = blocks) -> None:
                into[key] = await self._read_block(key)

            await run_concurrently([read(key) for key in keys], _READ_AT_ONCE)
            for key in keys:
                block = blocks[key]
                if block is None:
                    break
                self.claimed.add_block(block)
                self.bounded += block.bounded
                for number in block.others:
                    self.claimed.add((await self._claim(number)).under(self._url))
                self.last = last_of(key)
        if self.last:
            self.ends = tuple(end for _, end in (await self._claim(self.last)).appended)

    async def _read_block(self, key: str) -> Block | None:
        """The block under ``key`` if it can be used: it is only a summary, so a missing or foreign one costs time and nothing else."""
        stored = await self._state.get(key)
        if stored is None:
            return None
        try:
            block = msgspec.msgpack.decode(stored.body, type=Block)
        except msgspec.MsgspecError:
            return None
        return block if block.url == self._url else None


class Pieces:
    """``growing.Appended`` over a claim log: the objects of ``store``, read by ``layout``. ``least``: shards that exist in any case."""

    def __init__(self, log: ClaimLog, store: RangedStore, layout: Layout, least: int) -> None:
        self._log = log
        self._store = store
        self._layout = layout
        self._least = least
        self._seen: dict[int, tuple[int, int]] = {}
        """By shard, the piece that was asked for last and the number of its claim."""

    def shards(self) -> int:
        """See ``growing.Appended``."""
        return max(self._least, len(self._log.ends))

    def end(self, shard: int) -> int:
        """See ``growing.Appended``."""
        return self._log.ends[shard - 1] if shard <= len(self._log.ends) else 0

    async def pieces(self, shard: int, piece: int) -> Sequence[ObjectPiece]:
        """See ``growing.Appended``."""
        last, number = self._seen.get(shard, (0, 1))
        number, found = await self._log.appended(shard, piece, number if piece >= last else 1)
        self._seen[shard] = piece, number
        return [ObjectPiece(self._store, item, self._layout) for item in found]

    async def wait(self, seconds: float) -> None:
        """See ``growing.Appended``."""
        self._log.changed.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._log.changed.wait()
        except TimeoutError:
            return

    async def follow(self) -> None:
        """See ``growing.Appended``."""
        await self._log.follow(write_blocks=False)
