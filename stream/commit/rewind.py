"""Rewind and skip: the two ways in which an operator can move a shard. Both are links of its chain.

A rewind ends the chain with a link at its head, where the next unit would begin. It is therefore created or refused like any unit: a worker
that is about to commit there loses the race, finds the link and follows it. The link lists every file that the rewind removes; whoever
seals the link, or finds it, removes them. The shard continues in the chain of its next generation, which has another name, as do its files.
So nothing that a stalled worker of the old generation writes or removes later can affect a file of the new one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from stream.batch import ORIGIN
from stream.commit.committer import Head
from stream.commit.log import CommitLog
from stream.commit.lookup import unit_start
from stream.commit.manifest import FileEntry, Kind, Manifest, State
from stream.contracts import Shard
from stream.errors import DefinitionError

LEDGER: Final = "ledger"
"""Name of the target for ledger segments, which record the outcome of each record."""


@dataclass(frozen=True, slots=True)
class History:
    """The links of all generations of one shard that are still in force, in order; each begins where its predecessor ends.

    ``shard`` has the current generation; ``start`` is where its chain begins; ``end`` is the link that ends the shard, if there is one.
    """

    shard: Shard
    links: tuple[Manifest, ...]
    end: Manifest | None = None
    start: int = ORIGIN

    @property
    def head(self) -> int:
        """The last committed sequence number."""
        return self.links[-1].reach if self.links else ORIGIN


def effective(chain: Iterable[Manifest], before: Sequence[Manifest] = ()) -> tuple[Manifest, ...]:
    """The links in force after one more generation: ``chain`` has its sealed links, ``before`` those in force until then."""
    links = list(before)
    for manifest in chain:
        if manifest.target is not None:
            target = int(manifest.target)
            links = [link for link in links if link.reach <= target]
        elif manifest.kind is not Kind.END:
            links.append(manifest)
    return tuple(links)


async def history(log: CommitLog, shard: Shard, sequence: int = ORIGIN) -> History:
    """The history of ``shard`` over all generations; with ``sequence``, only from the link before the one that contains it."""
    links: tuple[Manifest, ...] = ()
    shard = replace(shard, generation=0)
    start = ORIGIN
    while True:
        since = await _start_of_link_before(log, shard, sequence)
        chain = [entry.manifest async for entry in log.chain(shard.stream, shard.chain, since) if entry.manifest.sealed]
        links = effective(chain, links)
        last = chain[-1] if chain else None
        if last is None or last.target is None:
            return History(shard, links, last if last is not None and last.kind is Kind.END else None, start)
        start = int(last.target)
        shard = replace(shard, generation=shard.generation + 1)


async def _start_of_link_before(log: CommitLog, shard: Shard, sequence: int) -> int | None:
    """The start of the link before the one that contains ``sequence``; None for the beginning of the chain."""
    start = await unit_start(log.store, shard.stream, shard.chain, sequence)
    return None if start is None else await unit_start(log.store, shard.stream, shard.chain, start)


def target_for(known: History, sequence: int) -> int:
    """Where to rewind to so that the record ``sequence`` is processed again: the start of the unit that contains it.

    Raises:
        DefinitionError: no committed unit contains it, or the shard has ended.
    """
    if known.end is not None:
        msg = (
            f"{known.shard.stream}/{known.shard.shard_id} has been read to its end and its children have begun; a rewind would put its "
            "records after theirs. Rewind only open shards, or read the stream again with another application name"
        )
        raise DefinitionError(msg)
    for link in known.links:
        if link.reach >= sequence:
            return int(link.after)
    msg = f"{known.shard.stream}/{known.shard.shard_id} is committed up to {known.head}; records after that cannot be processed again"
    raise DefinitionError(msg)


def rewind_link(log: CommitLog, known: History, head: Head, target: int, note: str, now: str) -> Manifest:
    """The link that ends the chain of ``known`` at ``head`` and goes back to ``target``, where one of its links ends.

    Ledger segments are kept: they say what the outcomes were before the rewind.
    """
    removed = [link for link in known.links if int(link.after) >= target]
    target_link = next((link for link in known.links if link.reach == target), None)
    return Manifest(
        kind=Kind.REWIND,
        state=State.INTENT,
        application=log.application,
        stream=known.shard.stream,
        shard=known.shard.chain,
        after=str(head.position),
        target=str(target),
        subsequence=target_link.subsequence if target_link is not None else 0,
        superseded=_files(removed),
        previous=head.previous,
        trigger="operator",
        note=note,
        worker=log.worker,
        created_at=now,
    )


def skip_link(log: CommitLog, shard: Shard, head: Head, last: int, note: str, now: str) -> Manifest:
    """The link that records that the records after ``head``, up to ``last``, are not processed."""
    if last <= head.position:
        msg = f"{shard.stream}/{shard.shard_id} is committed up to {head.position}; a skip must end after that, not at {last}"
        raise DefinitionError(msg)
    return Manifest(
        kind=Kind.SKIP,
        state=State.INTENT,
        application=log.application,
        stream=shard.stream,
        shard=shard.chain,
        after=str(head.position),
        last=str(last),
        previous=head.previous,
        trigger="operator",
        note=note,
        worker=log.worker,
        created_at=now,
    )


def _files(links: Iterable[Manifest]) -> tuple[FileEntry, ...]:
    return tuple(sorted({entry for link in links for entry in link.files if entry.sink != LEDGER}))
