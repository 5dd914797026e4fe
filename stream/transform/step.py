"""One step of a chain: run over a frame, isolated from bad rows, and checked for conservation.

Why it checks conservation. "Every record read ends in exactly one recorded outcome" must also hold for stages that others write, including
users' own functions, so it cannot rely on stages being correct. Each row carries ``_row``, the index of its record in the batch. After
every step the engine compares the ``_row`` values that went in with those that came out and those that were rejected. A row that is in
neither was dropped on purpose, and is settled with the stage's ``drops`` outcome. An unknown ``_row``, a repeated one, one out of order, a
changed lineage column or an undeclared schema is a fault of the stage, not of the data. The shard then halts at a safe point with an error
that names the stage: dead-lettering good data would hide the fault, and continuing would spread it.

How bad rows are isolated. Stages reject the bad rows that they can detect with a vectorized mask. Anything else raises, and the exception
does not say which row caused it. A row-wise stage gives the same rows whether it runs over the whole frame or over its halves, so the frame
is bisected down to the single rows that raise: about 2 log2(n) runs per bad row, and no extra run if nothing raises. A stage that is not
row-wise cannot be bisected; its whole frame is rejected, and the worker's breaker decides whether to continue. Running out of memory is
never a row's fault, so that error is passed on.

Records stay whole. If a decoder or a stage makes several rows of one record, one rejected row rejects the record with all its rows, and the
record counts as dropped only if all its rows are dropped. Frames are bisected between records, never inside one, and only a step that
declares it (``expands``) may return more rows of a record than it received.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl
from polars.exceptions import PanicException

from stream.batch import LINEAGE, ROW, Outcome
from stream.errors import Halted, StreamError
from stream.transform.row_numbers import among, clearly_equal_texts, first_indexes, without
from stream.transform.stage import Applied, BoundStage

SETTLED_SCHEMA: Final = pl.Schema({ROW: pl.UInt32(), "outcome": pl.UInt8(), "stage": pl.String(), "reason": pl.String()})
"""Columns of ``Transformed.settled``."""

NONE_SETTLED: Final = SETTLED_SCHEMA.to_frame()

STAGE_ERROR: Final = "stage_error"

_REJECTS: Final = pl.Schema({ROW: pl.UInt32(), "reason": pl.String()})
_NONE_REJECTED: Final = _REJECTS.to_frame()


@dataclass(frozen=True, slots=True)
class Step:
    """One bound stage, the decoder, or the choice of rows by sinks, and what is needed to know to check it."""

    name: str
    run: BoundStage
    output: pl.Schema
    row_wise: bool = True
    drops: Outcome = Outcome.FILTERED
    unique: bool = True
    """Whether each record has at most one row after this step."""
    expands: bool = False
    """Whether the step may make several rows from one row."""


def advance(step: Step, frame: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Run one step. Returns the rows that continue, and a row of ``SETTLED_SCHEMA`` for every record that does not.

    Raises:
        Halted: the step broke conservation or its declared schema.
    """
    if frame.is_empty():
        return step.output.to_frame(), NONE_SETTLED
    applied = _run_isolating(step, frame)
    after = _declared(step, applied.frame)
    rejects = _checked_rejects(step, frame, applied.rejects)
    if not step.unique and rejects.height:
        after = after.join(rejects.select(ROW), on=ROW, how="anti", maintain_order="left")
    _check_rows(step, frame, after, rejects)
    return after, _settled(step, frame, after, rejects)


def _run_isolating(step: Step, frame: pl.DataFrame) -> Applied:
    """Run the step; rows on which it raises become rejects.

    Raises:
        Halted: it returned something else than ``Applied``.
    """
    good: list[pl.DataFrame] = []
    bad: list[pl.DataFrame] = []
    todo = [frame]
    while todo:
        part = todo.pop()
        try:
            applied = step.run(part)
        except (StreamError, MemoryError):
            raise
        except (Exception, PanicException) as error:  # noqa: BLE001 - a stage may be the user's own code and raise anything
            half = _middle(part) if step.row_wise else 0
            if half:
                todo += [part[half:], part[:half]]
            else:
                bad.append(part.select(pl.col(ROW).unique(maintain_order=True), pl.lit(_code(error)).alias("reason")))
            continue
        if not isinstance(applied, Applied):
            msg = f"stage {step.name!r} returned {type(applied).__name__}; the function from `bind` must return Applied(frame, rejects)"
            raise Halted(msg)
        good.append(applied.frame)
        if applied.rejects is not None:
            bad.append(applied.rejects)
    if len(good) == 1 and not bad:
        return Applied(good[0])
    return Applied(pl.concat([_declared(step, part) for part in good]) if good else step.output.to_frame(), pl.concat(bad) if bad else None)


def _middle(frame: pl.DataFrame) -> int:
    """The row at which to split ``frame`` into two without splitting a record; 0 if it has only one record."""
    rows = frame[ROW]
    if rows[0] == rows[-1]:
        return 0
    half = int(rows.search_sorted(rows[frame.height // 2], side="left"))
    return half or int(rows.search_sorted(rows[0], side="right"))


def _code(error: BaseException) -> str:
    return f"{STAGE_ERROR}:{type(error).__name__}"


def _declared(step: Step, frame: pl.DataFrame) -> pl.DataFrame:
    """``frame`` with the declared columns in the declared order; raises ``Halted`` if it has others."""
    found = dict(frame.schema)
    if found == dict(step.output):
        return frame if frame.columns == list(step.output) else frame.select(list(step.output))
    missing = [name for name in step.output if name not in found]
    extra = [name for name in found if name not in step.output]
    wrong = [f"{name} is {found[name]}, declared {kind}" for name, kind in step.output.items() if found.get(name, kind) != kind]
    problems = [f"missing: {', '.join(missing)}"] * bool(missing) + [f"not declared: {', '.join(extra)}"] * bool(extra) + wrong
    msg = f"stage {step.name!r} returned columns that it does not declare ({'; '.join(problems)}); correct the stage or its `adds` option"
    raise Halted(msg)


def _checked_rejects(step: Step, before: pl.DataFrame, rejects: pl.DataFrame | None) -> pl.DataFrame:
    if rejects is None or rejects.is_empty():
        return _NONE_REJECTED
    if rejects.schema != _REJECTS:
        msg = f"stage {step.name!r} returned rejects with the columns {dict(rejects.schema)}; they must have {dict(_REJECTS)}"
        raise Halted(msg)
    if step.unique:
        if rejects[ROW].n_unique() != rejects.height:
            msg = f"stage {step.name!r} rejected the same row twice; it may reject a row once"
            raise Halted(msg)
    else:
        rejects = rejects.unique(ROW, keep="first", maintain_order=True)
    if not among(rejects[ROW], before[ROW]).all():
        msg = f"stage {step.name!r} rejected rows that it was not given; `_row` must come from its input"
        raise Halted(msg)
    return rejects


def _check_rows(step: Step, before: pl.DataFrame, after: pl.DataFrame, rejects: pl.DataFrame) -> None:
    rows = after[ROW]
    if rows.null_count():
        msg = f"stage {step.name!r} returned {rows.null_count()} rows without `_row`; a stage may drop rows, but not add any"
        raise Halted(msg)
    first, second = rows.slice(0, max(0, after.height - 1)), rows.slice(1)
    if not (second > first if step.unique else second >= first).all():
        msg = (
            f"stage {step.name!r} duplicated or reordered rows; `_row` must keep rising: a stage may drop rows, but not repeat or move them"
        )
        raise Halted(msg)
    if not step.unique and not step.expands and _has_more_rows_of_a_record(before[ROW], rows):
        msg = f"stage {step.name!r} returned more rows of a record than it was given; a stage may drop rows, but not add any"
        raise Halted(msg)
    source = _source(step, before, rows, rejects)
    if rejects.height and among(rejects[ROW], rows).any():
        msg = f"stage {step.name!r} both kept and rejected a row; it must do one or the other"
        raise Halted(msg)
    changed = [name for name in LINEAGE if not _unchanged(source[name], after[name])]
    if changed:
        msg = f"stage {step.name!r} changed the lineage column {changed[0]!r}; these columns may be read, never written"
        raise Halted(msg)


def _unchanged(before: pl.Series, after: pl.Series) -> bool:
    return (after.dtype == pl.String() and clearly_equal_texts(before, after)) or before.equals(after, null_equal=True)


def _source(step: Step, before: pl.DataFrame, rows: pl.Series, rejects: pl.DataFrame) -> pl.DataFrame:
    """The lineage in ``before`` of each of ``rows``.

    Raises:
        Halted: one of ``rows`` is not among ``before``.
    """
    if rows.equals(before[ROW]):
        return before
    if step.unique and before.height == len(rows) + rejects.height:
        # Usually the only missing rows are those that were rejected, which are few.
        source = without(before[[ROW, *LINEAGE]], before[ROW].search_sorted(rejects[ROW]).sort())
        if rows.equals(source[ROW]):
            return source
    return before[[*LINEAGE]][_places(step, before[ROW], rows)]


def _places(step: Step, before: pl.Series, rows: pl.Series) -> pl.Series:
    """The index in ``before`` of the first row of the record of each of ``rows``; both ascend.

    Raises:
        Halted: one of ``rows`` is not among ``before``.
    """
    places = first_indexes(before, rows)
    if places is not None:
        return places
    msg = f"stage {step.name!r} returned rows that it was not given; `_row` must come from its input"
    raise Halted(msg)


def _has_more_rows_of_a_record(before: pl.Series, after: pl.Series) -> bool:
    counts = [rows.rle().struct.unnest().select(pl.col("value").alias(ROW), "len") for rows in (before, after)]
    return not counts[1].join(counts[0], on=ROW).filter(pl.col("len") > pl.col("len_right")).is_empty()


def _settled(step: Step, before: pl.DataFrame, after: pl.DataFrame, rejects: pl.DataFrame) -> pl.DataFrame:
    dead = settled_rows(rejects[ROW], Outcome.DEAD_LETTERED, step.name, rejects["reason"]) if rejects.height else NONE_SETTLED
    if step.unique and before.height == after.height + rejects.height:
        return dead
    records = before[ROW].to_numpy()
    if not step.unique:
        # One entry for each record. The first one differs from `prepend`, so it is always kept.
        records = records[np.diff(records, prepend=records[0] ^ 1) != 0]
    is_dropped = np.ones(int(records[-1] - records[0]) + 1, np.bool_)
    for accounted_for in (after[ROW], rejects[ROW]):
        is_dropped[accounted_for.to_numpy() - records[0]] = False
    dropped = settled_rows(pl.Series(records[is_dropped[records - records[0]]]), step.drops, step.name, step.drops.label)
    return pl.concat([dead, dropped]) if dead.height else dropped


def settled_rows(rows: pl.Series, outcome: pl.Series | Outcome, stage: str, reason: pl.Series | str) -> pl.DataFrame:
    """Rows of ``SETTLED_SCHEMA``, built from series: most steps settle few records or none, so an expression's overhead would count."""
    count = len(rows)
    outcomes = pl.Series([int(outcome)], dtype=pl.UInt8()).new_from_index(0, count) if isinstance(outcome, Outcome) else outcome
    reasons = repeated("reason", reason, count) if isinstance(reason, str) else reason
    return pl.DataFrame([rows.alias(ROW), outcomes.alias("outcome"), repeated("stage", stage, count), reasons.alias("reason")])


def repeated(name: str, value: str, count: int) -> pl.Series:
    """A column with the same text in each of ``count`` rows."""
    return pl.Series(name, [value], pl.String()).new_from_index(0, count)
