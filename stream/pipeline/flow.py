"""Follows columns and their types from the decoder through every stage to every sink, before any record is read."""

from __future__ import annotations

import os.path
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path as FilePath
from typing import Any, Final

import polars as pl

from stream.errors import DefinitionError
from stream.pipeline.components import canonical_name
from stream.pipeline.findings import Finding, Path, Severity, near_miss
from stream.pipeline.load import Document
from stream.pipeline.model import Pipeline
from stream.pipeline.resources import UserFunction, is_remote, load_function, parse_table, read_local
from stream.pipeline.secrets import is_managed, local_secret
from stream.pipeline.sensitive import problems
from stream.pipeline.valid_part import ValidPart
from stream.sink.iceberg import IcebergSinkConfig
from stream.sink.objects import SinkConfig
from stream.sink.partition import SinkMismatch
from stream.sink.redshift import RedshiftSinkConfig, Write
from stream.sink.tables import TableSinkConfig
from stream.transform.expressions import compile_condition
from stream.transform.routing import ELSE
from stream.transform.stage import Resources, SchemaMismatch, StageConfig
from stream.transform.stages.rename import Rename
from stream.transform.types import RESERVED, SYSTEM_SCHEMA

_PLACEHOLDER_SECRET: Final = b"a secret that is not set here"
"""Allows type-checking a stage without the real secret, as on a build server; nothing is ever computed with it."""

_NO_COLUMN: Final = re.compile(r"no column '([^']+)'")
"""How stages and sinks report a missing column."""

_KEEPS_COLUMNS: Final = frozenset({"dedupe", "filter", "mask"})
"""Stages that leave the columns unchanged, so that they are known even if the stage is wrong."""


_ONE_BY_ONE: Final = frozenset({"cast", "derive", "rename", "select"})
"""Stages whose options list columns. If one entry is wrong, the others can still be checked."""


def check_flow(
    pipeline: Pipeline, document: Document, base: FilePath, env: Mapping[str, str], part: ValidPart | None = None
) -> Iterator[Finding]:
    """Findings about what a pipeline refers to, and about columns that a stage or a sink needs but does not get.

    After a stage whose output columns are unknown, nothing is type-checked; a note says where that begins. If ``pipeline`` is only the
    valid ``part`` of the file, its placeholders are not reported.
    """
    flow = _Flow(pipeline, document, base, env, part.doubtful if part is not None else ())
    if part is None:
        yield from flow.places()
    resources = flow.resources()
    schema = flow.decoded(resources)
    schemas = [] if schema is None else [schema]
    for index, stage in enumerate(pipeline.stages):
        if schema is None:
            break
        schema = flow.through(index, stage, schema, resources)
        schemas += [] if schema is None else [schema]
    if schema is not None and (part is None or part.whole):
        flow.into_sinks(schema, range(len(pipeline.sinks)) if part is None else part.sinks)
        if part is None and all(each.severity is Severity.NOTE for each in flow.findings):
            flow.sensitive(schemas)
    yield from flow.findings


class _Flow:
    """Follows columns through one pipeline, and collects findings."""

    def __init__(
        self, pipeline: Pipeline, document: Document, base: FilePath, env: Mapping[str, str], doubtful: Collection[str] = ()
    ) -> None:
        self._pipeline = pipeline
        self._document = document
        self._base = base
        self._env = env
        self.findings: list[Finding] = []
        self._removed: dict[str, str] = {}
        """Columns that a stage has removed or renamed, and a phrase that says so."""
        self._doubtful = set(doubtful)
        """Columns that the source or a stage would provide if it were right; that later stages lack them is not reported."""

    def places(self) -> Iterator[Finding]:
        """Findings about places that the state and sinks, or several sinks, would share."""
        own = f"{self._directory(self._pipeline.state)}{self._pipeline.application}/"
        for index, sink in enumerate(self._pipeline.sinks):
            path = ("sinks", index, self._sink_key(index), "url")
            url = self._directory(sink.url)
            yield from self._shared(index, path)
            yield from self._same_table(index, sink)
            yield from self._order(index, sink)
            if self._pipeline.encryption is not None and isinstance(sink, IcebergSinkConfig) and sink.url.startswith("s3:"):
                message = f"PyIceberg writes the metadata of {sink.table}, and does not use `encryption.kms_key`"
                hint = "make the key the default of the bucket, and use no bucket policy that requires requests to name it"
                yield self._finding(path, "bucket_key", message, hint, Severity.NOTE)
            if own.startswith(url):
                hint = f"choose a place outside of {sink.url}"
                yield self._finding(("state",), "state_inside_sink", f"a reader of {sink.url} would take the state for data", hint)
            elif url.startswith(own):
                message = f"the pipeline's own state is in {own}, among which the sink's files would be taken for its objects"
                yield self._finding(path, "sink_inside_state", message, "choose a place outside of it")

    def _shared(self, index: int, path: Path) -> Iterator[Finding]:
        """Findings about the place that the sink ``index`` shares with one before it."""
        sinks = self._pipeline.sinks
        for other, before in enumerate(sinks[:index]):
            one, two = self._directory(before.url), self._directory(sinks[index].url)
            if one == two:
                message = f"the sinks {other} and {index} both write to {sinks[index].url}"
                yield self._finding(path, "same_place", message, "give each sink its own prefix")
                return
            if one.startswith(two) or two.startswith(one):
                outer, inner = (other, index) if two.startswith(one) else (index, other)
                message = f"a reader of everything under {sinks[outer].url} also reads the rows of the sink {inner}, in {sinks[inner].url}"
                yield self._finding(path, "sink_inside_sink", message, "give each sink its own prefix", Severity.NOTE)

    def _directory(self, url: str) -> str:
        """``url`` in the form that it has in common with every other that names the same place, with a slash at its end."""
        scheme, _, place = url.partition(":")
        return f"file:{os.path.normpath(self._base.absolute() / place)}/" if scheme == "file" else url.removesuffix("/") + "/"

    def _same_table(self, index: int, sink: SinkConfig) -> Iterator[Finding]:
        if not isinstance(sink, TableSinkConfig):
            return
        for other, before in enumerate(self._pipeline.sinks[:index]):
            if isinstance(before, TableSinkConfig) and before.unique_table == sink.unique_table:
                path = ("sinks", index, self._sink_key(index), "table")
                message = f"the sinks {other} and {index} both load the table {sink.table}, which records only one position per shard"
                yield self._finding(path, "same_place", message, "give each sink its own table")

    def _order(self, index: int, sink: SinkConfig) -> Iterator[Finding]:
        """Records from objects are numbered by their place in the object, so the numbers do not tell which of two rows is newer."""
        if self._pipeline.source.s3 is not None and isinstance(sink, RedshiftSinkConfig) and sink.mode is Write.UPSERT:
            path = ("sinks", index, self._sink_key(index), "mode")
            message = "if two rows with the same key come from different objects, the older one may win, because objects have no order"
            yield self._finding(
                path, "upsert_order", message, "use `mode: append`, and choose the latest row by `_arrival` in a view", Severity.NOTE
            )

    def resources(self) -> Resources:
        """The resources that the stages ask for, as far as they can be obtained; the rest become findings."""
        tables: dict[str, pl.DataFrame] = {}
        secrets: dict[str, bytes] = {}
        functions: dict[str, UserFunction] = {}
        files: dict[str, bytes] = {}
        for url in self._pipeline.source.decode.file_urls():
            self._file(url, files)
        for index, stage in enumerate(self._pipeline.stages):
            for url in stage.table_urls():
                self._table(index, url, tables)
            for name in stage.secret_names():
                self._secret(index, name, secrets)
            for name in stage.function_paths():
                self._function(index, name, functions)
        return Resources(tables=tables, secrets=secrets, functions=functions, files=files)

    def _file(self, url: str, files: dict[str, bytes]) -> None:
        if is_remote(url):
            return
        try:
            files[url] = read_local(url, self._base, "file")
        except DefinitionError as error:
            start: Path = ("source", "decode")
            self._add(next(_paths_of(self._document.data["source"].get("decode"), url, start), start), "bad_file", str(error))

    def _table(self, index: int, url: str, tables: dict[str, pl.DataFrame]) -> None:
        if url in tables or is_remote(url):
            return
        try:
            tables[url] = parse_table(url, read_local(url, self._base))
        except DefinitionError as error:
            self._add(self._where(index, url), "bad_table", str(error))

    def _secret(self, index: int, name: str, secrets: dict[str, bytes]) -> None:
        if is_managed(name):
            secrets[name] = _PLACEHOLDER_SECRET
            return
        try:
            secrets[name] = local_secret(name, self._env, self._base)
        except DefinitionError as error:
            secrets[name] = _PLACEHOLDER_SECRET
            path = self._where(index, name.partition(":")[2])
            self._add(path, "secret_unset", str(error), "the pipeline cannot run without it", Severity.NOTE)

    def _function(self, index: int, name: str, functions: dict[str, UserFunction]) -> None:
        try:
            functions[name] = load_function(name)
        except DefinitionError as error:
            self._add(self._where(index, name), "bad_function", str(error), "is its package installed here?")

    def decoded(self, resources: Resources) -> pl.Schema | None:
        """The columns after the decoder, or None."""
        source = self._pipeline.source
        missing = [url for url in source.decode.file_urls() if url not in resources.files]
        if missing:
            if is_remote(missing[0]):
                message = f"no column is checked: {missing[0]} was not read"
                self._add(("source", "decode"), "not_checked", message, severity=Severity.NOTE)
            return None
        try:
            decoder = source.decode.resolved(resources)
            columns = decoder.output(source.record_schema())
            decoder.bound(source.record_schema())
        except SchemaMismatch as error:
            within: Path = ("schema", *error.path)
            if error.path and ("source", *within[:2]) not in self._document.values:
                within = ("decode", canonical_name(source.decode), *error.path)
            self._add(("source", *within), "bad_schema", error.message, error.hint)
            return None
        return pl.Schema({**SYSTEM_SCHEMA, **columns})

    def through(self, index: int, stage: StageConfig, schema: pl.Schema, resources: Resources) -> pl.Schema | None:
        """The columns after one stage, or None if they cannot be known."""
        path = self._stage_path(index)
        missing = [url for url in stage.table_urls() if url not in resources.tables]
        missing += [name for name in stage.function_paths() if name not in resources.functions]
        if missing:
            self._note_not_checked(index, f"{missing[0]} was not read")
            return None
        try:
            after = stage.output(schema, resources)
            stage.bind(schema, resources)
        except SchemaMismatch as error:
            removed: list[Path] = []
            for each in _mismatches(stage, schema, resources, error, removed):
                self._add((*path, *each.path), "schema_mismatch", each.message, each.hint)
            rest = _output_of_rest(stage, schema, resources, removed)
            if rest is not None:
                self._note_removed(index, stage, schema, rest)
                self._doubtful |= {str(each[-1]) for each in removed} - RESERVED
                return pl.Schema({name: kind for name, kind in rest.items() if name not in self._doubtful})
        except (DefinitionError, pl.exceptions.PolarsError, ValueError) as error:
            self._add(path, "bad_stage_options", str(error).split("\n", 1)[0])
        else:
            self._note_removed(index, stage, schema, after)
            return after
        if stage.name in _KEEPS_COLUMNS:
            return schema
        self._note_not_checked(index, "they are not known while the stage is wrong")
        return None

    def _note_removed(self, index: int, stage: StageConfig, before: pl.Schema, after: pl.Schema) -> None:
        self._doubtful -= set(after)
        for name in after:
            self._removed.pop(name, None)
        for name in before:
            if name not in after:
                new = stage.columns.get(name) if isinstance(stage, Rename) else None
                done = f"renames it to `{new}`" if new else "removes it"
                self._removed[name] = f"stage {index + 1}, `{canonical_name(stage)}`, {done}"

    def into_sinks(self, schema: pl.Schema, which: Collection[int]) -> None:
        """Check whether the sinks at the positions ``which`` can write the columns after the last stage."""
        for index in sorted(which):
            sink = self._pipeline.sinks[index]
            try:
                if sink.where is not None and sink.where != ELSE:
                    compile_condition(sink.where, schema, ("where",))
            except SchemaMismatch as error:
                self._add(("sinks", index, self._sink_key(index), *error.path), "schema_mismatch", error.message, error.hint)
            try:
                sink.check(schema)
            except SinkMismatch as error:
                path = ("sinks", index, self._sink_key(index), *error.path)
                lacks = _NO_COLUMN.search(error.message)
                near = near_miss(lacks[1], schema.names()) if lacks is not None else ""
                self._add(path, "schema_mismatch", error.message, error.hint or (near if near.startswith("did") else ""))

    def sensitive(self, schemas: Sequence[pl.Schema]) -> None:
        """Check what becomes of the sensitive columns; ``schemas``: the columns after the decoder and after each stage."""
        if self._pipeline.sensitive is None:
            return
        keys = [self._sink_key(index) for index in range(len(self._pipeline.sinks))]
        for each in problems(self._pipeline.sensitive, self._pipeline.stages, schemas, self._pipeline.sinks, keys):
            self._add(each.path, each.code, each.message, each.hint, each.severity)

    def _note_not_checked(self, index: int, why: str) -> None:
        message = f"what follows this stage is not checked against its columns: {why}"
        self._add(self._stage_path(index), "not_checked", message, severity=Severity.NOTE)

    def _stage_path(self, index: int) -> Path:
        return ("stages", index, canonical_name(self._pipeline.stages[index]))

    def _sink_key(self, index: int) -> str:
        """The name that the file uses for the sink; some sinks have two names."""
        entry = self._document.data["sinks"][index]
        return next(iter(entry)) if isinstance(entry, dict) else ""

    def _where(self, index: int, text: str) -> Path:
        """The path of ``text`` inside a stage's options, wherever the stage keeps it."""
        start: Path = ("stages", index)
        found = _paths_of(self._document.data["stages"][index], text, start)
        # The URL of a database ends in its query, which the file has in a separate option.
        of_database = _paths_of(self._document.data["stages"][index], text.partition("#")[0], start)
        return next(found, next(of_database, self._stage_path(index)))

    def _add(self, path: Path, code: str, message: str, hint: str = "", severity: Severity = Severity.ERROR) -> None:
        missing = _NO_COLUMN.search(message)
        if missing is not None and missing[1] in self._doubtful:
            return
        if missing is not None and missing[1] in self._removed:
            hint = self._removed[missing[1]]
        self.findings.append(self._finding(path, code, message, hint, severity))

    def _finding(self, path: Path, code: str, message: str, hint: str = "", severity: Severity = Severity.ERROR) -> Finding:
        known: Path = ()
        for part in path:
            # A stage reports the full path of an option; the file may use a shorthand without some of its keys.
            if (*known, part) in self._document.values:
                known = (*known, part)
        at = self._document.key_position(known) if code == "not_checked" else self._document.value_position(known)
        return Finding(self._document.file, at.line, at.column, code, message, hint, severity)


def _mismatches(
    stage: StageConfig, schema: pl.Schema, resources: Resources, error: SchemaMismatch, removed: list[Path]
) -> Iterator[SchemaMismatch]:
    """``error``, and the errors that appear once the offending entry is removed from the stage's options; each with its own path.

    The path of each removed entry, within the options left at that time, is appended to ``removed``.
    """
    rest: StageConfig | None = stage
    while rest is not None:
        # An entry that uses a removed one is not wrong by itself.
        if not _uses(rest, error.path, [path[-1] for path in removed]):
            yield SchemaMismatch(_original(error.path, removed), error.message, error.hint)
        rest = _without(rest, error.path)
        removed.append(error.path)
        try:
            if rest is not None:
                rest.output(schema, resources)
                return
        except SchemaMismatch as another:
            error = another


def _output_of_rest(stage: StageConfig, schema: pl.Schema, resources: Resources, removed: list[Path]) -> pl.Schema | None:
    """Columns after the stage without its entries at ``removed``; None if those alone do not determine nearly all columns."""
    if stage.name not in _ONE_BY_ONE:
        return None
    rest: StageConfig | None = stage
    for path in removed:
        rest = _without(rest, path) if rest is not None else None
    try:
        return schema if rest is None else rest.output(schema, resources)
    except SchemaMismatch:
        return None


def _uses(stage: StageConfig, path: Path, names: list[str | int]) -> bool:
    text: Any = stage.model_dump(mode="json", by_alias=True)
    for part in path:
        text = text[part] if isinstance(text, dict) and part in text else None
    return isinstance(text, str) and any(re.search(rf"\b{re.escape(name)}\b", text) for name in names if isinstance(name, str))


def _without(stage: StageConfig, path: Path) -> StageConfig | None:
    """The stage without the entry at ``path``, or None if that entry is required."""
    options = stage.model_dump(mode="json", by_alias=True)
    inside: Any = options
    for part in path[:-1]:
        inside = inside[part] if isinstance(inside, dict) and part in inside else None
    if isinstance(inside, dict) and len(path) > 1:
        inside.pop(path[-1], None)
    elif isinstance(inside, list) and isinstance(path[-1], int) and path[-1] < len(inside):
        del inside[path[-1]]
    else:
        return None
    try:
        rest = type(stage).model_validate(options)
    except ValueError:
        return None
    return rest if rest != stage else None


def _original(path: Path, removed: list[Path]) -> Path:
    """Where ``path`` led before the entries at ``removed`` were taken out, one after the other."""
    for entry in reversed(removed):
        last, entry_last = path[-1:], entry[-1:]
        if path[:-1] == entry[:-1] and isinstance(last[0], int) and isinstance(entry_last[0], int) and last[0] >= entry_last[0]:
            path = (*path[:-1], last[0] + 1)
    return path


def _paths_of(value: Any, text: str, path: Path) -> Iterator[Path]:
    if value == text:
        yield path
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _paths_of(inner, text, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _paths_of(inner, text, (*path, index))
