"""A folder of a store, as a store."""

from __future__ import annotations

import builtins
import dataclasses
from collections.abc import AsyncIterator

from stream.contracts import ObjectInfo, ObjectStore, Stored


class PrefixedStore:
    """Everything under ``prefix`` (which ends in a slash) of another store; keys are relative to it."""

    def __init__(self, store: ObjectStore, prefix: str) -> None:
        self._store = store
        self._prefix = prefix

    @property
    def url(self) -> str:
        """The folder, as a person would write it."""
        return f"{self._store.url.removesuffix('/')}/{self._prefix}"

    async def create(self, key: str, body: bytes) -> str | None:
        """See ``contracts.ObjectStore``."""
        return await self._store.create(self._prefix + key, body)

    async def replace(self, key: str, body: bytes, etag: str) -> str | None:
        """See ``contracts.ObjectStore``."""
        return await self._store.replace(self._prefix + key, body, etag)

    async def put(self, key: str, body: bytes) -> None:
        """See ``contracts.ObjectStore``."""
        await self._store.put(self._prefix + key, body)

    async def get(self, key: str) -> Stored | None:
        """See ``contracts.ObjectStore``."""
        return await self._store.get(self._prefix + key)

    async def list(self, prefix: str, after: str = "") -> AsyncIterator[ObjectInfo]:
        """See ``contracts.ObjectStore``."""
        async for info in self._store.list(self._prefix + prefix, self._prefix + after if after else ""):
            yield dataclasses.replace(info, key=info.key.removeprefix(self._prefix))

    async def folders(self, prefix: str) -> builtins.list[str]:
        """See ``contracts.ObjectStore``."""
        return await self._store.folders(self._prefix + prefix)

    async def delete(self, key: str) -> None:
        """See ``contracts.ObjectStore``."""
        await self._store.delete(self._prefix + key)
