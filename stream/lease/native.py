"""Checkpoints of ``coordination: native``: in the lease row, where KCL stores them, too."""

from __future__ import annotations

from stream.contracts import Checkpoint, Reached, Shard
from stream.errors import LeaseLost
from stream.lease.coordinator import Coordinator
from stream.lease.rows import SHARD_END, ExtendedSequenceNumber, Lease, Progress, RowProblem, decode, is_lease
from stream.lease.table import LeaseTable


class LeaseCheckpoints:
    """Reads from any row, writes only those whose lease this worker holds.

    KCL continues *at* the sequence number it finds in ``checkpoint``, so that attribute only ever holds a record's number. After a gap,
    or a skipped range, it stays where it was, and our own attributes say how far the log has got. A Java worker that takes over there
    reads from the older position, which may repeat records but loses none. A sub-sequence number means the same to both: the last user
    record of that Kinesis record that is done.
    """

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator

    async def read(self, shard: Shard) -> Checkpoint | None:
        """The stored checkpoint; None if there is none or it cannot be read, since a hint may always be missing."""
        key = self._coordinator.streams[shard.stream].key(shard.shard_id)
        held = self._coordinator.holdings.held.get(key)
        return checkpoint_in(held.lease) if held is not None else await read_checkpoint(self._coordinator.table, key)

    async def advance(self, shard: Shard, checkpoint: Checkpoint) -> None:
        """Store ``checkpoint``; for an ended shard, the rows of its children are created first.

        Raises:
            LeaseLost: the lease is not this worker's; nothing was stored.
        """
        key = self._coordinator.streams[shard.stream].key(shard.shard_id)
        held = self._coordinator.holdings.held.get(key)
        if held is None:
            msg = f"the lease {key} is not this worker's; it stops reading the shard, and nothing is lost"
            raise LeaseLost(msg)
        if checkpoint.position is None:
            await self._coordinator.settle_end(shard.stream, shard.shard_id)
        shown = shown_to_kcl(held.lease, checkpoint)
        await self._coordinator.holdings.checkpoint(key, shown, progress_of(checkpoint, shown))


class TableCheckpoints:
    """Read-only access to the checkpoints in lease rows, for audits. ``prefix`` comes before the shard id in lease keys."""

    def __init__(self, table: LeaseTable, prefix: str) -> None:
        self._table = table
        self._prefix = prefix

    async def read(self, shard: Shard) -> Checkpoint | None:
        """As ``LeaseCheckpoints.read``."""
        return await read_checkpoint(self._table, f"{self._prefix}{shard.shard_id}")

    async def damage(self, shard: Shard) -> str:
        """Why the row of ``shard`` cannot be read, naming it; empty if it can, or if there is none."""
        key = f"{self._prefix}{shard.shard_id}"
        item = await self._table.item(key)
        if item is not None and not is_lease(item):
            return f"lease row {key!r}: it has no leaseCounter, or is no lease"
        try:
            if item is not None:
                decode(item)
        except RowProblem as error:
            return str(error)
        return ""

    async def advance(self, shard: Shard, checkpoint: Checkpoint) -> None:
        """Always refuse.

        Raises:
            LeaseLost: always.
        """
        msg = f"{shard.stream}/{shard.shard_id} is opened for reading only; {checkpoint} was not stored"
        raise LeaseLost(msg)


async def read_checkpoint(table: LeaseTable, key: str) -> Checkpoint | None:
    """The current checkpoint in the row ``key``; None if there is no readable one."""
    try:
        lease = await table.get(key)
    except RowProblem:
        return None
    return None if lease is None else checkpoint_in(lease)


def shown_to_kcl(lease: Lease, checkpoint: Checkpoint) -> ExtendedSequenceNumber:
    """The content of KCL's own attributes beside ``checkpoint``."""
    if checkpoint.position is None:
        return ExtendedSequenceNumber(SHARD_END)
    if not checkpoint.record:
        return lease.checkpoint
    return ExtendedSequenceNumber(str(checkpoint.position), checkpoint.subsequence)


def progress_of(checkpoint: Checkpoint, shown: ExtendedSequenceNumber) -> Progress:
    """Our own attributes for ``checkpoint``."""
    return Progress(
        position=checkpoint.position,
        subsequence=checkpoint.subsequence,
        unit_after=checkpoint.unit_after,
        kcl_checkpoint=shown,
        generation=checkpoint.generation,
        tip=checkpoint.tip,
    )


def checkpoint_in(lease: Lease) -> Checkpoint | None:
    """The checkpoint in the row: our progress, and what another application has written since."""
    progress, foreign = lease.progress, lease.foreign
    reached = None if foreign is None else Reached(foreign.sequence, foreign.subsequence)
    if progress is None:
        return None if reached is None else Checkpoint(0, 0, 0, foreign=reached)
    return Checkpoint(
        position=progress.position,
        subsequence=progress.subsequence,
        unit_after=progress.unit_after,
        tip=progress.tip,
        record=progress.position is None or str(progress.position) == progress.kcl_checkpoint.text,
        generation=progress.generation,
        foreign=reached,
        set_back=lease.checkpoint.text if lease.set_back else "",
    )
