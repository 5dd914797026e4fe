"""Checkpoints of ``coordination: local``: one small object per shard beside the commit log."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import msgspec

from stream.contracts import Checkpoint, ObjectStore, Shard


class _Row(msgspec.Struct, frozen=True, omit_defaults=True):
    position: str | None
    subsequence: int
    unit_after: str
    tip: str | None = None
    record: bool = True
    generation: int = 0


_DECODER: Final = msgspec.json.Decoder(_Row)


class StoredCheckpoints:
    """Keeps checkpoints in an object store. There is one process, so there is no lease to lose."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def read(self, shard: Shard) -> Checkpoint | None:
        """The stored checkpoint; None if there is none or it cannot be read, since a hint may always be missing."""
        stored = await self._store.get(_key(shard))
        if stored is None:
            return None
        try:
            row = _DECODER.decode(stored.body)
            position = None if row.position is None else int(row.position)
            tip = datetime.fromisoformat(row.tip) if row.tip else None
            return Checkpoint(position, row.subsequence, int(row.unit_after), tip, row.record, row.generation)
        except (msgspec.MsgspecError, ValueError):
            return None

    async def advance(self, shard: Shard, checkpoint: Checkpoint) -> None:
        """Store ``checkpoint``, whatever was there."""
        position = None if checkpoint.position is None else str(checkpoint.position)
        tip = checkpoint.tip.isoformat() if checkpoint.tip else None
        row = _Row(position, checkpoint.subsequence, str(checkpoint.unit_after), tip, checkpoint.record, checkpoint.generation)
        await self._store.put(_key(shard), msgspec.json.encode(row))


def _key(shard: Shard) -> str:
    return f"checkpoints/{shard.stream}/{shard.shard_id}.json"
