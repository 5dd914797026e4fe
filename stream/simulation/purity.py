"""Finds stages whose result depends on more than the record: the clock, chance, order, neighbours, earlier calls, the process.

Each stage is given the rows that the stages before it made, again and again: all at once, a second time, in parts, one record at a time,
after other records, and in another process with another environment and a later clock. Where results differ, the stage is at fault, since
its input was the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import polars as pl

from stream.batch import ROW, Batch, Outcome
from stream.errors import StreamError
from stream.pipeline.model import Pipeline
from stream.pipeline.sensitive import HIDDEN, sensitive_by_step, unreadable
from stream.pipeline.trials.trial import SHARD_ID, plain
from stream.transform.engine import CompiledChain, advance
from stream.transform.stage import Step

WHOLE: Final = "all records at once"
AGAIN: Final = "the same a second time"
HALVES: Final = "in two halves"
THIRDS: Final = "in parts of three records"
SINGLY: Final = "one record at a time"
AFTER: Final = "all at once, after other records"
ELSEWHERE: Final = "in another process, with another environment, a later clock and one thread"

FATE: Final = "(outcome)"
"""In place of a column: what became of the record."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A stage that gave one record two results. ``record`` counts from 1; ``one`` and ``other`` are as JSON can hold them.

    ``how_one`` and ``how_other``: how the stage was run. ``column`` may be ``FATE``; then the values are outcomes.
    """

    stage: str
    column: str
    record: int
    one: Any
    other: Any
    how_one: str
    how_other: str


Rows = Mapping[int, tuple[Mapping[str, Any], ...]]
"""The results of a stage by record: its rows, or its outcome and reason under ``FATE``."""


@dataclass(frozen=True, slots=True)
class _Ran:
    """A step, the frame that it was given, and what it made of it the first time: later times may not be the same."""

    step: Step
    given: pl.DataFrame
    first: Rows


def _walked(chain: CompiledChain, batch: Batch) -> list[_Ran]:
    """Each step with what the steps before it give.

    Raises:
        Halted: a stage broke its contract.
    """
    ran: list[_Ran] = []
    before: pl.DataFrame | None = None
    for number, (_, _, after, settled, _) in enumerate(chain.walk(batch, SHARD_ID)):
        if before is not None:
            ran.append(_Ran(chain.steps[number - 1], before, _rows(after, settled, 0)))
        before = after
    return ran


def differences(chain: CompiledChain, batch: Batch, *, other: Sequence[Rows] | None = None) -> list[Difference]:
    """The first difference of each stage that has one; none if all are pure.

    ``other``: what ``results`` of another process gave for the same batch. It counts up to the first stage that differs there: those after
    that one were given other rows. Stages that declare that they look at more than one row are not run in parts: their rows may depend on
    the unit, which a manifest fixes.
    """
    found = []
    for number, ran in enumerate(_walked(chain, batch)):
        there = None if other is None else other[number]
        found += list(_of_step(ran, there))[:1]
        if there is not None and any(compare(ran.step.name, ran.first, there, WHOLE, ELSEWHERE)):
            other = None
    return found


def hide(found: Sequence[Difference], pipeline: Pipeline, chain: CompiledChain) -> list[Difference]:
    """``found`` without the values of columns that are sensitive at that stage."""
    at_step = sensitive_by_step(pipeline.sensitive, pipeline.stages, chain)
    names = {name: unreadable(pipeline.sensitive, columns) for name, columns in at_step.items()}
    return [replace(each, one=HIDDEN, other=HIDDEN) if each.column in names[each.stage] else each for each in found]


def results(chain: CompiledChain, batch: Batch) -> list[Rows]:
    """What each stage gives for all records at once, in the form in which two processes are compared."""
    return [ran.first for ran in _walked(chain, batch)]


def _of_step(ran: _Ran, other: Rows | None) -> Iterator[Difference]:
    for how, run in _ways(ran.step) if not ran.given.is_empty() else ():
        yield from compare(ran.step.name, ran.first, run(ran.step, ran.given), WHOLE, how)
    if other is not None:
        yield from compare(ran.step.name, ran.first, other, WHOLE, ELSEWHERE)


def _ways(step: Step) -> Iterator[tuple[str, Callable[[Step, pl.DataFrame], Rows]]]:
    yield AGAIN, run_whole
    if step.row_wise:
        yield HALVES, lambda step, frame: _in_parts(step, frame, (_records(frame) + 1) // 2)
        yield THIRDS, lambda step, frame: _in_parts(step, frame, 3)
        yield SINGLY, lambda step, frame: _in_parts(step, frame, 1)
    yield AFTER, run_whole


def run_whole(step: Step, frame: pl.DataFrame) -> Rows:
    """The results of one run over all of ``frame``."""
    return _results(step, frame, 0)


def _records(frame: pl.DataFrame) -> int:
    return frame[ROW].n_unique()


def _in_parts(step: Step, frame: pl.DataFrame, size: int) -> Rows:
    """The results of runs over parts of ``size`` records, each numbered from 0 as the records of a unit of its own are."""
    rows: dict[int, tuple[Mapping[str, Any], ...]] = {}
    for part in frame.with_columns(_part=pl.col(ROW).rank("dense") - 1).with_columns(pl.col("_part") // size).partition_by("_part"):
        base = int(part[ROW][0])
        renumbered = part.drop("_part").with_columns((pl.col(ROW) - base).cast(pl.UInt32))
        rows |= _results(step, renumbered, base)
    return rows


def _results(step: Step, frame: pl.DataFrame, base: int) -> Rows:
    try:
        after, settled = advance(step, frame)
    except StreamError as error:
        return {int(row) + base: ({FATE: f"the shard halts: {error}"},) for row in frame[ROW].unique()}
    return _rows(after, settled, base)


def _rows(after: pl.DataFrame, settled: pl.DataFrame, base: int) -> Rows:
    rows: dict[int, tuple[Mapping[str, Any], ...]] = {}
    for row in after.to_dicts():
        record = int(row.pop(ROW)) + base
        rows[record] = (*rows.get(record, ()), {name: plain(value) for name, value in row.items()})
    for row, outcome, _, reason in settled.iter_rows():
        rows[int(row) + base] = ({FATE: Outcome(outcome).label if not reason else f"{Outcome(outcome).label}: {reason}"},)
    return rows


def compare(stage: str, one: Rows, other: Rows, how_one: str, how_other: str) -> Iterator[Difference]:
    """The differences between two results of a stage, by record."""
    for record in sorted(one.keys() | other.keys()):
        mine, theirs = one.get(record, ()), other.get(record, ())
        if _same(mine, theirs):
            continue
        column, a, b = _first(mine, theirs)
        yield Difference(stage, column, record + 1, a, b, how_one, how_other)


def _same(one: Any, other: Any) -> bool:
    """Equality by which NaN equals itself, and 1 is not True."""
    return repr(one) == repr(other)


def _first(mine: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]]) -> tuple[str, Any, Any]:
    if len(mine) != len(theirs) or any(FATE in row for row in (*mine, *theirs)):
        return FATE, _fate(mine), _fate(theirs)
    for left, right in zip(mine, theirs, strict=True):
        for name in left:
            if not _same(left[name], right.get(name)):
                return name, left[name], right.get(name)
    return FATE, _fate(mine), _fate(theirs)


def _fate(rows: Sequence[Mapping[str, Any]]) -> str:
    if len(rows) == 1 and FATE in rows[0]:
        return str(rows[0][FATE])
    return {0: "no row", 1: "goes on"}.get(len(rows), f"goes on with {len(rows)} rows")
