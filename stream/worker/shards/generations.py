"""Which chain of a shard to work on, after rewinds by operators and progress by other applications."""

from __future__ import annotations

from dataclasses import replace

from stream import events
from stream.commit.committer import Head, Renderer
from stream.commit.foreign import admit_foreign
from stream.commit.log import Entry
from stream.commit.manifest import unpinned
from stream.contracts import Shard, Start, StartKind
from stream.errors import Halted
from stream.lease.shards import children_of, recreated
from stream.worker.parts import Parts


async def open_newest(shard: Shard, start: Start, parts: Parts) -> tuple[Shard, Entry, Start]:
    """The chain that the checkpoint names, or else the shard's first one, with its genesis manifest and the start that this records.

    That start is ``start``, the stream's, unless the shard's lease says that the shard is to be read from its first record.
    """
    if parts.leases is not None and parts.leases.from_its_beginning(shard.stream, shard.shard_id):
        start = Start(StartKind.TRIM_HORIZON)
    checkpoint = await parts.repeat("read checkpoint", shard, lambda: parts.checkpoints.read(shard))
    if checkpoint is not None and checkpoint.generation:
        hinted = replace(shard, generation=checkpoint.generation)
        entry = await parts.repeat("read chain", shard, lambda: parts.log.genesis(hinted))
        if entry is not None:
            return hinted, entry, _start_in(entry, start)
    entry = await parts.repeat("open chain", shard, lambda: parts.log.open_chain(shard, start))
    return shard, entry, _start_in(entry, start)


def _start_in(genesis: Entry, start: Start) -> Start:
    recorded = genesis.manifest.start
    return start if recorded is None else unpinned(recorded)


async def open_next(shard: Shard, start: Start, parts: Parts, head: Head) -> tuple[Shard, Entry]:
    """The chain that follows the rewind at ``head``, with its genesis manifest."""
    following, target = replace(shard, generation=shard.generation + 1), head.target or 0
    opening = lambda: parts.log.open_chain(following, start, target, head.previous)  # noqa: E731 - one call, repeated as needed
    entry = await parts.repeat("open chain", shard, opening)
    parts.emit(events.ShardRewound(shard.stream, shard.shard_id, target, following.generation))
    return following, entry


async def refuse_recreated(shard: Shard, head: Head, parts: Parts) -> None:
    """Make sure that the shard that ended at ``head`` is the one that the stream has under this id now.

    Raises:
        Halted: it is another shard, whose records would never be read.
    """
    if not recreated(shard, head.position, head.children, ()):
        return
    # The shard was listed before the log was read, and another worker may have written its end in between.
    listed = {each.shard_id: each for each in await parts.repeat("list shards", shard, parts.source.shards)}
    current = listed.get(shard.shard_id)
    if current is not None and recreated(current, head.position, head.children, listed.values()):
        msg = (
            f"{shard.stream}/{shard.shard_id} has been read to its end, after {head.position or 'no record'}, yet the stream has a shard "
            "of that id with records after that, or one that is open: the stream was deleted and created again under the same name. Use "
            "another application name for it; nothing is read until then"
        )
        raise Halted(msg)


async def admit_foreign_progress(shard: Shard, head: Head, parts: Parts, render: Renderer) -> Head:
    """``head``, or the head after what another application has processed according to the checkpoint."""

    async def children() -> tuple[str, ...]:
        listed = await parts.repeat("list shards", shard, parts.source.shards)
        return tuple(child.shard_id for child in children_of(listed, shard.shard_id))

    return await admit_foreign(parts.committer, shard, head, children, render)
