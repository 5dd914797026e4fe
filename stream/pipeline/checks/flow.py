"""Follows columns and their types from the decoder through every stage to every sink, before any record is read."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path as FilePath
from typing import Any, Final

import polars as pl

from stream.errors import DefinitionError
from stream.pipeline.checks.sink_places import place_problems
from stream.pipeline.checks.valid_part import ValidPart
from stream.pipeline.checks.wrong_entries import mismatches, output_of_rest
from stream.pipeline.components import canonical_name
from stream.pipeline.findings import Finding, Path, Severity, near_miss
from stream.pipeline.load import Document
from stream.pipeline.model import Pipeline
from stream.pipeline.resources.fetching import UserFunction, is_remote, load_function, parse_table, read_local
from stream.pipeline.resources.secrets import is_managed, local_secret
from stream.pipeline.sensitive import problems
from stream.sink.partition import SinkMismatch
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
        """Findings about where the sinks and the state are. They say nothing about columns, so they are not among ``findings``."""
        for each in place_problems(self._pipeline, self._base, self._sink_keys()):
            yield self._finding(each.path, each.code, each.message, each.hint, each.severity)

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
            functions[name] = load_function(name, self._base)
        except DefinitionError as error:
            self._add(self._where(index, name), "bad_function", str(error))

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
            for each in mismatches(stage, schema, resources, error, removed):
                self._add((*path, *each.path), "schema_mismatch", each.message, each.hint)
            rest = output_of_rest(stage, schema, resources, removed)
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
            sink, path = self._pipeline.sinks[index], ("sinks", index, self._sink_key(index))
            try:
                if sink.where is not None and sink.where != ELSE:
                    compile_condition(sink.where, schema, ("where",))
            except SchemaMismatch as error:
                self._add((*path, *error.path), "schema_mismatch", error.message, error.hint)
            try:
                sink.check(schema)
            except SinkMismatch as error:
                lacks = _NO_COLUMN.search(error.message)
                near = near_miss(lacks[1], schema.names()) if lacks is not None else ""
                hint = error.hint or (near if near.startswith("did") else "")
                self._add((*path, *error.path), "schema_mismatch", error.message, hint)

    def sensitive(self, schemas: Sequence[pl.Schema]) -> None:
        """Check what becomes of the sensitive columns; ``schemas``: the columns after the decoder and after each stage."""
        if self._pipeline.sensitive is None:
            return
        repeated = self._pipeline.source.decode.repeated()
        for each in problems(self._pipeline.sensitive, self._pipeline.stages, schemas, self._pipeline.sinks, self._sink_keys(), repeated):
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

    def _sink_keys(self) -> list[str]:
        return [self._sink_key(index) for index in range(len(self._pipeline.sinks))]

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


def _paths_of(value: Any, text: str, path: Path) -> Iterator[Path]:
    if value == text:
        yield path
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _paths_of(inner, text, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _paths_of(inner, text, (*path, index))
