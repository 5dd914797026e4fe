"""Finds one record: its unit in the log, and its outcome in the ledger, or in the files if the ledger is lost."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

import msgspec
import polars as pl

from stream.audit import ids
from stream.audit.chain import Bounds, Link, LinkKind
from stream.audit.criteria import Criteria, in_segment
from stream.audit.ledger import NAME as LEDGER
from stream.audit.ledger import LedgerObject, Segment, SegmentError, read_segment
from stream.audit.objects import Area, unit_of, url_in
from stream.audit.outputs import DamagedFileError, genuine
from stream.audit.trace import EXPLAINED, Fate, Place, RecordQuery, Row, are_apart, fates, find, record_at, record_of, without_ledger
from stream.batch import ORIGIN, SEQUENCE, Outcome
from stream.commit.log import CommitLog
from stream.commit.lookup import shards_of, unit_start
from stream.commit.naming import manifest_key
from stream.concurrency import run_concurrently
from stream.contracts import CONSOLE, ObjectStore, Shard, shard_of_chain
from stream.errors import DefinitionError, Halted
from stream.lease.checkpoints import StoredCheckpoints
from stream.operations.records.originals import Originals
from stream.operations.records.search_extent import ALL, MOST_FOUND, SearchExtent, newest_starts, starts_within
from stream.operations.records.unit_files import Matches, Rows, UnitFiles
from stream.sink.rejects import NAME as REJECTS
from stream.worker.opening.compacted import CompactedFiles
from stream.worker.opening.links import link_of

SEARCHED_AT_ONCE: Final = 8
"""Units whose files are fetched at a time in a search."""

NAMED: Final = 5
"""Most shards that an explanation names."""


class Tracer:
    """Finds records of one stream in one application's log.

    ``open_place`` opens the URL at which a sink was when an older unit was sealed, or that of a compacted dataset. ``loaded``: in which
    table the rows that a link has for a sink certainly are, in words; empty if that is not known.
    """

    def __init__(
        self,
        log: CommitLog,
        stream: str,
        areas: Mapping[str, Area],
        open_place: Callable[[str], ObjectStore] | None = None,
        loaded: Callable[[Link, str], Awaitable[str]] | None = None,
    ) -> None:
        self._log = log
        self._checkpoints = StoredCheckpoints(log.store)
        self._stream = stream
        self._areas = areas
        self._loaded = loaded
        self._compacted = CompactedFiles(log.store, stream, open_place, {})
        self._files = UnitFiles(log.store, areas, self._compacted, open_place)
        self._rewound: dict[str, tuple[int, str] | None] = {}

    async def find(self, wanted: RecordQuery) -> list[tuple[Link, Fate]]:
        """What became of the records that ``wanted`` names; empty if no sealed link has one.

        Searches every shard that could hold the number, by bisecting its log. A range that is no unit counts only if no unit has the
        record, since nobody knows which numbers were in it.

        Raises:
            DamagedFileError: the ledger that would say it is missing or damaged, and no file has a row of the record.
        """
        found: list[tuple[Link, Fate]] = []
        ranges: list[tuple[Link, Fate]] = []
        lost: DamagedFileError | None = None
        for shard in await self._chains(wanted):
            link = await self._containing(shard, wanted.sequence)
            if link is None or not link.sealed or link.last is None or link.last < wanted.sequence:
                continue
            if link.kind in EXPLAINED:
                outcome, reason = EXPLAINED[link.kind]
                ranges.append((link, without_ledger(link, str(wanted.sequence), wanted.subsequence or 0, outcome, reason)))
                continue
            try:
                found += await self._in_unit(link, wanted)
            except DamagedFileError as error:
                lost = lost or error
        if lost is not None and not found:
            raise lost
        return [await self._if_taken_back(each) for each in found or ranges]

    async def find_in(self, shard_id: str, wanted: RecordQuery) -> list[tuple[Link, Fate]]:
        """What ``find`` says of a record of that shard, in each of its generations."""
        chains = [each async for each in shards_of(self._log.store, self._stream) if shard_of_chain(each)[0] == shard_id]
        return [each for chain in chains for each in await self.find(replace(wanted, shard=chain))]

    async def explain(self, wanted: RecordQuery) -> list[str]:
        """Why ``find`` finds nothing: a sentence for each reason, with the shards that it concerns."""
        if wanted.subsequence is not None and (found := await self.find(replace(wanted, subsequence=None))):
            known = sorted(fate.subsequence for _, fate in found)
            return [f"{wanted.sequence} has the user records {known[0]} to {known[-1]}, so {wanted.subsequence} is none of them."]
        begun, later, inside = [], [], []
        chains = await self._chains(wanted)
        for shard in chains:
            if next_generation(shard) in chains:
                continue
            link = await self._containing(shard, wanted.sequence)
            if link is None:
                later.append(f"{shard} (nothing is committed yet)")
            elif link.kind in {LinkKind.END, LinkKind.REWIND}:
                continue
            elif not link.sealed:
                begun.append(f"{shard}: {link.worker} began the unit {_span(link)} at {link.created_at}; it is not sealed yet.")
            elif (link.last or ORIGIN) < wanted.sequence:
                later.append(f"{shard} (committed up to {link.last})")
            else:
                inside.append(f"{shard} {_span(link)}")
        words = list(begun)
        if later:
            words.append(f"It is not committed yet if it is a record of {_some(later)}.")
        if inside:
            words.append(f"Sealed units with this number in their range do not have it: {_some(inside)}.")
        return words

    async def find_row(self, url: str, row: int) -> list[tuple[Link, Fate]]:
        """The record whose rows include row ``row`` (from 0) of the file at ``url`` (or its key), which may be a compacted one.

        Raises:
            DefinitionError: ``url`` is not a file of this pipeline.
        """
        compacted = await self._compacted.origin(url, row)
        if compacted is not None:
            _, origin, row = compacted
            url = origin.key
        name = (origin.shard, int(origin.after)) if compacted is not None else unit_of(url, self._stream)
        link = await self._link(*name) if name is not None else None
        file = next((each for each in link.files if url in {each.key, self._url(link, each)}), None) if link is not None else None
        if link is None or file is None or not link.sealed or file.sink == LEDGER:
            if await self._compacted.is_output(url):
                return []
            self._refuse_foreign(url)
            if name is None:
                msg = f"{url} is not named as this service names files: [<stream>.]<shard>-<after>-<last>.<part>.<digest>.<extension>"
                raise DefinitionError(msg)
            return []
        segment = await self._segment(link)
        found = await self._fates(await self._record(segment, link, file, row), segment, link)
        return [await self._if_taken_back(each) for each in found]

    async def search(
        self, criteria: Criteria, units: int, bounds: Bounds = ALL, originals: Originals | None = None
    ) -> tuple[list[tuple[Link, Fate]], SearchExtent]:
        """Records that match ``criteria`` in the newest ``units`` of each shard, newest unit first; with ``bounds`` in all units there.

        Columns of the ledger find every record; columns of data files find written ones, since filtered records are in no file. With
        ``originals``, dead letters are found as well. Units are inside of ``bounds`` as a whole.
        """
        found: dict[tuple[str, str, int], tuple[Link, Fate]] = {}
        known = originals if originals is not None and originals.know(criteria.columns) else None
        search, searched = Matches(criteria, known), SearchExtent()
        for shard in [each async for each in shards_of(self._log.store, self._stream)]:

            async def one(start: int, shard: str = shard) -> None:
                if len(found) >= MOST_FOUND:
                    searched.left += 1
                    return
                for link, fate in await self._search_unit(shard, start, search, searched, bounds):
                    found[fate.shard, fate.sequence, fate.subsequence] = link, fate

            if bounds.open:
                starts = await newest_starts(self._log.store, self._checkpoints, Shard(self._stream, shard), units)
            else:
                starts = await starts_within(self._log.store, Shard(self._stream, shard), bounds)
            await run_concurrently([one(start) for start in reversed(starts)], SEARCHED_AT_ONCE)
        newest_first = sorted(found.items(), key=lambda item: (int(item[0][1]), item[0][2]), reverse=True)
        return [await self._if_taken_back(each) for _, each in newest_first], searched

    async def _search_unit(
        self, shard: str, start: int, search: Matches, searched: SearchExtent, bounds: Bounds
    ) -> list[tuple[Link, Fate]]:
        link = await self._link(shard, start)
        if link is None or not link.sealed or link.ledger is None or not bounds.touches(link):
            return []
        searched.units += 1
        if not search.criteria.values:
            try:
                segment = await self._segment(link)
            except Halted:
                searched.without_ledger += 1
                return []
            rows = in_segment(segment.frame.with_row_index("at"), search.criteria.ledger)
            searched.left += rows.height > MOST_FOUND
            return await self._fates(rows.head(MOST_FOUND), segment, link)
        hits = await self._hits(link, search, searched)
        if not hits:
            return []
        try:
            segment = await self._segment(link)
        except Halted as error:
            searched.without_ledger += 1
            found = [each for file, there, rows in hits for each in await self._of_rows(link, file, there, rows, str(error))]
            return [each for each in found if each[1].fits(search.criteria.ledger)]
        rows_of_hits = [await self._record(segment, link, file, row, there) for file, there, rows in hits for row in rows]
        found_rows = in_segment(pl.concat(rows_of_hits).unique("at", maintain_order=True), search.criteria.ledger)
        return await self._fates(found_rows, segment, link)

    async def _hits(self, link: Link, search: Matches, searched: SearchExtent) -> list[tuple[LedgerObject, Rows, list[int]]]:
        """The rows of a unit's files, and its dead letters, that match."""
        hits: list[tuple[LedgerObject, Rows, list[int]]] = []
        for file in link.files:
            if file.sink == LEDGER or (file.sink == REJECTS and search.originals is None) or link.targets.get(file.sink) == CONSOLE:
                continue
            there = await self._files.rows(link, file)
            if there is None:
                searched.gone += 1
                continue
            if file.sink == REJECTS:
                matching = await self._files.letters(there, search)
                searched.letters += file.rows
                searched.by_text += matching.by_text
                inside = list(matching.rows)
            else:
                rows = await self._files.matches(link, there, search)
                searched.files += 1
                searched.columns.update(() if rows is None else rows.columns)
                searched.whole += rows is not None and len(rows.columns) == len(search.criteria.values)
                inside = [row - there.first for row in (() if rows is None else rows.rows) if 0 <= row - there.first < file.rows]
            searched.left += len(inside) > MOST_FOUND
            hits += [(file, there, inside[:MOST_FOUND])] if inside else []
        return hits

    async def _in_unit(self, link: Link, wanted: RecordQuery) -> list[tuple[Link, Fate]]:
        """The records of a unit that ``wanted`` names; without its ledger, as far as its files tell."""
        try:
            segment = await self._segment(link)
        except Halted as error:
            found: list[tuple[Link, Fate]] = []
            for file in link.files:
                there = None if file.sink == LEDGER or link.targets.get(file.sink) == CONSOLE else await self._files.rows(link, file)
                lineage = None if there is None else await self._files.lineage(link, there)
                if there is None or lineage is None:
                    continue
                rows = (lineage[there.first : there.first + file.rows][SEQUENCE] == str(wanted.sequence)).arg_true().to_list()
                found += await self._of_rows(link, file, there, rows, str(error))
            chosen = [each for each in found if wanted.subsequence in {None, each[1].subsequence}]
            if not chosen:
                msg = f"{error}. No file of the unit {_span(link)} names the record in lineage columns, so it may have been filtered"
                raise DamagedFileError(msg) from error
            return chosen
        return await self._fates(find(segment, wanted), segment, link)

    async def _of_rows(self, link: Link, file: LedgerObject, there: Rows, rows: list[int], why: str) -> list[tuple[Link, Fate]]:
        """The records of rows of ``file``, by their lineage columns, for a unit of which no ledger says more."""
        lineage = await self._files.lineage(link, there)
        found: dict[tuple[str, int], tuple[Link, Fate]] = {}
        for row in rows if lineage is not None else ():
            sequence, subsequence = lineage.row(there.first + row)  # type: ignore[union-attr]
            outcome = Outcome.DEAD_LETTERED if file.sink == REJECTS else Outcome.WRITTEN
            place = await self._with_compacted(Place(file.sink, self._url(link, file), row), link)
            fate = without_ledger(link, sequence, subsequence, outcome.label, f"as its file says: {why}", (place,))
            found.setdefault((sequence, subsequence), (link, fate))
        return list(found.values())

    async def _record(self, segment: Segment, link: Link, file: LedgerObject, row: int, there: Rows | None = None) -> pl.DataFrame:
        """The ledger row of the record from which ``row`` of ``file`` came. ``there``: where its rows are, if that is known."""
        if are_apart(segment, file.sink) and 0 <= row < file.rows:
            there = there or await self._files.rows(link, file)
            lineage = None if there is None else await self._files.lineage(link, there)
            if there is not None and lineage is not None:
                return record_of(segment, *lineage.row(there.first + row))
        return record_at(segment, file.sink, file.key, row)

    async def _if_taken_back(self, found: tuple[Link, Fate]) -> tuple[Link, Fate]:
        """The fate, which says so if a rewind took its unit back."""
        link, fate = found
        if link.shard not in self._rewound:
            self._rewound[link.shard] = await self._rewind_after(link.shard)
        rewind = self._rewound[link.shard]
        if rewind is None or (link.last or ORIGIN) <= rewind[0]:
            return found
        return link, msgspec.structs.replace(fate, taken_back=rewind[1])

    async def _rewind_after(self, chain: str) -> tuple[int, str] | None:
        """The lowest position to which the shard was rewound after ``chain`` had been begun, and a phrase about it."""
        shard_id, generation = shard_of_chain(chain)
        found: list[tuple[int, str]] = []
        later = generation + 1
        while (entry := await self._log.genesis(Shard(self._stream, shard_id, generation=later))) is not None:
            target = int(entry.manifest.after)
            found.append((target, f"the shard was rewound to {target}, and read again from there in {entry.manifest.shard}"))
            later += 1
        near = await self._checkpoints.read(Shard(self._stream, shard_id))
        if near is not None and near.generation == later and near.position is not None:
            found.append((near.position, f"the shard was rewound to {near.position}, and is to be read again from there"))
        return min(found, default=None)

    async def _chains(self, wanted: RecordQuery) -> list[str]:
        """The chains that may have the record."""
        return [wanted.shard] if wanted.shard is not None else [shard async for shard in shards_of(self._log.store, self._stream)]

    async def _containing(self, shard: str, sequence: int) -> Link | None:
        """The link that begins last before ``sequence``."""
        start = await unit_start(self._log.store, self._stream, shard, sequence)
        return None if start is None else await self._link(shard, start)

    def _url(self, link: Link, file: LedgerObject) -> str:
        return url_in(link, file.sink, file.key, self._areas)

    def _refuse_foreign(self, url: str) -> None:
        roots = [area.url_of("") for sink, area in self._areas.items() if sink != LEDGER]
        if not url.startswith(tuple(roots)) and ("://" in url or url.startswith(("file:", "/"))):
            msg = f"{url} is in none of this pipeline's targets: {', '.join(roots)}"
            raise DefinitionError(msg)

    async def _fates(self, rows: pl.DataFrame, segment: Segment, link: Link) -> list[tuple[Link, Fate]]:
        known = ids.hex_ids(rows, link.stream, link.shard, link.application)
        found = []
        for fate in fates(rows, segment, link, self._areas, known):
            places = [await self._with_compacted(place, link) for place in fate.places]
            found.append((link, msgspec.structs.replace(fate, places=tuple(places))))
        return found

    async def _with_compacted(self, place: Place, link: Link) -> Place:
        """``place``, and where its row is in the compacted dataset or in a table."""
        file = next((each for each in link.files if each.sink == place.sink and self._url(link, each) == place.url), None)
        there = None if file is None else await self._compacted.place(file.sink, link.shard, link.after, file.key)
        compacted = None if there is None else Row(there[0], there[1] + place.row)
        table = "" if self._loaded is None else await self._loaded(link, place.sink)
        return msgspec.structs.replace(place, compacted=compacted, loaded=table)

    async def _link(self, shard: str, start: int) -> Link | None:
        key = manifest_key(self._stream, shard, start)
        stored = await self._log.store.get(key)
        return None if stored is None else link_of(key, stored.body, start)

    async def _segment(self, link: Link) -> Segment:
        """The ledger segment of a unit; raises ``Halted`` if it is missing or damaged."""
        file = link.ledger
        stored = None if file is None else await self._areas[LEDGER].store.get(file.key)
        what = f"the ledger of {link.shard} after {link.after}"
        if stored is None or file is None:
            msg = f"{what} is missing; `stream audit verify` says what else is"
            raise Halted(msg)
        try:
            return read_segment(genuine(file.key, stored.body, file.sha256))
        except (SegmentError, DamagedFileError) as error:
            msg = f"{what} is damaged: {error}"
            raise Halted(msg) from error


def next_generation(chain: str) -> str:
    """The name of the chain that follows ``chain`` after a rewind."""
    shard_id, generation = shard_of_chain(chain)
    return Shard("", shard_id, generation=generation + 1).chain


def _span(link: Link) -> str:
    return f"({link.after}, {link.last}]"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (f", and {len(names) - NAMED} more" if len(names) > NAMED else "")
