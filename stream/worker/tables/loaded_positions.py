"""How far each shard is loaded into a table, kept in immutable objects of the state store.

A table property has room for one word, not for thousands of shards. It names the current object; the name is the SHA-256 of its content.
A sink may get another table, and the former one back. So a mark beside the accounts says for which table each was written: the current
one of a table that is not loaded at the moment must stay.
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
    """Accounts of how far one stream is loaded, under ``loads/`` in ``store``. New ones are written under the name of ``sink``.

    ``table``: what tells the table from others.
    """

    def __init__(self, store: ObjectStore, sink: str, stream: str, table: tuple[object, ...]) -> None:
        self._store = store
        self._sink = sink
        self._stream = stream
        self._table = hashlib.sha256(repr(table).encode()).hexdigest()[:32]

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
        await self._store.put(f"{self._marks}{self._table}/{name}", b"")
        await self._store.create(self._key(name), body)
        return name

    async def tidy(self, current: str, before: datetime) -> None:
        """Remove this table's accounts that were written before that time (UTC), except the ``current`` one and those of other tables.

        Accounts without a mark, of older builds, stay.
        """
        own = f"{self._marks}{self._table}/"
        async for info in self._store.list(own):
            name = info.key.removeprefix(own)
            if name == current or info.modified >= before:
                continue
            await self._store.delete(info.key)
            account = await self._store.get(self._key(name))
            if account is None or await self._is_marked(name):
                continue
            await self._store.delete(self._key(name))
            if await self._is_marked(name):
                # Another table has come to the same positions meanwhile.
                await self._store.create(self._key(name), account.body)

    async def _is_marked(self, name: str) -> bool:
        for table in await self._store.folders(self._marks):
            if await self._store.get(f"{self._marks}{table}/{name}") is not None:
                return True
        return False

    async def _under_another_name(self, name: str) -> Stored | None:
        """The account as written under an earlier name of the sink."""
        for sink in await self._store.folders("loads/"):
            if (stored := await self._store.get(f"{self._folder(sink)}{name}.json")) is not None:
                return stored
        return None

    @property
    def _marks(self) -> str:
        return f"loads/{self._sink}/{self._stream}/accounts_of/"

    def _key(self, name: str) -> str:
        return f"{self._folder(self._sink)}{name}.json"

    def _folder(self, sink: str) -> str:
        return f"loads/{sink}/{self._stream}/accounts/"
