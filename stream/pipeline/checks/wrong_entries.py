"""Finds every wrong entry of a stage's options, and the columns after the stage without them. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import polars as pl

from stream.pipeline.findings import Path
from stream.transform.stage import Resources, SchemaMismatch, StageConfig

_ONE_BY_ONE: Final = frozenset({"cast", "derive", "rename", "select"})
"""Stages whose options list columns. If one entry is wrong, the others can still be checked."""


def mismatches(
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


def output_of_rest(stage: StageConfig, schema: pl.Schema, resources: Resources, removed: list[Path]) -> pl.Schema | None:
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
