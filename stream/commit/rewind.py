"""Rewind and skip: an operator's two ways to move a shard, as links of its chain.

A rewind ends the chain with a link at its head, where the next unit would begin. It is therefore created or refused like any unit: a worker
that is about to commit there loses, finds the link and follows it. The link lists every file that the rewind removes; whoever seals the
link, or finds it, removes them. The shard continues in the chain of its next generation, under another name, which its files carry too.
So nothing that a frozen worker of the old generation writes or removes late can touch a file of the new one.
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
"""Name of the target that keeps what became of each record."""


@dataclass(frozen=True, slots=True)
class History:
    """The links of all generations of one shard that still count, in order, each beginning where the one before it ends.

    ``shard`` names the generation to which units are committed now; ``start`` is where its chain begins; ``end`` is the shard's end, if it
    has been read to there.
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
    """The links that count after one more generation, given its sealed links ``chain`` and the links that counted ``before`` it."""
    links = list(before)
    for manifest in chain:
        if manifest.target is not None:
            target = int(manifest.target)
            links = [link for link in links if link.reach <= target]
        elif manifest.kind is not Kind.END:
            links.append(manifest)
    return tuple(links)


async def history(log: CommitLog, shard: Shard, wanted: int = ORIGIN) -> History:
    """All generations of ``shard``, read from the log; with ``wanted``, only back to the link before the one that holds it."""
    links: tuple[Manifest, ...] = ()
    shard = replace(shard, generation=0)
    start = ORIGIN
    while True:
        since = await _before(log, shard, wanted)
        chain = [entry.manifest async for entry in log.chain(shard.stream, shard.chain, since) if entry.manifest.sealed]
        links = effective(chain, links)
        last = chain[-1] if chain else None
        if last is None or last.target is None:
            return History(shard, links, last if last is not None and last.kind is Kind.END else None, start)
        start = int(last.target)
        shard = replace(shard, generation=shard.generation + 1)


async def _before(log: CommitLog, shard: Shard, wanted: int) -> int | None:
    """Where the link of the chain begins before the one that holds ``wanted``; None for the beginning of the chain."""
    start = await unit_start(log.store, shard.stream, shard.chain, wanted)
    return None if start is None else await unit_start(log.store, shard.stream, shard.chain, start)


def target_for(known: History, wanted: int) -> int:
    """Where to rewind to so that the record ``wanted`` is processed again: the end of the unit before the one that holds it.

    Raises:
        DefinitionError: no committed unit holds it, or the shard has ended.
    """
    if known.end is not None:
        msg = (
            f"{known.shard.stream}/{known.shard.shard_id} has been read to its end and its children have begun; a rewind would put its "
            "records after theirs. Rewind only open shards, or read the stream again with another application name"
        )
        raise DefinitionError(msg)
    for link in known.links:
        if link.reach >= wanted:
            return int(link.after)
    msg = f"{known.shard.stream}/{known.shard.shard_id} is committed up to {known.head}; records after that cannot be processed again"
    raise DefinitionError(msg)


def rewind_link(log: CommitLog, known: History, head: Head, target: int, note: str, now: str) -> Manifest:
    """The link that ends the chain of ``known`` at ``head`` and goes back to ``target``, the end of one of its links.

    Ledger segments are kept: they say what had become of the records.
    """
    gone = [link for link in known.links if int(link.after) >= target]
    at = next((link for link in known.links if link.reach == target), None)
    return Manifest(
        kind=Kind.REWIND,
        state=State.INTENT,
        application=log.application,
        stream=known.shard.stream,
        shard=known.shard.chain,
        after=str(head.position),
        target=str(target),
        subsequence=at.subsequence if at is not None else 0,
        superseded=_files(gone),
        previous=head.previous,
        trigger="operator",
        note=note,
        worker=log.worker,
        created_at=now,
    )


def skip_link(log: CommitLog, shard: Shard, head: Head, last: int, note: str, now: str) -> Manifest:
    """The link that says that nobody processes the records after ``head`` up to ``last``."""
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
