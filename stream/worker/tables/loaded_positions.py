"""How far each shard is loaded into a table, kept in immutable objects of the state store.

A table property has room for one word, not for thousands of shards. It names the current object; the name is the SHA-256 of its content.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime

import msgspec

from stream.contracts import ObjectStore, Stored
from stream.sink.loads import Failure
from stream.worker.tables.warehouse import LoadFailed


class LoadedPositions:
    """Accounts of how far one stream is loaded, under ``loads/`` in ``store``. New ones are written under the name of ``sink``."""

    def __init__(self, store: ObjectStore, sink: str, stream: str) -> None:
        self._store = store
        self._sink = sink
        self._stream = stream

    async def read(self, name: str) -> dict[str, int]:
        """The account that the table refers to: the sequence number up to which each shard is loaded; empty for an empty name.

        Raises:
            LoadFailed: it is missing or was changed.
        """
        if not name:
            return {}
        key = self._key(name)
        stored = await self._store.get(key) or await self._under_another_name(name)
        if stored is None or hashlib.sha256(stored.body).hexdigest() != name:
            what = "is missing" if stored is None else "was changed"
            msg = (
                f"the table names the account {key} of what is loaded, which {what} in {self._store.url}. Restore it. If the state is "
                "not the one with which the table was loaded, load another table: nobody knows what is in this one."
            )
            raise LoadFailed(msg, Failure.SETUP)
        return {shard: int(position) for shard, position in msgspec.json.decode(stored.body, type=dict[str, str]).items()}

    async def write(self, positions: Mapping[str, int]) -> str:
        """Store ``positions`` as a new account. Returns its name."""
        body = msgspec.json.encode({shard: str(position) for shard, position in positions.items()}, order="sorted")
        name = hashlib.sha256(body).hexdigest()
        await self._store.create(self._key(name), body)
        return name

    async def tidy(self, current: str, before: datetime) -> None:
        """Remove accounts that were written before that time (UTC), except the ``current`` one."""
        async for info in self._store.list(self._folder(self._sink)):
            if info.key != self._key(current) and info.modified < before:
                await self._store.delete(info.key)

    async def _under_another_name(self, name: str) -> Stored | None:
        """The account as written under an earlier name of the sink."""
        for sink in await self._store.folders("loads/"):
            if (stored := await self._store.get(f"{self._folder(sink)}{name}.json")) is not None:
                return stored
        return None

    def _key(self, name: str) -> str:
        return f"{self._folder(self._sink)}{name}.json"

    def _folder(self, sink: str) -> str:
        return f"loads/{sink}/{self._stream}/accounts/"
