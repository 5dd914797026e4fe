"""The rows in the files of a sink, and the dead letters, as a query sees them: typed, with their place, and without what is sensitive."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import polars as pl

from stream.audit.chain import Bounds, Link
from stream.audit.ledger import LedgerObject
from stream.audit.outputs import DAMAGE, DEFAULT, TEXTUAL, Separation, genuine, rows_of, typed, unreadable
from stream.batch import ARRIVAL, LINEAGE, ROW
from stream.errors import DefinitionError
from stream.pipeline.digest import canonical_text
from stream.pipeline.model import Pipeline
from stream.pipeline.sensitive import HIDDEN, joined, sensitive_columns
from stream.pipeline.sensitive import unreadable as not_to_be_shown
from stream.sink import rejects
from stream.sink.encode import Format
from stream.sink.objects import ObjectsSinkConfig, SinkConfig
from stream.sink.partition import Partitioning, values_in
from stream.sink.tables import TableSinkConfig
from stream.transform.engine import CompiledChain
from stream.worker.opening.evidence import StoredEvidence
from stream.worker.opening.separations import separation
from stream.worker.recipes.definitions import Definitions
from stream.worker.recipes.recipe import Recipe

ROWS: Final = "rows"
LETTERS: Final = "dead_letters"
TABLES: Final = (ROWS, LETTERS)
"""The tables of a query: the rows of the sink, and the dead letters."""

SEALED: Final = "_sealed"
FILE: Final = "_file"
ADDED: Final[Mapping[str, pl.DataType]] = {SEALED: pl.Boolean(), FILE: pl.String()}
"""Columns of both that say whether the row is in a sealed unit, and the URL of its file, null if it is not."""


class FileMovedError(Exception):
    """A file that the log lists is not there any more; the argument is its URL."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A file with rows of ``shard`` for ``table``: one that the sealed unit ``link`` lists, or one that no store has, with its ``body``.

    ``digest``: the definition that it was made with; None for the pipeline file itself.
    """

    table: str
    shard: str
    file: LedgerObject
    digest: str | None
    link: Link | None = None
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Columns:
    """What a definition says of a sink's columns, as far as it matters: types, which are sensitive, how values are separated."""

    kinds: Mapping[str, pl.DataType] = field(default_factory=dict)
    hidden: frozenset[str] = frozenset()
    form: Separation = DEFAULT


@dataclass(slots=True)
class Recipes:
    """The compiled definitions of ``pipeline``: those that ``definitions`` has, and that of the pipeline file, which ``own`` compiles."""

    pipeline: Pipeline
    definitions: Definitions
    own: Callable[[], Awaitable[Recipe]]
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _own: Recipe | None = None
    _columns: dict[tuple[str, str], Columns] = field(default_factory=dict)
    _recorded: dict[str, Pipeline] = field(default_factory=dict)

    async def definition(self, digest: str | None) -> Pipeline:
        """The definition with that digest; None stands for the pipeline file."""
        if digest is None:
            return self.pipeline
        async with self._lock:  # many files are read at a time, and few definitions
            if digest not in self._recorded:
                self._recorded[digest] = await self.definitions.pipeline(digest)
            return self._recorded[digest]

    async def recipe(self, digest: str | None) -> Recipe:
        """The definition, compiled.

        Raises:
            Halted: the log does not have it, or something that it asks for is missing here.
            DefinitionError: the pipeline file cannot be compiled.
        """
        async with self._lock:
            if digest is not None:
                return await self.definitions.recorded(digest)
            if self._own is None:
                self._own = await self.own()
            return self._own

    async def columns(self, digest: str | None, sink: str, *, textual: bool, reveal: bool) -> Columns:
        """The columns of ``sink``. It is compiled only if types are needed or something is to be hidden, since that takes secrets."""
        recorded = await self.definition(digest)
        sensitive = None if reveal else joined(self.pipeline.sensitive, recorded.sensitive)
        if sink == rejects.NAME:
            return Columns(hidden=not_to_be_shown(sensitive, ()))
        if sensitive is None and not textual:
            return Columns()
        at = (canonical_text(recorded), sink)
        if at not in self._columns:
            chain = (await self.recipe(digest)).chain
            config = next((each for each in recorded.sinks if each.name == sink), None)
            if not isinstance(chain, CompiledChain):
                msg = f"the definition {digest} was not compiled by this build's engine, so nobody can tell what is sensitive"
                raise DefinitionError(msg)
            hidden = frozenset(sensitive_columns(sensitive, recorded.stages, [schema for _, schema in chain.schemas])[-1])
            self._columns[at] = Columns(kinds_of(config, chain.output_schema), hidden, _form(config))
        return self._columns[at]

    async def empty(self, digest: str | None, config: SinkConfig) -> pl.DataFrame:
        """A table without rows, with the columns that rows of the sink would have."""
        chain = (await self.recipe(digest)).chain
        kinds = kinds_of(config, chain.output_schema) if isinstance(chain, CompiledChain) else {}
        names = Partitioning(config.partition_by).names if isinstance(config, ObjectsSinkConfig) else ()
        return pl.DataFrame(schema={**kinds, **{name: kinds.get(name, pl.String()) for name in names}, **ADDED})


def kinds_of(config: SinkConfig | None, schema: pl.Schema) -> dict[str, pl.DataType]:
    """The columns of a sink's files, in their order, with the types that the pipeline gives them."""
    if isinstance(config, ObjectsSinkConfig):
        return {name: schema[name] for name in config.columns(schema)}
    return {name: schema[name] for name in [*(each for each in schema if each not in LINEAGE), *LINEAGE] if name in schema and name != ROW}


def _form(config: SinkConfig | None) -> Separation:
    return separation(config) if isinstance(config, ObjectsSinkConfig) and config.format is Format.CSV else DEFAULT


@dataclass(slots=True)
class RowReader:
    """Reads pieces for one query of the sink ``config``. ``hidden``: columns that were hidden so far.

    ``gone``: files of which only a table has the rows. ``undated``: whether rows do not say when they arrived, so that units are whole.
    """

    recipes: Recipes
    config: SinkConfig
    bounds: Bounds
    reveal: bool
    hidden: set[str] = field(default_factory=set)
    gone: list[LedgerObject] = field(default_factory=list)
    undated: bool = False
    _compacted: dict[tuple[str, str], pl.LazyFrame] = field(default_factory=dict)

    async def frame(self, piece: Piece, chain: StoredEvidence) -> pl.LazyFrame | None:
        """The rows of ``piece``; None if they are only in a table that they were loaded into, and counts that in ``gone``.

        Raises:
            FileMovedError: the file is missing.
            DamagedFileError: it is not what was written.
        """
        key, link = piece.file.key, piece.link
        known = await self.recipes.columns(piece.digest, piece.file.sink, textual=key.endswith(TEXTUAL), reveal=self.reveal)
        url: str | None = None
        try:
            if link is None:
                rows = rows_of(key, piece.body, known.form)
            else:
                found = await self._stored(piece.file, link, chain, known.form)
                if found is None:
                    self.gone.append(piece.file)
                    return None
                rows, url = found
            rows = await asyncio.to_thread(typed, key, rows, known.kinds)
            columns = rows.collect_schema()
        except DAMAGE as error:
            raise unreadable(key, error) from error
        values: dict[str, Any] = {SEALED: link is not None, FILE: url}
        if piece.table == ROWS and isinstance(self.config, ObjectsSinkConfig):
            values |= values_in(key, Partitioning(self.config.partition_by).names)
        rows = rows.with_columns(
            pl.lit(value, ADDED.get(name, pl.String())).alias(name) for name, value in values.items() if name not in columns
        )
        # Names in a warehouse are in lower case.
        secret = {name.lower() for name in known.hidden}
        hidden = sorted(name for name in (*columns, *values) if name.lower() in secret)
        self.hidden.update(hidden)
        return self._inside(rows, columns).with_columns(pl.lit(HIDDEN).alias(name) for name in hidden)

    async def _stored(self, file: LedgerObject, link: Link, chain: StoredEvidence, form: Separation) -> tuple[pl.LazyFrame, str] | None:
        """The rows of a sealed file, and the URL where they are now; None if they are only in a table."""
        body, url = await chain.read_file(link, file) or (None, file.key)
        if body is not None:
            return rows_of(file.key, genuine(file.key, body, file.sha256), form), url
        part = await chain.compacted.part(file.sink, link.shard, link.after, file.key)
        if part is not None:
            root, output, first = part
            url = f"{root.removesuffix('/')}/{output.key}"
            if (root, output.key) not in self._compacted:
                body = await chain.compacted.read(root, output.key)
                if body is None:
                    raise FileMovedError(url)
                self._compacted[root, output.key] = rows_of(output.key, genuine(output.key, body, output.sha256))
            return self._compacted[root, output.key].slice(first, file.rows), url
        # Maintenance of a table that consists of these files replaces them by others with the same rows.
        replaced = isinstance(self.config, TableSinkConfig) and self.config.keeps_files and file.sink != rejects.NAME
        if replaced or chain.may_be_gone(link, file):
            return None
        raise FileMovedError(url)

    def _inside(self, rows: pl.LazyFrame, columns: Mapping[str, pl.DataType]) -> pl.LazyFrame:
        """The rows that arrived within the bounds; all of them, if they do not say when they arrived."""
        bounds, kind = self.bounds, columns.get(ARRIVAL)
        if bounds.open:
            return rows
        if not isinstance(kind, pl.Datetime):
            self.undated = True
            return rows
        arrived = pl.col(ARRIVAL) if kind.time_zone else pl.col(ARRIVAL).dt.replace_time_zone("UTC")
        if bounds.begin is not None:
            rows = rows.filter(arrived >= bounds.begin)
        return rows if bounds.end is None else rows.filter(arrived < bounds.end)
