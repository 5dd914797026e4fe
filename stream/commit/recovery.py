"""What a worker does when it takes a shard: follow the chain to its end, and complete a unit that another worker left unfinished."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Final

from stream import events
from stream.commit.committer import Committer, Head, Renderer, head_after
from stream.commit.log import CommitLog, Entry
from stream.commit.lookup import last_starts
from stream.commit.manifest import Kind, digest
from stream.contracts import Checkpoint, Reached, Shard
from stream.errors import Halted

MANY_LINKS: Final = 100
"""Links that are followed one by one, at some tens of milliseconds each, before the newest ones are looked for by listing. A checkpoint
lags by more if it is kept elsewhere than that of whoever worked on the shard meanwhile: in a lease, while functions did."""


async def entry_point(log: CommitLog, shard: Shard, checkpoint: Checkpoint | None, genesis: Entry) -> Head:
    """A sealed position from which to follow the chain: the checkpoint if the log has a unit that ends there, else one near the end.

    A checkpoint is only a hint. One that the log does not confirm costs a few listings and nothing else.
    """
    start = Head(int(genesis.manifest.after), digest(genesis.body))
    if checkpoint is None or checkpoint.generation != shard.generation:
        return await _near_the_end(log, shard, start)
    entry = await log.read(shard, checkpoint.unit_after)
    if entry is None or not entry.manifest.sealed:
        return await _near_the_end(log, shard, start)
    if entry.manifest.kind in {Kind.END, Kind.REWIND}:
        return head_after(entry)
    if entry.manifest.span.last != checkpoint.position:
        return await _near_the_end(log, shard, start)
    head = head_after(entry)
    return replace(head, checkpoint=checkpoint, complete_until=checkpoint.tip or head.complete_until)


async def _near_the_end(log: CommitLog, shard: Shard, start: Head) -> Head:
    """The head before the newest link of the chain, if the link before it leads there; else ``start``.

    To follow a year's chain link by link would take hours, during which the shard makes no progress.
    """
    newest = await last_starts(log.store, shard.stream, shard.chain, 2)
    before = await log.read(shard, newest[0]) if len(newest) > 1 else None
    last = await log.read(shard, newest[-1]) if newest else None
    head = start if before is None or not before.manifest.sealed else head_after(before)
    if last is not None and head.open and head.position < newest[-1]:
        msg = (
            f"the commit log of {shard.stream}/{shard.chain} is broken after {head.position}: the manifest there is missing, the next one "
            f"begins after {newest[-1]}. Restore it, or its records are written twice; nothing is read until then."
        )
        raise Halted(msg)
    return head if last is not None and last.manifest.previous == head.previous else start


async def recover(committer: Committer, shard: Shard, genesis: Entry, render: Renderer) -> Head:
    """The head of the shard's sealed chain, after completing the intent at its end if there is one.

    Its ``foreign`` is set if the checkpoint says that another application has gone further; the checkpoint is then left unchanged.

    Raises:
        Halted: the checkpoint is beyond the end of the chain, so records were processed that the log does not contain, or the newest link
            cannot be reached.
        LeaseLost: the shard belongs to another worker now.
    """
    log, clock, emit, repeat = committer.log, committer.clock, committer.emit, committer.repeat
    begun = clock.monotonic()
    checkpoint = await repeat("read checkpoint", shard, lambda: committer.checkpoints.read(shard))
    head = await repeat("read manifest", shard, lambda: entry_point(log, shard, checkpoint, genesis))
    links_followed = 0
    while head.open and (entry := await committer.complete(shard, head.position, render)) is not None:
        head = _follow(head, entry)
        links_followed += 1
        if links_followed == MANY_LINKS and head.open:
            head = await repeat("list manifests", shard, partial(_near_the_end, log, shard, head))
    _refuse_unknown_progress(log, shard, checkpoint, head, begun_at=int(genesis.manifest.after))
    foreign = _foreign_progress(head, checkpoint)
    set_back = "" if checkpoint is None else checkpoint.set_back
    if set_back and head.target is None:
        emit(events.CheckpointSetBack(shard.stream, shard.shard_id, set_back, None if head.ended else head.position))
    if (links_followed or set_back) and foreign is None and head.checkpoint is not None:
        # Also at the end of a shard: without its checkpoint, no worker would start its children.
        await committer.checkpoint(shard, head.checkpoint)
    emit(events.RecoveryFinished(shard.stream, shard.shard_id, head.position, links_followed, clock.monotonic() - begun))
    return replace(head, foreign=foreign)


def _foreign_progress(head: Head, checkpoint: Checkpoint | None) -> Reached | None:
    """The position that another application has reached, if it is after the end of the log."""
    return checkpoint.foreign_after(head.position) if checkpoint is not None and head.open else None


def _follow(head: Head, entry: Entry) -> Head:
    if entry.manifest.previous != head.previous:
        msg = (
            f"the commit log of {entry.manifest.stream}/{entry.manifest.shard} is broken after {head.position}: the manifest there "
            f"names the predecessor {entry.manifest.previous[:12]}, but the sealed one is {head.previous[:12]}. An object was edited or "
            "restored by hand. Restore the original version; nothing is read until then."
        )
        raise Halted(msg)
    return head_after(entry)


def _refuse_unknown_progress(log: CommitLog, shard: Shard, checkpoint: Checkpoint | None, head: Head, begun_at: int) -> None:
    if checkpoint is None or checkpoint.generation != shard.generation:
        return
    if checkpoint.position is None or checkpoint.position <= head.position:
        return
    where = f"the checkpoint of {shard.stream}/{shard.shard_id} is at {checkpoint.position}"
    if head.position == begun_at:
        msg = (
            f"{where}, but the commit log of the application {log.application} at {log.store.url} has nothing of that shard. If "
            "`application` or `state` of the pipeline file was changed, go back to the previous file (`helm rollback`), with which the "
            "shard goes on where it was. If another pipeline keeps its leases in the same table, give the newer one another "
            "`application`. Otherwise, the log was lost: restore it. Nothing is read until then; to begin from the start position instead "
            "would write everything a second time."
        )
        raise Halted(msg)
    msg = (
        f"{where}, beyond the end of the commit log at {head.position}: another application moved it, or the log lost objects. Set the "
        f"checkpoint back to {head.position}, or restore the log; nothing is read until then."
    )
    raise Halted(msg)
