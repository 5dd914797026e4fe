"""Objects in this process's memory: for tests and for runs that should leave nothing behind."""

from __future__ import annotations

import builtins
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime

from stream.clock import SystemClock
from stream.contracts import Clock, ObjectInfo, Stored
from stream.storage.keys import by_place, check_key


@dataclass(frozen=True, slots=True)
class _Object:
    body: bytes
    version: int
    modified: datetime


class MemoryStore:
    """An ``ObjectStore`` over a dictionary. Tags are version numbers, so none ever recurs. May be used from several threads."""

    def __init__(self, *, clock: Clock | None = None, url: str = "memory:") -> None:
        self._clock = clock or SystemClock()
        self._url = url
        self._objects: dict[str, _Object] = {}
        self._version = 0
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """The root, as a person would write it."""
        return self._url

    async def create(self, key: str, body: bytes) -> str | None:
        """Write ``key`` if it does not exist and return its tag; None if it exists."""
        check_key(key, self._url)
        with self._lock:
            return None if key in self._objects else self._write(key, body)

    async def replace(self, key: str, body: bytes, etag: str) -> str | None:
        """Write ``key`` if its tag is ``etag`` and return the new tag; None if it is not."""
        check_key(key, self._url)
        with self._lock:
            found = self._objects.get(key)
            return self._write(key, body) if found is not None and str(found.version) == etag else None

    async def put(self, key: str, body: bytes) -> None:
        """Write ``key`` whatever is there."""
        check_key(key, self._url)
        with self._lock:
            self._write(key, body)

    async def get(self, key: str) -> Stored | None:
        """The object, or None."""
        check_key(key, self._url)
        found = self._objects.get(key)
        return None if found is None else Stored(found.body, str(found.version))

    async def list(self, prefix: str, after: str = "") -> AsyncIterator[ObjectInfo]:
        """Objects whose key starts with ``prefix`` and sorts after ``after``, as they were when the listing began."""
        with self._lock:
            chosen = [(key, item) for key, item in self._objects.items() if key.startswith(prefix) and key > after]
        for key, item in sorted(chosen, key=lambda pair: pair[0]):
            yield ObjectInfo(key, len(item.body), item.modified, str(item.version))

    async def folders(self, prefix: str) -> builtins.list[str]:
        """Names of the folders right under ``prefix``, which ends in a slash."""
        with self._lock:
            found = {
                key.removeprefix(prefix).partition("/")[0] for key in self._objects if key.startswith(prefix) and "/" in key[len(prefix) :]
            }
        return by_place(found)

    async def read_range(self, key: str, start: int, end: int, version: str) -> bytes | None:
        """Bytes ``[start, end)`` of ``key`` as it was listed with ``version``; None if it is gone or has another version now."""
        check_key(key, self._url)
        found = self._objects.get(key)
        return None if found is None or str(found.version) != version else found.body[start:end]

    async def stat(self, key: str) -> ObjectInfo | None:
        """What ``list`` would say of ``key`` now; None if there is no such object."""
        check_key(key, self._url)
        found = self._objects.get(key)
        return None if found is None else ObjectInfo(key, len(found.body), found.modified, str(found.version))

    async def delete(self, key: str) -> None:
        """Remove ``key``; fine if it is not there."""
        check_key(key, self._url)
        with self._lock:
            self._objects.pop(key, None)

    def _write(self, key: str, body: bytes) -> str:
        self._version += 1
        self._objects[key] = _Object(bytes(body), self._version, self._clock.now())
        return str(self._version)
