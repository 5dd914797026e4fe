"""Compares two pipelines over one sample: outcomes of records, values, columns, and speed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

import polars as pl

from stream.batch import ROW, Batch, Outcome
from stream.contracts import Transformed
from stream.errors import DefinitionError
from stream.pipeline.plan import Change, changes
from stream.pipeline.sensitive import HIDDEN, hidden
from stream.pipeline.trials.trial import SHARD_ID, plain
from stream.transform.engine import CompiledChain
from stream.transform.types import SYSTEM

RUNS: Final = 3
"""Runs of each pipeline to measure its speed. The fastest one counts, since only other work on the machine makes a run slower."""

_NTH: Final = "_nth"
_SINKS: Final = "\0sinks"
"""The column with the names of the sinks that take a row; no column of a pipeline can be called so."""
_SIDE: Final = "\0new"
"""Suffix of the new pipeline's columns in the joined frame; no column of a pipeline can end in it."""


@dataclass(frozen=True, slots=True)
class Moved:
    """Records with another outcome than before."""

    before: str
    after: str
    records: int
    examples: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Altered:
    """One value that is different; ``record`` from 1, ``key`` the values of the key columns."""

    record: int
    key: tuple[Any, ...]
    before: Any
    after: Any


@dataclass(frozen=True, slots=True)
class Column:
    """A column in which values are different: in how many rows, and the first of them."""

    name: str
    rows: int
    examples: tuple[Altered, ...]


@dataclass(frozen=True, slots=True)
class Rerouted:
    """Rows that other sinks take than before, with the names of the sinks; ``examples``: records, from 1."""

    before: str
    after: str
    rows: int
    examples: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """``rows``: number of rows that both pipelines have; ``only_old`` and ``only_new``: numbers of rows without a counterpart.

    ``rerouted``: of the rows that both have; compared if a sink has a condition.
    """

    records: int
    schema: tuple[Change, ...]
    moved: tuple[Moved, ...]
    rows: int
    only_old: int
    only_new: int
    columns: tuple[Column, ...]
    seconds: tuple[float, float]
    rerouted: tuple[Rerouted, ...] = ()

    @property
    def same(self) -> bool:
        """Whether both write the same rows to the same sinks and reject the same records for the same reasons."""
        return not (self.schema or self.moved or self.only_old or self.only_new or self.columns or self.rerouted)


@dataclass(frozen=True, slots=True)
class Shown:
    """How examples are shown: the ``key`` columns that identify a row, how many, and the columns whose values are hidden."""

    key: Sequence[str] = ()
    examples: int = 3
    hide: Collection[str] = ()


def compare(
    old: CompiledChain,
    new: CompiledChain,
    batch: Batch,
    timer: Callable[[], float],
    shown: Shown = Shown(),
    sinks: tuple[Sequence[str], Sequence[str]] = ((), ()),
) -> Difference:
    """Run both over ``batch``. The n-th rows of the same record are compared. ``sinks``: the names of those of ``old`` and of ``new``.

    Raises:
        DefinitionError: a key column is in neither result.
        Halted: a stage broke its contract.
    """
    seconds, done = [], []
    for chain in (old, new):
        took = []
        for _ in range(RUNS):
            began = timer()
            result = chain.run(batch, SHARD_ID)
            took.append(timer() - began)
        seconds.append(min(took))
        done.append(result)
    first, second = done
    schemas = [each.frame.drop(SYSTEM).schema for each in done]
    for name in shown.key:
        if name not in schemas[0] and name not in schemas[1]:
            msg = f"the key column {name!r} is in neither result; there are: {', '.join(dict.fromkeys([*schemas[0], *schemas[1]]))}"
            raise DefinitionError(msg)
    both = _together(*(each.frame.with_columns(_takers(each, names)) for each, names in zip(done, sinks, strict=True)))
    shared = [name for name in schemas[1] if name in schemas[0]]
    return Difference(
        records=batch.rows,
        schema=tuple(changes(schemas[0], schemas[1])),
        moved=tuple(_moved(first, second, shown.examples)),
        rows=both.height,
        only_old=first.frame.height - both.height,
        only_new=second.frame.height - both.height,
        columns=tuple(column for name in shared if (column := _column(both, name, shown)) is not None),
        seconds=(seconds[0], seconds[1]),
        rerouted=tuple(_rerouted(both, shown.examples)) if first.taken or second.taken else (),
    )


def _takers(done: Transformed, sinks: Sequence[str]) -> pl.Series:
    """The names of the ``sinks`` that take each row."""
    takes = pl.DataFrame({name: done.taken.get(name, pl.repeat(value=True, n=done.frame.height, eager=True)) for name in sinks})
    names = [pl.when(name).then(pl.lit(name)) for name in sinks]
    found = (
        takes.select(pl.concat_str(names, separator=", ", ignore_nulls=True)).to_series()
        if sinks
        else pl.repeat("", done.frame.height, eager=True)
    )
    return found.alias(_SINKS)


def _rerouted(both: pl.DataFrame, examples: int) -> list[Rerouted]:
    moved = both.filter(pl.col(_SINKS) != pl.col(_SINKS + _SIDE)).group_by(_SINKS, _SINKS + _SIDE, maintain_order=True).agg(ROW)
    found = [Rerouted(before, after, len(rows), tuple(row + 1 for row in rows[:examples])) for before, after, rows in moved.iter_rows()]
    return sorted(found, key=lambda each: -each.rows)


def _together(old: pl.DataFrame, new: pl.DataFrame) -> pl.DataFrame:
    sides = [_numbered(old), _numbered(new).rename(lambda name: name if name in {ROW, _NTH} else name + _SIDE)]
    return sides[0].join(sides[1], on=[ROW, _NTH], how="inner", maintain_order="left")


def _numbered(frame: pl.DataFrame) -> pl.DataFrame:
    own = [name for name in SYSTEM if name != ROW]
    return frame.drop(own).with_columns(pl.int_range(pl.len(), dtype=pl.UInt32).over(ROW).alias(_NTH))


def _column(both: pl.DataFrame, name: str, shown: Shown) -> Column | None:
    old, new = both[name], both[name + _SIDE]
    if old.dtype == new.dtype:
        different = old.ne_missing(new)
    else:
        # Values of different types are equal if their texts are.
        pairs = zip(old.to_list(), new.to_list(), strict=True)
        different = pl.Series([plain(before) != plain(after) for before, after in pairs], dtype=pl.Boolean)
    rows = both.filter(different)
    if rows.is_empty():
        return None
    examples = []
    for row in rows.head(shown.examples).to_dicts():
        key = hidden({each: plain(row.get(each, row.get(each + _SIDE))) for each in shown.key}, shown.hide)
        before, after = [HIDDEN, HIDDEN] if name in shown.hide else [plain(row[name]), plain(row[name + _SIDE])]
        examples.append(Altered(row[ROW] + 1, tuple(key.values()), before, after))
    return Column(name, rows.height, tuple(examples))


def _moved(old: Transformed, new: Transformed, examples: int) -> list[Moved]:
    fates = [_fates(each) for each in (old, new)]
    counts: Counter[tuple[str, str]] = Counter()
    first: dict[tuple[str, str], list[int]] = {}
    for record in range(old.records):
        pair = (fates[0][record], fates[1][record])
        if pair[0] != pair[1]:
            counts[pair] += 1
            first.setdefault(pair, []).append(record + 1)
    return [Moved(*pair, count, tuple(first[pair][:examples])) for pair, count in counts.most_common()]


def _fates(done: Transformed) -> list[str]:
    """The outcome of each record; for a dead letter with stage and reason, but without the number of the stage, which may differ."""
    fates = [Outcome.WRITTEN.label] * done.records
    for row, outcome, stage, reason in done.settled.select(ROW, "outcome", "stage", "reason").iter_rows():
        label = Outcome(outcome).label
        kind = stage.partition(":")[2] or stage
        fates[row] = f"{label} by {kind}: {reason}" if outcome == Outcome.DEAD_LETTERED else label
    return fates
