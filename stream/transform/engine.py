"""The chain: a decoder and stages compiled into one pure function from a batch to rows and settled records.

Why it is pure. If a worker does not finish a unit, the next holder of the shard renders it again. The result must be the same byte for
byte, or the data would exist twice. So nothing in this room reads a clock, draws random numbers, uses the network or depends on the
iteration order of a hash table. Reference tables, secrets and user functions are passed in as values. So is the timer that measures
stages, which affects only ``stage_rows``.

Why nothing is lost. After every step ``conservation.py`` compares the rows that went in with those that came out and those that were
rejected. A row that is in neither was dropped on purpose, and is settled with the stage's ``drops`` outcome.

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

from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
import polars as pl
from polars.exceptions import PanicException

from stream.batch import OUTCOME, RAW_SCHEMA, ROW, SEQUENCE, SHARD, SUBSEQUENCE, Batch, Outcome
from stream.contracts import Transformed
from stream.errors import Halted, StreamError
from stream.transform.conservation import checked, declared
from stream.transform.decode import DecoderConfig
from stream.transform.raised import what_was_raised
from stream.transform.routing import SINKS, Conditions, Routing, compile_routing
from stream.transform.stage import Applied, Resources, SchemaMismatch, StageConfig, Step
from stream.transform.types import RESERVED, SYSTEM, SYSTEM_SCHEMA, RecordSchema

SETTLED_SCHEMA: Final = pl.Schema({ROW: pl.UInt32(), "outcome": pl.UInt8(), "stage": pl.String(), "reason": pl.String()})
"""Columns of ``Transformed.settled``."""

SOURCE: Final = "source"
DECODE: Final = "decode"
OUT_OF_RANGE: Final = "kpl_out_of_range"
OBJECT_UNREADABLE: Final = "object_unreadable"
STAGE_ERROR: Final = "stage_error"

NONE_SETTLED: Final = SETTLED_SCHEMA.to_frame()


class StepDone(NamedTuple):
    """What one step did: rows that went in, the ``frame`` after it, the rows of ``SETTLED_SCHEMA`` that it added, and seconds."""

    name: str
    rows_in: int
    frame: pl.DataFrame
    settled: pl.DataFrame
    seconds: float


class CompiledChain:
    """A ``contracts.Chain``: equal batches give equal frames. Thread-safe; holds no state between runs."""

    def __init__(self, steps: tuple[Step, ...], timer: Callable[[], float], routing: Routing | None = None) -> None:
        """``steps``: the decoder and the stages, and last, if there is a ``routing``, the one that leaves out rows that no sink takes."""
        self._steps = steps
        self._timer = timer
        self._routing = routing

    @property
    def steps(self) -> tuple[Step, ...]:
        """The decoder, the stages and, if a sink has a condition, ``sinks``; each may be run by itself with ``advance``."""
        return self._steps

    @property
    def output_schema(self) -> pl.Schema:
        """Columns and types of ``Transformed.frame``: the system columns, then the user's."""
        return self._steps[-1].output

    @property
    def stage_names(self) -> tuple[str, ...]:
        """``decode``, each stage as ``<place, from 1>:<kind>``, and ``sinks`` if one has a condition: as outcomes and metrics say."""
        return tuple(step.name for step in self._steps)

    @property
    def schemas(self) -> tuple[tuple[str, pl.Schema], ...]:
        """The name of the decoder and of each stage, and the schema after it."""
        return tuple((step.name, step.output) for step in self._steps if step.name != SINKS)

    def taken(self, frame: pl.DataFrame) -> dict[str, pl.Series]:
        """Which rows of ``frame``, which is as after the last step, each sink takes, as ``Transformed.taken`` has it."""
        return self._routing.taken(frame) if self._routing is not None else {}

    def failure(self, name: str, frame: pl.DataFrame) -> str | None:
        """What the step ``name`` raises on ``frame``, and where; it may quote values. None if it raises nothing."""
        [step] = [each for each in self._steps if each.name == name]
        try:
            step.run(frame)
        except StreamError:
            raise
        except (Exception, PanicException) as error:  # noqa: BLE001 - as in _run_isolating
            return what_was_raised(error)
        return None

    def run(self, batch: Batch, shard_id: str) -> Transformed:
        """Decode ``batch`` and run every stage over it.

        Raises:
            Halted: a stage added, duplicated or reordered rows, changed their lineage, or returned undeclared columns.
        """
        settled_parts, stage_rows = [], []
        for name, rows_in, after, settled, seconds in self.walk(batch, shard_id):
            if name != SOURCE:
                stage_rows.append((name, rows_in, after.height, seconds))
            settled_parts += [settled] if settled.height else []
            frame = after
        all_settled = settled_parts[0] if len(settled_parts) == 1 else pl.concat(settled_parts) if settled_parts else NONE_SETTLED
        if not all_settled[ROW].is_sorted():
            all_settled = all_settled.sort(ROW)
        return Transformed(frame, all_settled, batch.rows, tuple(stage_rows), self.taken(frame))

    def walk(self, batch: Batch, shard_id: str) -> Iterator[StepDone]:
        """What each step did, one after the other. The first is ``source``, for records that the source has settled.

        Raises:
            Halted: as ``run``.
        """
        frame, settled = _pending_and_settled(batch, shard_id)
        yield StepDone(SOURCE, batch.rows, frame, settled, 0.0)
        for step in self._steps:
            started, rows_in = self._timer(), frame.height
            frame, settled = advance(step, frame)
            yield StepDone(step.name, rows_in, frame, settled, self._timer() - started)


def _pending_and_settled(batch: Batch, shard_id: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The records that the chain is to process, and rows of ``SETTLED_SCHEMA`` for those that the source has settled."""
    count = batch.rows
    columns = {column.name: column for column in batch.frame}
    columns[SHARD] = _repeated(SHARD, shard_id, count)
    columns[ROW] = pl.Series(ROW, np.arange(count, dtype=np.uint32))
    if batch.first_read is not None:
        columns |= {column.name: column for column in batch.first_read.select(SHARD, SEQUENCE, SUBSEQUENCE)}
    frame = pl.DataFrame([columns[name] for name in (*SYSTEM, *(name for name in RAW_SCHEMA if name not in {*SYSTEM, OUTCOME}))])
    outcome = columns[OUTCOME]
    pending = outcome == Outcome.PENDING
    if pending.all():
        return frame, NONE_SETTLED
    outcomes = outcome.filter(~pending)
    reason = pl.select(
        pl.when(outcomes == Outcome.OUT_OF_RANGE)
        .then(pl.lit(OUT_OF_RANGE))
        .when(outcomes == Outcome.DEAD_LETTERED)
        .then(pl.lit(OBJECT_UNREADABLE))
        .otherwise(pl.lit(SOURCE))
    ).to_series()
    return frame.filter(pending), _settled_rows(columns[ROW].filter(~pending), outcomes, SOURCE, reason)


def _repeated(name: str, value: str, count: int) -> pl.Series:
    return pl.Series(name, [value], pl.String()).new_from_index(0, count)


def _settled_rows(rows: pl.Series, outcome: pl.Series | Outcome, stage: str, reason: pl.Series | str) -> pl.DataFrame:
    """Rows of ``SETTLED_SCHEMA``, built from series: most steps settle few records or none, so an expression's overhead would count."""
    count = len(rows)
    outcomes = pl.Series([int(outcome)], dtype=pl.UInt8()).new_from_index(0, count) if isinstance(outcome, Outcome) else outcome
    reasons = _repeated("reason", reason, count) if isinstance(reason, str) else reason
    return pl.DataFrame([rows.alias(ROW), outcomes.alias("outcome"), _repeated("stage", stage, count), reasons.alias("reason")])


def advance(step: Step, frame: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Run one step. Returns the rows that continue, and a row of ``SETTLED_SCHEMA`` for every record that does not.

    Raises:
        Halted: the step broke conservation or its declared schema.
    """
    if frame.is_empty():
        return step.output.to_frame(), NONE_SETTLED
    after, rejects = checked(step, frame, _run_isolating(step, frame))
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
    return Applied(pl.concat([declared(step, part) for part in good]) if good else step.output.to_frame(), pl.concat(bad) if bad else None)


def _middle(frame: pl.DataFrame) -> int:
    """The row at which to split ``frame`` into two without splitting a record; 0 if it has only one record."""
    rows = frame[ROW]
    if rows[0] == rows[-1]:
        return 0
    half = int(rows.search_sorted(rows[frame.height // 2], side="left"))
    return half or int(rows.search_sorted(rows[0], side="right"))


def _code(error: BaseException) -> str:
    return f"{STAGE_ERROR}:{type(error).__name__}"


def _settled(step: Step, before: pl.DataFrame, after: pl.DataFrame, rejects: pl.DataFrame) -> pl.DataFrame:
    dead = _settled_rows(rejects[ROW], Outcome.DEAD_LETTERED, step.name, rejects["reason"]) if rejects.height else NONE_SETTLED
    if step.unique and before.height == after.height + rejects.height:
        return dead
    records = before[ROW].to_numpy()
    if not step.unique:
        # One entry for each record. The first one differs from `prepend`, so it is always kept.
        records = records[np.diff(records, prepend=records[0] ^ 1) != 0]
    is_dropped = np.ones(int(records[-1] - records[0]) + 1, np.bool_)
    for accounted_for in (after[ROW], rejects[ROW]):
        is_dropped[accounted_for.to_numpy() - records[0]] = False
    dropped = _settled_rows(pl.Series(records[is_dropped[records - records[0]]]), step.drops, step.name, step.drops.label)
    return pl.concat([dead, dropped]) if dead.height else dropped


def compile_chain(
    decoder: DecoderConfig,
    schema: RecordSchema | None,
    stages: Sequence[StageConfig],
    resources: Resources,
    timer: Callable[[], float],
    conditions: Conditions = (),
) -> CompiledChain:
    """Check every stage against the columns before it and bind it.

    ``timer``: seconds of a monotonic clock; only ``stage_rows`` depends on it. ``conditions``: those of the sinks.

    Raises:
        SchemaMismatch: ``path`` begins with ``("source", "schema")``, ``("stages", <index from 0>, <stage name>)`` or
            ``("sinks", <index from 0>)``.
    """
    steps = [_decode_step(decoder, schema, resources)]
    unique = not decoder.expanding()
    for index, stage in enumerate(stages):
        before = steps[-1].output
        try:
            after = stage.output(before, resources)
            _check_system(before, after)
            bound = stage.bind(before, resources)
        except SchemaMismatch as error:
            raise SchemaMismatch(("stages", index, stage.name, *error.path), error.message, error.hint) from error
        unique = unique and not stage.expands
        steps.append(Step(f"{index + 1}:{stage.name}", bound, after, stage.divisible(), stage.drops, unique, stage.expands))
    routing = compile_routing(conditions, steps[-1].output)
    if routing is not None:
        steps.append(Step(SINKS, routing.apply, steps[-1].output, unique=unique))
    return CompiledChain(tuple(steps), timer, routing)


def _decode_step(decoder: DecoderConfig, schema: RecordSchema | None, resources: Resources) -> Step:
    try:
        resolved = decoder.resolved(resources)
        columns = resolved.output(schema)
        bound = resolved.bound(schema)
    except SchemaMismatch as error:
        raise SchemaMismatch(("source", "schema", *error.path), error.message, error.hint) from error
    return Step(DECODE, bound, pl.Schema({**SYSTEM_SCHEMA, **columns}), unique=not decoder.expanding(), expands=decoder.expanding())


def _check_system(before: pl.Schema, after: pl.Schema) -> None:
    for name in SYSTEM:
        if after.get(name) != before[name]:
            raise SchemaMismatch((), f"column {name!r} must not be changed", "leave the lineage columns out of this stage")
    for name in after:
        if name in RESERVED and name not in SYSTEM:
            raise SchemaMismatch((), f"column {name!r} is reserved for the service", "give the column another name")
