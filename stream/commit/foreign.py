"""Takes over from another application, such as a Java KCL on the same lease table: the log records what it did and continues after that."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from stream import events
from stream.commit.committer import FOREIGN, Committer, Head, RenderedUnit, Renderer, head_behind
from stream.commit.log import CommitLog
from stream.commit.manifest import Kind, Manifest, State
from stream.contracts import Clock, Emit, Shard


async def admit_foreign(
    log: CommitLog,
    committer: Committer,
    shard: Shard,
    head: Head,
    children: Callable[[], Awaitable[tuple[str, ...]]],
    render: Renderer,
    clock: Clock,
    emit: Emit,
) -> Head:
    """The head after the progress that ``head.foreign`` reports, once the log records it; ``head`` itself if it reports none.

    A checkpoint names a Kinesis record and the last of its user records that is done. The link ends right before that Kinesis record: the
    next unit reads the record again and settles the user records that are done. So even an aggregate can be taken over in its middle.

    Raises:
        Superseded: one of our workers has continued from ``head`` meanwhile; recover again.
    """
    reached = head.foreign
    if reached is None:
        return head
    if reached.position is None:
        ended = await committer.end(shard, head, await children(), trigger=FOREIGN)
        emit(events.ForeignProgress(shard.stream, shard.shard_id, head.position, None))
        return ended
    if reached.position - 1 == head.position:
        return replace(head, foreign=None, foreign_subsequence=reached.subsequence)
    manifest = Manifest(
        kind=Kind.FOREIGN,
        state=State.INTENT,
        application=log.application,
        stream=shard.stream,
        shard=shard.chain,
        after=str(head.position),
        last=str(reached.position - 1),
        previous=head.previous,
        trigger=FOREIGN,
        foreign_subsequence=reached.subsequence,
        worker=log.worker,
        created_at=clock.now().isoformat(),
    )
    entry = await committer.commit(shard, RenderedUnit(manifest, ()), render)
    emit(events.ForeignProgress(shard.stream, shard.shard_id, head.position, entry.manifest.reach))
    return head_behind(entry)
