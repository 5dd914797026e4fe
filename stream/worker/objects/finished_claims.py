"""Which claims are finished, so that later runs need not look at each of them again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from stream.audit.export import stored_cursor
from stream.concurrency import run_concurrently
from stream.contracts import ObjectStore, Shard
from stream.lease.checkpoints import StoredCheckpoints
from stream.source.bounded import Part

AT_ONCE: Final = 16
TOGETHER: Final = 64
"""Claims that are checked at a time; the search ends with the first batch that has an unfinished one."""


class FinishedClaims:
    """Counts the finished claims of ``chain`` from the first on. ``state`` keeps the number as a hint, which may be too low.

    ``exported``: a claim is finished only once the collector has accepted its spans, too.
    """

    def __init__(self, state: ObjectStore, chain: str, *, exported: bool) -> None:
        self._state = state
        self._chain = chain
        self._exported = exported
        self._checkpoints = StoredCheckpoints(state)

    async def count(self, claims: Sequence[Sequence[Part]]) -> int:
        """The number of finished claims at the beginning of ``claims``, the complete list, each with its shards.

        The shards of claims that are ``noted`` as finished do not count, nor does a claim without shards.
        """
        noted = await self._read_note()
        known = noted.get(self._kind, 0)
        done = min(known, len(claims))
        while done < len(claims):
            some = claims[done : done + TOGETHER]
            ended = await self.ended([part.shard_id for parts in some for part in parts])
            all_ended = [all(part.shard_id in ended for part in parts) for parts in some]
            done += all_ended.index(False) if False in all_ended else len(some)
            if False in all_ended:
                break
        if done > known:
            await self._state.put(self._key, msgspec.json.encode({**noted, self._kind: done}))
        return done

    async def ended(self, shards: Sequence[str]) -> set[str]:
        """Those of ``shards`` in which nothing is left to do."""
        ended: set[str] = set()

        async def check(name: str) -> None:
            checkpoint = await self._checkpoints.read(Shard(self._chain, name))
            if checkpoint is None or checkpoint.position is not None:
                return
            if not self._exported or (await stored_cursor(self._state, self._chain, name)).ended:
                ended.add(name)

        await run_concurrently([check(name) for name in shards], AT_ONCE)
        return ended

    async def noted(self) -> int:
        """The number of finished claims as it was noted last, so too low rather than too high."""
        return (await self._read_note()).get(self._kind, 0)

    async def _read_note(self) -> dict[str, int]:
        stored = await self._state.get(self._key)
        try:
            return {} if stored is None else msgspec.json.decode(stored.body, type=dict[str, int])
        except msgspec.MsgspecError:
            return {}

    @property
    def _kind(self) -> str:
        return "exported" if self._exported else "ended"

    @property
    def _key(self) -> str:
        return f"finished/{self._chain}.json"
