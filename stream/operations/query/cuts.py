"""Where the sealed part of each shard ends at one moment, and which units are in force up to there, by the commit log alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from stream.audit.chain import Bounds, Followed, Link, LinkKind, arrivals, follow, superseded
from stream.audit.report import Verdict
from stream.batch import ORIGIN
from stream.commit.log import CommitLog
from stream.commit.lookup import PAGE, last_starts, starts_of
from stream.commit.manifest import unpinned
from stream.contracts import Checkpoint, Checkpoints, Shard, Start, StartKind, shard_of_chain
from stream.errors import StreamError
from stream.operations.compaction.opening import MARGIN
from stream.operations.progress.completeness import tip_of
from stream.worker.opening.evidence import StoredEvidence

_PASSED: Final = frozenset({LinkKind.GAP, LinkKind.FOREIGN, LinkKind.SKIP})
"""Kinds of links whose records are in no file and never will be."""


class DamagedLogError(StreamError):
    """The log of a shard is damaged, so that it is not known what is sealed."""


@dataclass(frozen=True, slots=True)
class ShardCut:
    """One shard as its log was at one moment.

    ``shard``: with its newest generation. ``position``: the last sequence number that is sealed. ``after``: the number after which records
    are not decided; greater than ``position`` only where what lies between will never be in a file. ``units``: those in force, in order,
    as far as the bounds touch them. ``begun``: the unit after ``position``, if a worker has begun it. ``ended``: nothing follows.
    ``newest``: the newest unit of the shard, begun or sealed, whose definition the worker has. ``start``: where to read if nothing is
    sealed. ``sealed_to``: when the last sealed record arrived; ``complete_until`` as for ``contracts.Source.read``. ``foreign_subsequence``
    as in ``CutUnit``.
    """

    shard: Shard
    position: int
    after: int
    units: tuple[Link, ...]
    begun: Link | None = None
    ended: bool = False
    newest: Link | None = None
    start: Start = Start(StartKind.TRIM_HORIZON)  # noqa: RUF009 - it is frozen
    sealed_to: datetime | None = None
    complete_until: datetime | None = None
    foreign_subsequence: int = -1


@dataclass(frozen=True, slots=True)
class CutReader:
    """Reads the cuts of one chain of one application. ``start``: where a shard without a chain would begin to be read."""

    evidence: StoredEvidence
    log: CommitLog
    checkpoints: Checkpoints
    start: Start
    bounds: Bounds = Bounds()  # noqa: RUF009 - it is frozen

    async def cut(self, shard_id: str) -> ShardCut:
        """The cut of one shard. What is sealed, rewound or begun after this has read it does not count.

        Raises:
            DamagedLogError: the log is damaged, so that it is not known what is sealed.
        """
        shard = Shard(self.evidence.stream, shard_id)
        hint = await self.checkpoints.read(shard)
        chains: dict[str, Followed] = {}
        head = ORIGIN
        while True:
            chain = await self._chain(shard, hint)
            if chain is not None:
                chains[shard.chain] = chain
                head = chain.head
            if chain is None or chain.rewind is None or chain.rewind.target is None:
                break
            head = chain.rewind.target
            shard = replace(shard, generation=shard.generation + 1)
        return await self._cut(shard, head, chains, hint)

    async def _cut(self, shard: Shard, head: int, chains: Mapping[str, Followed], hint: Checkpoint | None) -> ShardCut:
        newest = chains.get(shard.chain)
        gone = superseded(chains)
        links = [link for chain in chains.values() for link in chain.units if (link.shard, link.after) not in gone]
        units = [link for link in links if link.kind is LinkKind.UNIT]
        last = next((link for link in reversed(links) if link.last == head), None)
        intent = newest.intent if newest is not None else None
        begun = intent if intent is not None and intent.kind is LinkKind.UNIT else None
        after, foreign = max(head, _decided(intent)), await self._foreign(shard, last)
        reached = hint.foreign_after(after) if hint is not None else None
        if reached is not None and reached.position is not None:
            after, foreign = reached.position - 1, reached.subsequence
        sealed_to = arrivals(last)[1] if last is not None else None
        tip = tip_of(hint, shard.generation, head)
        return ShardCut(
            shard,
            head,
            after,
            tuple(link for link in units if self.bounds.touches(link)),
            begun,
            ended=(newest is not None and newest.end is not None)
            or (intent is not None and intent.kind is LinkKind.END)
            or (reached is not None and reached.position is None),
            newest=begun or max(units, key=_created, default=None),
            start=await self._start(shard) if head == ORIGIN else self.start,
            sealed_to=sealed_to,
            complete_until=max((each for each in (sealed_to, tip) if each is not None), default=None),
            foreign_subsequence=foreign,
        )

    async def _chain(self, shard: Shard, hint: Checkpoint | None) -> Followed | None:
        """The chain, from where the bounds begin to touch it; None if it does not exist."""
        log = await self.evidence.log(shard.chain, await self._entry(shard, hint))
        if not log.links and not log.unreadable:
            return None
        chain, findings = follow(log)
        failed = next((each for each in findings if each.verdict is Verdict.FAILED), None)
        # What was begun when its manifest was read may be sealed, and followed by others, when those are read.
        if failed is not None and (chain.intent is None or log.unreadable):
            msg = f"{shard.stream}/{shard.chain}: {failed.object} {failed.message}; `stream audit verify` says what else is wrong"
            raise DamagedLogError(msg)
        return chain

    async def _entry(self, shard: Shard, hint: Checkpoint | None) -> int:
        """A position of the chain before which nothing arrived at the beginning of the bounds or later."""
        begin, store = self.bounds.begin, self.log.store
        if begin is None:
            return ORIGIN
        near = hint.unit_after if hint is not None and hint.generation == shard.generation else ORIGIN
        starts = await last_starts(store, shard.stream, shard.chain, PAGE - 1, near)
        if len(starts) == PAGE - 1 and not await self._before(shard, starts[0], begin):
            starts = [each async for each in starts_of(store, shard.stream, shard.chain)]
        low, high = 0, len(starts)
        while low < high:
            middle = (low + high) // 2
            if await self._before(shard, starts[middle], begin):
                low = middle + 1
            else:
                high = middle
        return starts[low - 1] if low else ORIGIN

    async def _before(self, shard: Shard, start: int, begin: datetime) -> bool:
        """Whether all records of the unit that begins after ``start``, and of those before it, arrived before ``begin``."""
        link = await self.evidence.unit(shard.chain, start)
        last = arrivals(link)[1] if link is not None and link.sealed else None
        return last is not None and last < begin - MARGIN

    async def _foreign(self, shard: Shard, last: Link | None) -> int:
        if last is None or last.kind is not LinkKind.FOREIGN:
            return -1
        entry = await self.log.read(replace(shard, generation=shard_of_chain(last.shard)[1]), last.after)
        return -1 if entry is None else entry.manifest.foreign_subsequence

    async def _start(self, shard: Shard) -> Start:
        """Where the chain begins to read the stream, if it exists."""
        genesis = await self.log.genesis(shard)
        return self.start if genesis is None or genesis.manifest.start is None else unpinned(genesis.manifest.start)


def _decided(intent: Link | None) -> int:
    """The end of what is decided, though not sealed: records that will be in no file."""
    return intent.last or ORIGIN if intent is not None and intent.kind in _PASSED else ORIGIN


def _created(link: Link) -> datetime:
    return datetime.fromisoformat(link.created_at) if link.created_at else datetime.min.replace(tzinfo=UTC)


def newest_definition(cuts: Mapping[str, ShardCut]) -> str | None:
    """The digest of the definition that the newest unit of all shards was begun with: the one that workers have."""
    newest = max(_newest(cuts), key=_created, default=None)
    return None if newest is None else newest.pipeline


def _newest(cuts: Mapping[str, ShardCut]) -> Iterator[Link]:
    return (cut.newest for cut in cuts.values() if cut.newest is not None)
