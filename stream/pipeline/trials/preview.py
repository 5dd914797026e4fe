"""Runs a chain over a sample and shows each record after each step. Pure; writes nothing."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson
import polars as pl

from stream.batch import DATA, PARTITION_KEY, ROW, Batch, Outcome, type_name
from stream.contracts import Transformed
from stream.pipeline.components import make_sink
from stream.pipeline.model import Pipeline
from stream.pipeline.plan import Change, changes
from stream.pipeline.sensitive import HIDDEN, hidden, sensitive_by_step, unreadable
from stream.pipeline.trials.trial import SHARD_ID, plain
from stream.transform.engine import NONE_SETTLED, SOURCE, STAGE_ERROR, CompiledChain
from stream.transform.types import SYSTEM

MAX_EXAMPLES = 10
"""Reasons, the most frequent first, of which a step shows a record."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A record that ends at this step."""

    record: int
    outcome: str
    reason: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """The first record of the sample that a step rejects for ``reason``, which says what was wrong with it.

    ``column``: the column that the reason names, else the one with the record's bytes, or empty for the whole row. ``value``: what was in
    it. ``declared``: the type that the schema gives the column. ``error``: what the step raised, if that is the reason.
    """

    reason: str
    record: int
    column: str
    value: Any
    declared: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class Passed:
    """A row before and after a step; ``before`` is empty for further rows that a step makes of one record.

    ``record`` counts from 1; values are as JSON can hold them.
    """

    record: int
    before: Mapping[str, Any]
    after: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Stage:
    """One step over the sample. ``passed`` and ``ended`` are about the shown records, everything else about all."""

    name: str
    rows_in: int
    rows_out: int
    outcomes: Mapping[str, int]
    reasons: Mapping[str, int]
    changes: tuple[Change, ...]
    passed: tuple[Passed, ...]
    ended: tuple[Ended, ...]
    rejected: tuple[Rejected, ...] = ()


@dataclass(frozen=True, slots=True)
class Preview:
    """All steps, and the directories of the files that each sink would write, with rows."""

    records: int
    payload_bytes: int
    stages: tuple[Stage, ...]
    partitions: Mapping[str, Mapping[str, int]]
    file_bytes: int
    dead_letters: int = 0


def preview(chain: CompiledChain, pipeline: Pipeline, batch: Batch, show: int, *, reveal: bool = False) -> Preview:
    """Run ``batch`` through ``chain``, recording for its first ``show`` records what happens to each.

    The values of sensitive columns, and the original bytes if there are any, are hidden unless ``reveal``.

    Raises:
        Halted: a stage broke its contract, for which a shard would stop.
    """
    stages = []
    before, hide_before = batch.frame.clear(), unreadable(None if reveal else pipeline.sensitive, {})
    sensitive = sensitive_by_step(pipeline.sensitive, pipeline.stages, chain)
    for name, rows_in, after, gone, _ in chain.walk(batch, SHARD_ID):
        hide_after = hide_before
        if name != SOURCE:
            hide_after = unreadable(None if reveal else pipeline.sensitive, sensitive[name])
            stage = _stage(name, rows_in, before, after, gone, [*_passed(before, after, show, (hide_before, hide_after))], show)
            rejected = _rejected(chain, stage, before, gone, hide_before, after.schema, pipeline.source.decode.documents) if show else ()
            stages.append(replace(stage, rejected=tuple(rejected)))
        before, hide_before = after, hide_after
    sinks = [make_sink(config, chain.output_schema) for config in pipeline.sinks]
    made = Transformed(before, NONE_SETTLED, batch.rows, taken=chain.taken(before))
    encoded = {sink.name: sink.encode(made.rows_for(sink.name), "preview") for sink in sinks}
    partitions = {name: _by_directory([(file.key, file.rows) for file in each.files]) for name, each in encoded.items()}
    size = sum(len(file.body) for each in encoded.values() for file in each.files)
    dead = sum(stage.outcomes.get(Outcome.DEAD_LETTERED.label, 0) for stage in stages)
    return Preview(batch.rows, batch.payload_bytes, tuple(stages), partitions, size, dead)


def _by_directory(files: list[tuple[str, int]]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for key, rows in files:
        folder = key.rpartition("/")[0]
        counts[folder] = counts.get(folder, 0) + rows
    return dict(sorted(counts.items()))


def _stage(
    name: str, rows_in: int, before: pl.DataFrame, after: pl.DataFrame, gone: pl.DataFrame, passed: Sequence[Passed], show: int
) -> Stage:
    outcomes = gone.group_by("outcome").len().sort("outcome")
    reasons = (
        gone.filter(pl.col("outcome") == Outcome.DEAD_LETTERED).group_by("reason").len().sort("len", "reason", descending=[True, False])
    )
    first = gone.filter(pl.col(ROW) < show).sort(ROW)
    return Stage(
        name=name,
        rows_in=rows_in,
        rows_out=after.height,
        outcomes={Outcome(value).label: count for value, count in outcomes.iter_rows()},
        reasons=dict(reasons.iter_rows()),
        changes=tuple(changes(_user(before).schema, _user(after).schema)),
        passed=tuple(passed),
        ended=tuple(
            Ended(row + 1, Outcome(outcome).label, reason) for row, outcome, reason in first.select(ROW, "outcome", "reason").iter_rows()
        ),
    )


def _rejected(
    chain: CompiledChain,
    stage: Stage,
    before: pl.DataFrame,
    gone: pl.DataFrame,
    hide: Collection[str],
    columns: pl.Schema,
    documents: Callable[[bytes], Sequence[tuple[str, bytes]]],
) -> Iterator[Rejected]:
    """For each of the most frequent reasons, the first record that was rejected for it; values of the columns ``hide`` are hidden.

    ``columns``: those after the step; ``documents``: as ``DecoderConfig.documents``.
    """
    dead = gone.filter(pl.col("outcome") == Outcome.DEAD_LETTERED).sort(ROW)
    for reason in list(stage.reasons)[:MAX_EXAMPLES]:
        row = dead.filter(pl.col("reason") == reason)[ROW][0]
        given = before.filter(pl.col(ROW) == row)
        code, _, rest = reason.partition(":")
        error = (chain.failure(stage.name, given) or "") if code == STAGE_ERROR else ""
        named = rest.partition(":")[0]
        [values, *_] = _user(given).to_dicts()
        if named in values and not error:
            found = Rejected(reason, row + 1, named, HIDDEN if named in hide else plain(values[named]))
        elif DATA in values:
            field, name = _field(documents(values[DATA]), named)
            declared = type_name(columns[name]) if field and name in columns else ""
            value = HIDDEN if DATA in hide else field[0] if field else _payload(values[DATA])
            found = Rejected(reason, row + 1, named if field else DATA, value, declared, error)
        else:
            shown = hidden({name: plain(value) for name, value in values.items()}, hide)
            found = Rejected(reason, row + 1, "", shown, error=error)
        yield replace(found, error=HIDDEN) if error and hide else found


def _field(documents: Sequence[tuple[str, bytes]], named: str) -> tuple[tuple[Any] | None, str]:
    """The value that a reason names, as a tuple of one, and its name in the first of ``documents`` that has it; None if none does."""
    for prefix, text in documents:
        name = named.removeprefix(prefix)
        try:
            document = orjson.loads(text)
        except orjson.JSONDecodeError:
            continue
        if named.startswith(prefix) and isinstance(document, dict) and name in document:
            return (document[name],), name
    return None, named


def _passed(before: pl.DataFrame, after: pl.DataFrame, show: int, hide: tuple[Collection[str], Collection[str]]) -> Iterator[Passed]:
    """The first ``show`` records before and after; ``hide``: the columns to hide before and after."""
    given: dict[int, list[dict[str, Any]]] = {}
    for record, values in _rows(before, show):
        given.setdefault(record, []).append(values)
    made: dict[int, list[dict[str, Any]]] = {}
    for record, values in _rows(after, show):
        made.setdefault(record, []).append(values)
    for record, rows in made.items():
        # A step that neither adds nor drops rows of a record keeps their order.
        matched = given.get(record, [])
        for at, values in enumerate(rows):
            yield Passed(record, hidden(matched[at] if at < len(matched) else {}, hide[0]), hidden(values, hide[1]))


def _rows(frame: pl.DataFrame, show: int) -> Iterator[tuple[int, dict[str, Any]]]:
    shown = frame.filter(pl.col(ROW) < show) if ROW in frame.columns else frame.clear()
    for record, values in zip(shown[ROW].to_list() if shown.height else [], _user(shown).to_dicts(), strict=True):
        yield record + 1, {name: _payload(value) if name == DATA else plain(value) for name, value in values.items()}


def _user(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.drop(*SYSTEM, PARTITION_KEY, strict=False)


def _payload(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")
