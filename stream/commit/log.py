"""The chain of manifests of one application in an object store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from stream.batch import ORIGIN
from stream.commit import naming
from stream.commit.manifest import Kind, Manifest, State, decode, decode_start, encode, encode_start, pinned, with_seal
from stream.contracts import Clock, ObjectStore, Shard, Start, StartKind, shard_of_chain
from stream.errors import Halted


@dataclass(frozen=True, slots=True)
class Entry:
    """A stored manifest, its bytes, and the ETag that a conditional replace must match."""

    manifest: Manifest
    body: bytes
    etag: str


class CommitLog:
    """Reads and writes manifests. Stateless: all instances over one store see the same log."""

    def __init__(self, store: ObjectStore, application: str, clock: Clock, worker: str) -> None:
        self.store = store
        self.application = application
        self._clock = clock
        self.worker = worker

    async def read(self, shard: Shard, after: int) -> Entry | None:
        """The manifest of the unit that starts after ``after``, or None if no unit was begun there."""
        return await self._read(naming.manifest_key(shard.stream, shard.chain, after))

    async def create(self, shard: Shard, manifest: Manifest) -> str | None:
        """Begin a unit. Returns the manifest's ETag, or None if a unit was already begun at that position."""
        key = naming.manifest_key(shard.stream, shard.chain, int(manifest.after))
        return await self.store.create(key, encode(manifest))

    async def replace(self, shard: Shard, body: bytes, after: int, etag: str) -> str | None:
        """Replace the unit's manifest if its ETag is still ``etag``. Returns the new ETag, or None if somebody else has changed it."""
        return await self.store.replace(naming.manifest_key(shard.stream, shard.chain, after), body, etag)

    async def pin_start(self, stream: str, start: Start) -> Start:
        """The start position of the whole stream: the first call stores ``start``, and every later call, by any worker, returns that.

        ``latest`` becomes the time of the first call. A shard that appears later also starts at that time, which is before its first
        record, so resharding loses nothing.
        """
        key = naming.start_key(stream)
        stored = await self.store.get(key)
        if stored is None:
            await self.store.create(key, encode_start(self._resolve(start)))
            stored = await self.store.get(key)
        if stored is None:
            msg = f"{self.store.url}: object {key} was created but cannot be read back"
            raise Halted(msg)
        return decode_start(stored.body, key)

    async def genesis(self, shard: Shard) -> Entry | None:
        """The first link of the shard's chain, or None if the chain does not exist yet."""
        return await self._read(naming.genesis_key(shard.stream, shard.chain))

    async def open_chain(self, shard: Shard, start: Start, after: int = ORIGIN, previous: str = "") -> Entry:
        """The first link of the shard's chain, created with ``start`` if it does not exist.

        After a rewind, the new chain begins after ``after``, and ``previous`` is the digest of the rewind link.
        """
        key = naming.genesis_key(shard.stream, shard.chain)
        entry = await self._read(key)
        if entry is None:
            genesis = Manifest(
                kind=Kind.GENESIS,
                state=State.SEALED,
                application=self.application,
                stream=shard.stream,
                shard=shard.chain,
                after=str(after),
                previous=previous,
                start=pinned(start),
                parents=shard.parents,
                worker=self.worker,
                created_at=self._clock.now().isoformat(),
            )
            await self.store.create(key, encode(with_seal(genesis)))
            entry = await self._read(key)
        if entry is None:
            msg = f"{self.store.url}: object {key} was created but cannot be read back"
            raise Halted(msg)
        return entry

    async def chain_start(self, stream: str, name: str) -> int:
        """The sequence number after which the chain ``name`` begins: ``ORIGIN``, or the target of the rewind that began it."""
        shard = _shard(stream, name)
        genesis = await self.genesis(shard) if shard.generation else None
        return ORIGIN if genesis is None else int(genesis.manifest.after)

    async def chain(self, stream: str, name: str, since: int | None = None) -> AsyncIterator[Entry]:
        """The links of the chain ``name`` in order: all after its genesis, or those from the link that begins at ``since``.

        The last one may be an intent.
        """
        shard, after = _shard(stream, name), await self.chain_start(stream, name) if since is None else since
        while (entry := await self.read(shard, after)) is not None:
            yield entry
            if not entry.manifest.sealed or entry.manifest.last is None:
                return
            after = int(entry.manifest.last)

    def _resolve(self, start: Start) -> Start:
        return Start(StartKind.AT_TIMESTAMP, self._clock.now()) if start.kind is StartKind.LATEST else start

    async def _read(self, key: str) -> Entry | None:
        stored = await self.store.get(key)
        return None if stored is None else Entry(decode(stored.body, key), stored.body, stored.etag)


def _shard(stream: str, name: str) -> Shard:
    """The shard whose chain has the name ``name``."""
    shard_id, generation = shard_of_chain(name)
    return Shard(stream, shard_id, generation=generation)
