"""The files of a sink that are in no compaction yet, by the log, and what rewinds took back of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from stream.batch import ORIGIN
from stream.commit.claims import Claims
from stream.commit.compaction import FOLDER, Catalogue, Compaction, SealedFile, is_taken
from stream.commit.log import CommitLog
from stream.commit.lookup import shards_of
from stream.commit.manifest import Manifest
from stream.concurrency import run_concurrently
from stream.contracts import ObjectStore, Shard, shard_of_chain
from stream.worker.sources.dead_letters import Redrive, chain_name

AT_ONCE: Final = 16
"""Chains that are followed at a time."""


@dataclass(frozen=True, slots=True)
class Scan:
    """The files of the sink by partition, without most of those that are in a compaction.

    ``cutoffs``: by chain, the position up to which a rewind left its units in force. ``heads``: where each chain ends. ``claimed``: by
    chain, the position to which a rewind is about to go back; it may not come to that. ``claims``: how many claims of rewinds and redrives
    there were.
    """

    files: Mapping[str, Sequence[SealedFile]] = field(default_factory=dict)
    cutoffs: Mapping[str, int] = field(default_factory=dict)
    heads: Mapping[str, int] = field(default_factory=dict)
    claimed: Mapping[str, int] = field(default_factory=dict)
    claims: int = 0

    def in_force(self, partition: str) -> list[SealedFile]:
        """The files of a partition that no rewind has taken back."""
        return [each for each in self.files.get(partition, ()) if not rewound(each.shard, each.last, self.cutoffs)]

    def free(self, partition: str) -> list[SealedFile]:
        """Those of them that no rewind is about to take back."""
        return [each for each in self.in_force(partition) if not rewound(each.shard, each.last, self.claimed)]


async def scan(log: CommitLog, catalogue: Catalogue, root: str) -> Scan:
    """Read the log from where the last run has left it. ``root``: where the sink is; files from before it was moved stay where they are.

    Raises:
        Halted: a link of the log cannot be read.
    """
    stream = catalogue.stream
    # Before the log, so that of a rewind either the claim or the link is seen.
    claimed, claims = await _claimed_since(log.store, stream, 0)
    chains = [name async for name in shards_of(log.store, stream)]
    cursor = await catalogue.cursor()
    found: dict[str, list[SealedFile]] = {}
    heads: dict[str, int] = {}
    targets: dict[str, int] = {}

    async def one(chain: str) -> None:
        heads[chain] = start = cursor[chain] if chain in cursor else await log.chain_start(stream, chain)
        async for entry in log.chain(stream, chain, start):
            link = entry.manifest
            if link.target is not None:
                targets[chain] = int(link.target)
            elif link.sealed and link.last is not None:
                heads[chain] = int(link.last)
                for file in _files_of(link, catalogue.sink, root):
                    found.setdefault(file.partition, []).append(file)

    await run_concurrently([one(chain) for chain in chains], AT_ONCE)
    return Scan(dict(sorted(found.items())), cutoffs_of(targets), heads, cutoffs_of(claimed), claims)


async def _claimed_since(store: ObjectStore, stream: str, last: int) -> tuple[dict[str, int], int]:
    """By chain, the target of a rewind with a claim after number ``last`` whose link is not there yet; and the number of all claims."""
    found: dict[str, int] = {}
    async for number, claim in Claims(store, chain_name(stream), Redrive).after(last):
        if claim.link and claim.target and await store.get(claim.link) is None:
            chain = claim.link.split("/")[-2]
            found[chain] = min(int(claim.target), found.get(chain, int(claim.target)))
        last = number
    return found, last


def _files_of(link: Manifest, sink: str, root: str) -> Iterator[SealedFile]:
    if link.targets.get(sink, root) != root:
        return
    arrived = datetime.fromisoformat(link.last_arrival or link.sealed_at)
    for file in link.files:
        if file.sink == sink and is_taken(file.key):
            yield SealedFile(link.shard, int(link.after), link.reach, file.key, file.rows, file.size, file.sha256, arrived)


async def rewound_since(log: CommitLog, stream: str, compaction: Compaction, known: Scan) -> bool:
    """Whether a source of ``compaction`` has been taken back by a rewind since the scan, or is about to be."""
    shards = {shard_of_chain(each.shard)[0] for each in compaction.sources}
    targets, _ = await _claimed_since(log.store, stream, known.claims)
    for chain in [name async for name in shards_of(log.store, stream) if shard_of_chain(name)[0] in shards]:
        async for entry in log.chain(stream, chain, known.heads.get(chain)):
            if entry.manifest.target is not None:
                targets[chain] = int(entry.manifest.target)
    cutoffs = cutoffs_of(targets)
    return any(rewound(each.shard, int(each.last), cutoffs) for each in compaction.sources)


async def compacted_to(store: ObjectStore, stream: str) -> dict[str, int]:
    """By chain, the position up to which files were compacted, in any partition of any sink, or are being compacted."""
    found: dict[str, int] = {}

    async def one(catalogue: Catalogue, partition: str) -> None:
        newest = await catalogue.newest(partition)
        for chain, last in newest.compaction.covered.items() if newest is not None else ():
            found[chain] = max(int(last), found.get(chain, ORIGIN))

    for sink in await store.folders(f"{FOLDER}{stream}/"):
        catalogue = Catalogue(store, stream, sink)
        await run_concurrently([one(catalogue, name) for name in await catalogue.partitions()], AT_ONCE)
    return found


def cutoffs_of(targets: Mapping[str, int]) -> dict[str, int]:
    """By chain, the position up to which its units are still in force, if it was rewound; from the targets of all rewinds.

    A rewind goes back over units of its own generation and of those before it.
    """
    found: dict[str, int] = {}
    for chain, target in targets.items():
        shard_id, last = shard_of_chain(chain)
        for generation in range(last + 1):
            name = _chain(shard_id, generation)
            found[name] = min(target, found.get(name, target))
    return found


def _chain(shard_id: str, generation: int) -> str:
    """The name of the chain of a shard's generation."""
    return Shard("", shard_id, generation=generation).chain


def rewound(chain: str, last: int, cutoffs: Mapping[str, int]) -> bool:
    """Whether a rewind took back the unit of ``chain`` that ends with ``last``."""
    return chain in cutoffs and last > cutoffs[chain]
