"""Which lease rows take over the positions of another consumer, so that each shard continues exactly where that one stopped. Pure.

A worker reads nothing that a row says is done: a row with a sequence number makes it continue there, and one with ``SHARD_END`` lets the
shards that continue that one begin. All other shards begin as the pipeline's ``start`` says, so that has to agree with the other consumer.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from stream.contracts import Shard, StartKind
from stream.lease.foreign_positions import WHOLE_RECORD, Position
from stream.lease.rows import LATEST, SHARD_END, TRIM_HORIZON, ExtendedSequenceNumber, Lease
from stream.lease.shards import missing_leases, new_lease

_END: Final = ExtendedSequenceNumber(SHARD_END)


class Fate(StrEnum):
    """What becomes of a shard.

    ``WRITE``: a row is written. ``KEEP``: what is there already holds. ``START``: no row; the first worker creates it. ``WAIT``: no row
    before the shards that it continues are read. ``GONE``: the stream does not have the shard. ``REFUSE``: nothing may be written at all.
    """

    WRITE = "write"
    KEEP = "keep"
    START = "start"
    WAIT = "wait"
    GONE = "gone"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Step:
    """What becomes of one shard, and why. ``position``: what the other consumer says; ``checkpoint``: what is written, with ``WRITE``."""

    shard: str
    fate: Fate
    why: str
    position: ExtendedSequenceNumber | None = None
    checkpoint: ExtendedSequenceNumber | None = None


def shown(position: ExtendedSequenceNumber | None) -> str:
    """``position`` as people write it; empty if there is none."""
    if position is None:
        return ""
    partly = position.sequence is not None and position.subsequence != WHOLE_RECORD
    return f"{position.text}:{position.subsequence}" if partly else position.text


def row_of(step: Step, shard: Shard, key: str, stream_name: str | None) -> Lease:
    """The row that ``step``, which writes one, stands for."""
    return replace(new_lease(key, shard, TRIM_HORIZON, stream_name=stream_name), checkpoint=step.checkpoint or _END)


def plan(
    shards: Sequence[Shard], positions: Iterable[Position], leases: Mapping[str, Lease], begun: Collection[str], start: StartKind
) -> list[Step]:
    """A step for each of ``shards``, all that the stream lists, and for each position of another shard; ordered by shard id.

    ``leases`` by shard id; ``begun``: the shards that are in the commit log; ``start``: where the pipeline begins a shard without a row.
    """
    by_shard = {each.shard: each for each in positions}
    decided = _Plan(shards, by_shard, leases, begun, start).steps()
    gone = [
        Step(name, Fate.GONE, "the stream has no such shard", by_shard[name].reached)
        for name in by_shard.keys() - {s.shard_id for s in shards}
    ]
    return sorted([*decided, *gone], key=lambda step: step.shard)


class _Plan:
    def __init__(
        self,
        shards: Sequence[Shard],
        positions: Mapping[str, Position],
        leases: Mapping[str, Lease],
        begun: Collection[str],
        start: StartKind,
    ) -> None:
        self._graph = {shard.shard_id: shard for shard in shards}
        self._positions = positions
        self._leases = leases
        self._begun = begun
        self._start = start
        self._skipped = self._before_begun()

    def steps(self) -> list[Step]:
        """A step for each listed shard."""
        decided = {name: self._decide(shard) for name, shard in self._graph.items()}
        rows = {name: row_of(step, self._graph[name], name, None) for name, step in decided.items() if step.fate is Fate.WRITE}
        created = {shard.shard_id for shard, _ in missing_leases(self._graph.values(), {**rows, **self._leases}, self._start)}
        begins = f"no position: begins as `start: {self._start}` says"
        # Whether the first worker creates the row only shows when all steps are known.
        return [
            replace(step, fate=Fate.START, why=begins if not self._parents(name) else step.why)
            if step.fate is Fate.WAIT and name in created
            else step
            for name, step in decided.items()
        ]

    def _parents(self, name: str) -> list[str]:
        return [parent for parent in self._graph[name].parents if parent in self._graph]

    def _decide(self, shard: Shard) -> Step:
        name, position = shard.shard_id, self._positions.get(shard.shard_id)
        reached = None if position is None else position.reached
        if name in self._leases or name in self._begun:
            return self._existing(name, reached)
        if reached is not None and (reached.ended or reached.sequence is not None):
            return self._from_position(shard, reached)
        if reached is not None and reached.text == LATEST and not shard.is_open:
            return Step(name, Fate.WRITE, "it is closed, so after its latest record there is nothing", reached, _END)
        if position is None and name in self._skipped:
            return self._without_position(name)
        return self._unread(shard, position, reached)

    def _from_position(self, shard: Shard, reached: ExtendedSequenceNumber) -> Step:
        name = shard.shard_id
        if reached.sequence is not None and reached.sequence < shard.begins:
            why = f"that is no record of this shard, whose numbers begin at {shard.begins}: it belongs to another shard or stream"
            return Step(name, Fate.REFUSE, why, reached)
        return Step(name, Fate.WRITE, "read to its end" if reached.ended else "continues after this record", reached, reached)

    def _without_position(self, name: str) -> Step:
        """A shard without a position that comes before one that was begun."""
        later, before = self._skipped[name], self._unfinished_ancestor(name)
        if before is None:
            return Step(name, Fate.WRITE, f"no position, but {later} that continues it was begun: taken as read to its end", None, _END)
        why = (
            f"it has no position, although {later}, which continues it, was begun, and {before}, which it continues, is not finished: "
            "import a CSV file that says how far it was read"
        )
        return Step(name, Fate.REFUSE, why)

    def _existing(self, name: str, reached: ExtendedSequenceNumber | None) -> Step:
        lease = self._leases.get(name)
        if lease is None:
            if reached is None or reached.sequence is None:
                return Step(name, Fate.KEEP, "it is in the commit log already, which continues by itself", reached)
            why = "the commit log has begun this shard without the position: import before the first run, or under another application name"
            return Step(name, Fate.REFUSE, why, reached)
        at = _furthest(lease)
        if reached is None or _rank(at, reached) >= _rank(reached, reached):
            return Step(name, Fate.KEEP, f"its row is there already, at {shown(at)}", reached)
        why = f"its row is at {shown(at)}, before the position, and rows are never changed: stop all workers, delete the row, import again"
        return Step(name, Fate.REFUSE, why, reached)

    def _unread(self, shard: Shard, position: Position | None, reached: ExtendedSequenceNumber | None) -> Step:
        """A shard of which nothing was read as far as its position says."""
        name, word = shard.shard_id, None if reached is None else reached.text
        continues = any(each in self._positions or each in self._skipped for each in self._parents(name))
        closed = position is not None and not shard.is_open
        whole = word == TRIM_HORIZON or (word is None and (continues or closed))
        if whole and self._start is StartKind.AT_TIMESTAMP:
            why = (
                f"nothing of it was read, and with `start: {self._start}` records of it may be left out: set source.kinesis.start: "
                "trim_horizon, which does not apply to shards that have a position"
            )
            return Step(name, Fate.REFUSE, why, reached)
        if word == LATEST and self._start is not StartKind.LATEST:
            why = (
                f"with `start: {self._start}`, older records of it would be read: set source.kinesis.start: latest, or give the sequence "
                "number after which it continues"
            )
            return Step(name, Fate.REFUSE, why, reached)
        root = not self._parents(name)
        if closed or (word == TRIM_HORIZON and root and self._start is StartKind.LATEST):
            # A shard that continues it may have a row, and then no worker would ever create one for this; or it would begin at the tip.
            return Step(
                name, Fate.WRITE, "nothing of it was read: it is read from its start", reached, ExtendedSequenceNumber(TRIM_HORIZON)
            )
        return Step(name, Fate.WAIT, "is read from its start, after the shards that it continues", reached)

    def _before_begun(self) -> dict[str, str]:
        """Shards that lead to one that was begun, each with the first such shard."""
        found: dict[str, str] = {}
        for name, position in sorted(self._positions.items()):
            if position.reached is None or position.reached.ended or position.reached.sequence is not None:
                for ancestor in self._ancestors(name):
                    found.setdefault(ancestor, name)
        return found

    def _unfinished_ancestor(self, name: str) -> str | None:
        for ancestor in sorted(self._ancestors(name)):
            position = self._positions.get(ancestor)
            if position is not None and position.reached is not None and position.reached.sequence is not None:
                return ancestor
        return None

    def _ancestors(self, name: str) -> set[str]:
        """All listed shards that ``name`` continues, directly or not."""
        found: set[str] = set()
        rest = [name]
        while rest:
            parents = self._graph[each].parents if (each := rest.pop()) in self._graph else ()
            fresh = [parent for parent in parents if parent in self._graph and parent not in found]
            found.update(fresh)
            rest += fresh
        return found


def _furthest(lease: Lease) -> ExtendedSequenceNumber:
    """How far the row says that its shard was read, whoever wrote it."""
    progress = lease.progress
    if progress is None or lease.ended:
        return lease.checkpoint
    ours = _END if progress.position is None else ExtendedSequenceNumber(str(progress.position), progress.subsequence)
    return max(ours, lease.checkpoint, key=lambda each: each.rank)


def _rank(position: ExtendedSequenceNumber, wanted: ExtendedSequenceNumber) -> tuple[int, int, int]:
    """The rank of ``position``, without its user record where ``wanted`` is a whole record."""
    whole = wanted.sequence is not None and wanted.subsequence == WHOLE_RECORD
    return (*position.rank[:2], 0) if whole else position.rank
