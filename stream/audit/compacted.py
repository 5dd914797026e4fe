"""Checks compacted datasets: that each has every row of the files that its compactions name, once, and no other."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Container
from dataclasses import dataclass, field
from typing import Final, Protocol

import polars as pl

from stream.audit.chain import Link
from stream.audit.ledger import LedgerObject, Segment
from stream.audit.objects import misplaced
from stream.audit.outputs import DAMAGE, damage, rows_of
from stream.audit.report import Check, Finding, Verdict
from stream.batch import SEQUENCE, SUBSEQUENCE
from stream.concurrency import run_concurrently

AT_ONCE: Final = 8
"""Units whose manifests and ledgers are read at a time."""


@dataclass(frozen=True, slots=True)
class Part:
    """The rows of one compacted file ``file`` of the unit ``(after, last]`` of ``shard``: in its output, from row ``first_row`` on."""

    shard: str
    after: int
    last: int
    file: LedgerObject
    output: int
    first_row: int


@dataclass(frozen=True, slots=True)
class CompactionView:
    """One compaction. ``key``: of its record; ``problems``: how that was changed; ``root``: URL of the dataset that has its ``outputs``.

    Unless ``published``, the outputs may be missing; if ``withdrawn``, they must not be there.
    """

    key: str
    problems: tuple[str, ...] = ()
    published: bool = False
    withdrawn: bool = False
    root: str = ""
    parts: tuple[Part, ...] = ()
    outputs: tuple[LedgerObject, ...] = ()


class Compacted(Protocol):
    """What the verifier can read of compactions of one stream's files."""

    def all(self) -> AsyncIterator[CompactionView]:
        """All compactions, partition by partition."""
        ...

    async def has(self, unit: Link, file: LedgerObject) -> bool | None:
        """Whether a published compaction has the rows of a file; None if none has come so far in its shard."""
        ...

    async def part(self, sink: str, shard: str, after: int, key: str) -> tuple[str, LedgerObject, int] | None:
        """The root of the dataset, the compacted file that has the rows of the file ``key``, and the row there with which they begin.

        The file is of the unit of ``shard`` that begins after ``after``. None if no published compaction has it.
        """
        ...

    async def read(self, root: str, key: str) -> bytes | None:
        """The bytes of a file of a dataset."""
        ...

    def listed(self, root: str) -> AsyncIterator[str]:
        """The keys of all files of a dataset, except those of other streams of the application."""
        ...

    async def names(self, root: str, key: str) -> bool:
        """Whether a compaction names that output now."""
        ...


@dataclass(slots=True)
class _Dataset:
    """What the compactions name in one dataset: keys of outputs, and those of them that must be there."""

    named: set[str] = field(default_factory=set)
    needed: set[str] = field(default_factory=set)


UnitReader = Callable[[str, int], Awaitable[tuple[Link, Segment | None] | None]]
"""Reads a unit's sealed manifest and ledger segment, by chain and start; the segment is None if it cannot be read."""


class CompactionCheck:
    """The check of all compactions of a stream. ``taken_back``: chain and start of the units that a rewind superseded.

    ``contents``: read the outputs, and compare every row's record with the ledger. ``whole``: also look for files that no compaction names.
    """

    def __init__(
        self,
        compacted: Compacted,
        unit: UnitReader,
        taken_back: Container[tuple[str, int]],
        wanted: Callable[[str, int, int], bool],
        *,
        contents: bool,
        whole: bool,
    ) -> None:
        self.compacted = compacted
        self.unit = unit
        self.taken_back = taken_back
        self.wanted = wanted
        self.contents = contents
        self.whole = whole
        self.findings: list[Finding] = []
        self.files = 0

    async def run(self) -> None:
        """Fill in ``findings``, and in ``files`` the number of outputs."""
        datasets: dict[str, _Dataset] = {}
        async for view in self.compacted.all():
            self.findings += [_finding(view.key, why, Check.SEAL) for why in view.problems]
            if view.withdrawn or view.problems:
                continue
            dataset = datasets.setdefault(view.root, _Dataset())
            keys = {output.key for output in view.outputs}
            dataset.named |= keys
            if view.published and any(self.wanted(part.shard, part.after, part.last) for part in view.parts):
                dataset.needed |= keys
                self.files += len(keys)
                if self.contents:
                    await self._compaction(view)
        for root, dataset in datasets.items():
            await self._listing(root, dataset)

    async def _listing(self, root: str, dataset: _Dataset) -> None:
        if not self.whole and (self.contents or not dataset.needed):
            return
        seen = set()
        async for key in self.compacted.listed(root):
            seen.add(key)
            # It may be of a compaction that was begun meanwhile.
            if self.whole and key not in dataset.named and not await self.compacted.names(root, key):
                why = "no compaction names this file, but a reader of the dataset sees it: find out who wrote it, and delete it"
                self.findings.append(_finding(_url(root, key), why))
        if not self.contents:
            for key in sorted(dataset.needed - seen):
                self.findings.append(_finding(_url(root, key), "the compacted file is missing"))

    async def _compaction(self, view: CompactionView) -> None:
        bodies: dict[int, pl.DataFrame | None] = {}
        for at, output in enumerate(view.outputs):
            bodies[at] = await self._lineage(view, output)
        await run_concurrently([self._part(view, part, bodies[part.output]) for part in view.parts], AT_ONCE)

    async def _lineage(self, view: CompactionView, output: LedgerObject) -> pl.DataFrame | None:
        """The lineage columns of an output; None if it is damaged or has none."""
        url = _url(view.root, output.key)
        body = await self.compacted.read(view.root, output.key)
        if body is None:
            self.findings.append(_finding(url, f"the compacted file is missing; {output.rows} rows were published in it"))
            return None
        if (len(body), hashlib.sha256(body).hexdigest()) != (output.size, output.sha256):
            self.findings.append(_finding(url, "the compacted file has other content than was published"))
            return None
        try:
            found = rows_of(output.key, body)
            if not {SEQUENCE, SUBSEQUENCE} <= set(found.collect_schema()):
                return None
            lineage = found.select(SEQUENCE, pl.col(SUBSEQUENCE).cast(pl.UInt32)).collect()
        except DAMAGE as error:
            self.findings.append(_finding(url, f"the compacted file cannot be read: {damage(error)}"))
            return None
        if lineage.height != output.rows:
            self.findings.append(_finding(url, f"the compacted file has {lineage.height} rows, but the compaction says {output.rows}"))
            return None
        return lineage

    async def _part(self, view: CompactionView, part: Part, lineage: pl.DataFrame | None) -> None:
        url = _url(view.root, view.outputs[part.output].key)
        found = await self.unit(part.shard, part.after)
        file = None if found is None else next((each for each in found[0].files if each == part.file), None)
        if found is None or file is None or (part.shard, part.after) in self.taken_back:
            how = "no sealed manifest lists" if file is None else "a rewind took back"
            why = f"it has the rows of {part.file.key}, which {how}"
            self.findings.append(_finding(url, why, shard=part.shard, after=str(part.after), last=str(part.last)))
            return
        link, segment = found
        if lineage is not None and segment is not None:
            self.findings += misplaced(link, segment, file, url, lineage.slice(part.first_row, part.file.rows))


def _url(root: str, key: str) -> str:
    return f"{root.removesuffix('/')}/{key}"


def _finding(place: str, why: str, check: Check = Check.OBJECTS, shard: str = "", after: str = "", last: str = "") -> Finding:
    return Finding(shard, check, Verdict.FAILED, why, after, last, object=place)
