"""Tells files of other streams, which may be at the same places, from files that belong to nobody."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from stream.audit.objects import stream_of, unit_of
from stream.commit.lookup import position_of, streams_of
from stream.commit.manifest import decode
from stream.commit.naming import manifest_key, shard_prefix
from stream.contracts import ObjectStore
from stream.errors import Halted

KNOWN_MANIFESTS: Final = 10_000
"""Manifests kept in memory. Files are listed by name, so the files of a unit are spread over its partitions."""


class OtherStreams:
    """The files of all streams of the application but ``stream``, by their logs in ``store``.

    There may be very many, so the keys of each chain and each manifest are read only once.
    """

    def __init__(self, store: ObjectStore, stream: str) -> None:
        self._store = store
        self._own = stream
        self._streams: list[str] | None = None
        self._starts: dict[tuple[str, str], frozenset[int]] = {}
        self._files: dict[str, frozenset[tuple[str, str]]] = {}

    async def have(self, sink: str, key: str, sinks: Collection[str]) -> bool:
        """Whether another stream has the file ``key`` in ``sink``; ``sinks``: the names of all sinks of the pipeline.

        A file whose name begins with a stream's name is that stream's; for others, the logs are read.
        """
        if self._streams is None:
            self._streams = [stream async for stream in streams_of(self._store)]
        named = stream_of(key, self._streams)
        if named is not None:
            return named != self._own
        for stream in self._streams:
            unit = unit_of(key, stream)
            found = await self._sinks(stream, *unit, key) if unit is not None and stream != self._own else frozenset()
            # A sink that the pipeline does not have any more may be this one, under its earlier name.
            if sink in found or found - set(sinks):
                return True
        return False

    async def _sinks(self, stream: str, shard: str, after: int, name: str) -> frozenset[str]:
        """The sinks under which the unit of ``shard`` that begins after ``after`` lists a file with the key ``name``."""
        if after not in await self._starts_of(stream, shard):
            return frozenset()
        key = manifest_key(stream, shard, after)
        if key not in self._files:
            while len(self._files) >= KNOWN_MANIFESTS:
                del self._files[next(iter(self._files))]
            self._files[key] = await self._files_in(key)
        return frozenset(sink for sink, file in self._files[key] if file == name)

    async def _starts_of(self, stream: str, shard: str) -> frozenset[int]:
        if (stream, shard) not in self._starts:
            prefix = shard_prefix(stream, shard)
            found = [position_of(info.key, prefix) async for info in self._store.list(prefix)]
            self._starts[stream, shard] = frozenset(start for start in found if start is not None)
        return self._starts[stream, shard]

    async def _files_in(self, key: str) -> frozenset[tuple[str, str]]:
        stored = await self._store.get(key)
        try:
            return frozenset((file.sink, file.key) for file in decode(stored.body, key).files) if stored else frozenset()
        except Halted:  # the verification of its own stream says so
            return frozenset()
