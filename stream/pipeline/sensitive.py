"""Sensitive columns: declared once, followed through the stages by ``origins``, kept out of sinks, and hidden where records are shown."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from stream.batch import DATA, PARTITION_KEY
from stream.pipeline.findings import Problem, Severity, near_miss
from stream.pipeline.origins import column_origins
from stream.sink.objects import SinkConfig
from stream.transform.engine import CompiledChain
from stream.transform.shorthands import names_for
from stream.transform.stage import StageConfig
from stream.transform.types import SYSTEM

HIDDEN: Final = "(hidden)"
"""What is shown in place of a sensitive value."""


class Sensitive(BaseModel):
    """Columns whose values few may see. `check` refuses a pipeline that writes them unmasked to a sink that is not listed.

    Where `preview`, `diff`, `trace --show` and `dlq show` print records, these values and the original bytes are hidden, unless
    `--reveal` is given.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    columns: tuple[str, ...] = Field(
        min_length=1, description="Columns of the schema, or columns that a stage adds; `_partition_key` is allowed too."
    )
    allowed_in: tuple[str, ...] = Field(default=(), description="Names of sinks that may contain them.")
    safe: tuple[str, ...] = Field(default=(), description="Columns that are computed from them but reveal nothing.")

    _short_form = names_for("columns")


def sensitive_columns(
    sensitive: Sensitive | None, stages: Sequence[StageConfig], schemas: Sequence[pl.Schema]
) -> tuple[Mapping[str, frozenset[str]], ...]:
    """For each of ``schemas``, its sensitive columns, with the declared columns that each one's values may come from.

    ``schemas``: the columns after the decoder, then after each of ``stages``. A column that a stage may have computed from a sensitive
    one is sensitive too, unless it is masked or safe.
    """
    if sensitive is None:
        return tuple({} for _ in schemas)
    found = []
    for origins in column_origins(stages, schemas, sensitive.safe):
        readable = {name: frozenset(each.column for each in several if not each.masked) for name, several in origins.items()}
        found.append({name: declared for name, columns in readable.items() if (declared := columns & set(sensitive.columns))})
    return tuple(found)


def sensitive_by_step(
    sensitive: Sensitive | None, stages: Sequence[StageConfig], chain: CompiledChain
) -> dict[str, Mapping[str, frozenset[str]]]:
    """``sensitive_columns`` after each step of ``chain``, the compiled ``stages``, by the step's name."""
    columns = sensitive_columns(sensitive, stages, [schema for _, schema in chain.schemas])
    found = dict(zip((name for name, _ in chain.schemas), columns, strict=True))
    return {name: found.get(name, columns[-1]) for name in chain.stage_names}


def problems(
    sensitive: Sensitive,
    stages: Sequence[StageConfig],
    schemas: Sequence[pl.Schema],
    sinks: Sequence[SinkConfig],
    keys: Sequence[str],
    repeated: str | None = None,
) -> Iterator[Problem]:
    """Names that do not exist, sensitive values that would reach a sink or a file's name, and notes on objects that hold such values.

    ``schemas`` as for ``sensitive_columns``, complete to the last stage; ``keys``: the sinks' kinds, as in the file; ``repeated``: the
    column in which the decoder repeats values of others.
    """
    seen = {PARTITION_KEY, *(name for schema in schemas for name in schema)} - frozenset(SYSTEM)
    yield from _unknown("columns", sensitive.columns, seen, "column is called")
    yield from _unknown("safe", sensitive.safe, seen, "column is called")
    yield from _unknown("allowed_in", sensitive.allowed_in, [sink.name for sink in sinks], "sink is called")
    yield from _inside_objects(sensitive, stages, schemas)
    again = [name for name in sensitive.columns if name in schemas[0]]
    if repeated is not None and again and repeated not in {*sensitive.columns, *sensitive.safe}:
        message = f"the decoder repeats the values of {_listed(again)} in `{repeated}`, which is not declared"
        hint = f"declare `{repeated}` as well, and drop it in a stage, or flatten it and list under `safe` what may be seen of it"
        yield Problem(("sensitive", "columns"), "sensitive_column", message, hint)
    last = sensitive_columns(sensitive, stages, schemas)[-1]
    for index, sink in enumerate(sinks):
        for name, sources in last.items():
            what = f"the sensitive column `{name}`" + (f", which may hold values of {_listed(sources)}," if sources != {name} else "")
            if name in sink.key_columns():
                message = f"{what} becomes part of file names, which manifests, logs and spans show"
                yield Problem(
                    ("sinks", index, keys[index], "partition_by"), "sensitive_key", message, "partition by another column, or mask it"
                )
            if sink.name not in sensitive.allowed_in:
                message = f"{what} reaches the sink `{sink.name}` unmasked"
                hint = "mask or drop it in a stage, list the sink in `sensitive.allowed_in`, or the column in `sensitive.safe`"
                yield Problem(("sinks", index, keys[index]), "sensitive_column", message, hint)


def _inside_objects(sensitive: Sensitive, stages: Sequence[StageConfig], schemas: Sequence[pl.Schema]) -> Iterator[Problem]:
    """Notes on declared columns that a stage takes out of objects or lists of the source that are not declared themselves."""
    origins = column_origins(stages, schemas)
    for at, name in enumerate(sensitive.columns):
        added = next((number for number, schema in enumerate(schemas) if name in schema), 0)
        for origin in sorted(origins[added].get(name, ())) if added else ():
            if origin.column in sensitive.columns or not schemas[0].get(origin.column, pl.Null()).is_nested():
                continue
            message = f"the values of `{name}` are in `{origin.column}` too, which is not declared: before stage {added} they are shown"
            hint = f"declare `{origin.column}` as well, and list under `safe` what may be seen of it"
            yield Problem(("sensitive", "columns", at), "sensitive_inside", message, hint, Severity.NOTE)


def _unknown(option: str, names: Sequence[str], known: Collection[str], what: str) -> Iterator[Problem]:
    for at, name in enumerate(names):
        if name not in known:
            yield Problem(("sensitive", option, at), "sensitive_unknown", f"no {what} {name!r}", near_miss(name, known))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names))


def joined(one: Sensitive | None, other: Sensitive | None) -> Sensitive | None:
    """A declaration by which everything is sensitive that is so by either; what only one of two calls safe is not."""
    if one is None or other is None:
        return one or other
    columns = tuple(dict.fromkeys((*one.columns, *other.columns)))
    return Sensitive(columns=columns, safe=tuple(name for name in one.safe if name in other.safe))


def unreadable(sensitive: Sensitive | None, columns: Iterable[str]) -> frozenset[str]:
    """What to hide at a step where ``columns`` are sensitive: those, and the original bytes and the partition key as they are declared."""
    if sensitive is None:
        return frozenset()
    return frozenset({DATA, *columns, *({PARTITION_KEY} & set(sensitive.columns))})


def hidden(values: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """``values`` with ``HIDDEN`` in place of those of ``names``, null included."""
    return {name: HIDDEN if name in names else value for name, value in values.items()}
