"""Where the rows of a unit's files are now, and which records they are of: a sink may have moved, and a file may have been compacted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl

from stream.audit.chain import Link
from stream.audit.criteria import Criteria, Criterion, InFile, in_file, lineage_of
from stream.audit.ledger import LedgerObject
from stream.audit.objects import Area, former_place
from stream.audit.outputs import DAMAGE, genuine, rows_of, unreadable
from stream.contracts import ObjectStore
from stream.operations.records.originals import Matching, Originals
from stream.sink.partition import INVALID, OVERFLOW, encode_value, values_in
from stream.worker.opening.compacted import CompactedFiles
from stream.worker.opening.separations import Separations


@dataclass(frozen=True, slots=True)
class Rows:
    """Where the rows of a file are now: in ``file``, from row ``first`` on.

    ``body``: its content, if it is the file itself; a compacted file, in the dataset at ``root``, is read when it is needed.
    """

    file: LedgerObject
    first: int = 0
    body: bytes | None = None
    root: str = ""


@dataclass(slots=True)
class Matches:
    """The rows that match ``criteria``, by file: many units have their rows in one compacted file, which is read once.

    ``originals``: what decodes dead letters, if it knows the columns.
    """

    criteria: Criteria
    originals: Originals | None = None
    found: dict[str, asyncio.Future[InFile | None]] = field(default_factory=dict)


class UnitFiles:
    """The files of one stream's units. ``open_place`` opens the URL at which a sink was when an older unit was sealed."""

    def __init__(
        self, state: ObjectStore, areas: Mapping[str, Area], compacted: CompactedFiles, open_place: Callable[[str], ObjectStore] | None
    ) -> None:
        self._areas = areas
        self._compacted = compacted
        self._open = open_place
        self._separations = Separations(state)

    async def rows(self, link: Link, file: LedgerObject) -> Rows | None:
        """Where the rows of ``file`` of the unit ``link`` are; None if it is not there any more, and not compacted either."""
        former = former_place(link, file.sink, self._areas)
        stores = [self._open(former)] if former is not None and self._open is not None else []
        if file.sink in self._areas:
            stores.append(self._areas[file.sink].store)
        for store in stores:
            if (stored := await store.get(file.key)) is not None:
                return Rows(file, body=stored.body)
        part = await self._compacted.part(file.sink, link.shard, link.after, file.key)
        return None if part is None or self._open is None else Rows(part[1], part[2], root=part[0])

    async def matches(self, link: Link, rows: Rows, search: Matches) -> InFile | None:
        """The rows of the file at ``rows``, counted from 0, that match; None if it is gone."""
        if rows.file.key not in search.found:
            search.found[rows.file.key] = asyncio.ensure_future(self._matches(link, rows, search.criteria.values))
        return await search.found[rows.file.key]

    async def letters(self, rows: Rows, search: Matches) -> Matching:
        """The dead letters in the file at ``rows`` that match."""
        if rows.body is None or search.originals is None:
            return Matching()
        return await asyncio.to_thread(_letters, rows.file, rows.body, search.criteria.values, search.originals)

    async def lineage(self, link: Link, rows: Rows) -> pl.DataFrame | None:
        """Sequence and subsequence of each row of the file at ``rows``; None if it is gone or has no such columns."""
        form, body = await self._separations.of(link, rows.file.sink, rows.file.key), await self._body(rows)
        return None if form is None or body is None else await asyncio.to_thread(lineage_of, rows.file, body, form)

    async def _matches(self, link: Link, rows: Rows, criteria: Sequence[Criterion]) -> InFile | None:
        file = rows.file
        form, body = await self._separations.of(link, file.sink, file.key), await self._body(rows)
        if form is None or body is None:
            return None
        plain = "/" in file.key and "=" not in file.key
        names = await self._separations.folders(link, file.sink) if plain else ()
        return await asyncio.to_thread(in_file, file, body, criteria, form, _folders(file.key, names, criteria))

    async def _body(self, rows: Rows) -> bytes | None:
        return rows.body if not rows.root else await self._compacted.read(rows.root, rows.file.key)


def _folders(key: str, names: Sequence[str], criteria: Sequence[Criterion]) -> dict[str, bool]:
    """The columns of ``criteria`` that are in the names of the directories of ``key``, and whether the values there are the wanted ones.

    ``names``: the columns of plain directories.
    """
    values = {column: value for column, value in values_in(key, names).items() if value not in {OVERFLOW, INVALID}}
    # Long values are shortened in names, so the names are compared.
    named = {each.column: values_in(f"{each.column}={encode_value(each.value)}/", ()) for each in criteria if each.column in values}
    return {column: values[column] == there[column] for column, there in named.items()}


def _letters(file: LedgerObject, body: bytes, criteria: Sequence[Criterion], originals: Originals) -> Matching:
    body = genuine(file.key, body, file.sha256)
    try:
        frame = rows_of(file.key, body).collect()
    except DAMAGE as error:
        raise unreadable(file.key, error) from error
    return originals.matching(frame, criteria)
