"""The checks on every step of a chain: no record is lost, added, repeated or moved, and none is given another record's lineage.

"Every record read ends in exactly one recorded outcome" must also hold for stages that others write, including users' own functions, so it
cannot rely on stages being correct. Each row carries ``_row``, the index of its record in the batch. After every step the ``_row`` values
that went in are compared with those that came out and those that were rejected. A row that is in neither was dropped on purpose. An unknown
``_row``, a repeated one, one out of order, a changed lineage column or an undeclared schema is a fault of the stage, not of the data. The
shard then halts at a safe point with an error that names the stage: dead-lettering good data would hide the fault, and continuing would
spread it.
"""

from __future__ import annotations

from typing import Final

import polars as pl

from stream.batch import LINEAGE, ROW
from stream.errors import Halted
from stream.native import same_memory
from stream.rows import at
from stream.transform.row_numbers import among, first_indexes, without
from stream.transform.stage import Applied, Step

_REJECTS: Final = pl.Schema({ROW: pl.UInt32(), "reason": pl.String()})
_NONE_REJECTED: Final = _REJECTS.to_frame()


def checked(step: Step, before: pl.DataFrame, applied: Applied) -> tuple[pl.DataFrame, pl.DataFrame]:
    """What ``step`` made of ``before``: the rows that continue, with the columns as declared, and the rejects, one for a record.

    A record with a rejected row is rejected with all its rows.

    Raises:
        Halted: the step broke conservation or its declared schema.
    """
    after = declared(step, applied.frame)
    rejects = _checked_rejects(step, before, applied.rejects)
    if not step.unique and rejects.height:
        after = after.join(rejects.select(ROW), on=ROW, how="anti", maintain_order="left")
    _check_rows(step, before, after, rejects)
    return after, rejects


def declared(step: Step, frame: pl.DataFrame) -> pl.DataFrame:
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
    compared = ((name, source.get_column(name), after.get_column(name)) for name in LINEAGE)
    changed = [name for name, given, found in compared if not (same_memory(given, found) or given.equals(found, null_equal=True))]
    if changed:
        msg = f"stage {step.name!r} changed the lineage column {changed[0]!r}; these columns may be read, never written"
        raise Halted(msg)


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
    return at(before[[*LINEAGE]], _places(step, before[ROW], rows))


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
