"""Takes over from another application, such as a Java KCL on the same lease table: the log records its progress, then continues there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from stream import events
from stream.commit.committer import FOREIGN, Committer, Head, RenderedUnit, Renderer, head_after
from stream.commit.manifest import Kind, Manifest, State
from stream.contracts import Shard
from stream.errors import Superseded


async def admit_foreign(
    committer: Committer, shard: Shard, head: Head, children: Callable[[], Awaitable[tuple[str, ...]]], render: Renderer
) -> Head:
    """Record the progress that ``head.foreign`` reports, and return the head after it; ``head`` itself if it reports none.

    A checkpoint names a Kinesis record and the last user record in it that was processed. The link ends just before that Kinesis record:
    the next unit reads the record again and records the processed user records as such. So even part of an aggregate can be taken over.

    Raises:
        Superseded: meanwhile, one of our own workers has continued from ``head``; recover again.
    """
    reached = head.foreign
    if reached is None:
        return head
    if reached.position is None:
        ended = await committer.end(shard, head, await children(), trigger=FOREIGN)
        committer.emit(events.ForeignProgress(shard.stream, shard.shard_id, head.position, None))
        return ended
    if reached.position - 1 == head.position:
        return replace(head, foreign=None, foreign_subsequence=reached.subsequence)
    manifest = Manifest(
        kind=Kind.FOREIGN,
        state=State.INTENT,
        application=committer.log.application,
        stream=shard.stream,
        shard=shard.chain,
        after=str(head.position),
        last=str(reached.position - 1),
        previous=head.previous,
        trigger=FOREIGN,
        foreign_subsequence=reached.subsequence,
        worker=committer.log.worker,
        created_at=committer.clock.now().isoformat(),
    )
    entry = await committer.commit(shard, RenderedUnit(manifest, ()), render)
    if (entry.manifest.kind, entry.manifest.last, entry.manifest.foreign_subsequence) != (Kind.FOREIGN, manifest.last, reached.subsequence):
        msg = f"{shard.stream}/{shard.shard_id}: the chain was continued at {head.position} by somebody else meanwhile"
        raise Superseded(msg, position=entry.manifest.reach)
    committer.emit(events.ForeignProgress(shard.stream, shard.shard_id, head.position, entry.manifest.reach))
    return head_after(entry)
