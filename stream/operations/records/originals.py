"""Finds records by what they were when they arrived, before any stage: by partition key, or by columns of the source's schema."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from stream.audit.criteria import Criterion, rows_with
from stream.batch import DATA, OUTCOME, PARTITION_KEY, RAW_SCHEMA, ROW, Batch, Outcome
from stream.contracts import Clock
from stream.operations.records.sampling import resources_of
from stream.pipeline.model import Pipeline
from stream.transform.engine import DECODE, CompiledChain, compile_chain
from stream.transform.types import RESERVED


@dataclass(frozen=True, slots=True)
class Matching:
    """Which records match, counted from 0. ``by_text``: those of them that cannot be decoded, but whose bytes contain the values."""

    rows: tuple[int, ...] = ()
    by_text: int = 0


class Originals:
    """Decodes records as a pipeline's source does. Thread-safe."""

    def __init__(self, decoder: CompiledChain) -> None:
        """``decoder``: a chain without stages."""
        self._decoder = decoder
        self.columns = tuple(name for name in decoder.output_schema if name not in RESERVED)

    def know(self, columns: Iterable[str]) -> bool:
        """Whether records have all of these columns when they arrive."""
        return all(column == PARTITION_KEY or column in self.columns for column in columns)

    def matching(self, frame: pl.DataFrame, criteria: Sequence[Criterion]) -> Matching:
        """The records of ``frame``, which has the columns of ``RAW_SCHEMA`` apart from ``_outcome``, that match all ``criteria``.

        A record that cannot be decoded matches if the values stand in its bytes, each not as a part of a longer word or number.
        """
        candidates, inside = set(range(frame.height)), [each for each in criteria if each.column != PARTITION_KEY]
        for each in criteria:
            if each.column == PARTITION_KEY:
                candidates &= set((frame[PARTITION_KEY] == each.value).arg_true())
        if not inside or not candidates:
            return Matching(tuple(sorted(candidates)))
        raw = frame.with_columns(pl.lit(int(Outcome.PENDING), pl.UInt8).alias(OUTCOME)).select(RAW_SCHEMA.names())
        decoded = next(step for step in self._decoder.walk(Batch.of(raw), "") if step.name == DECODE)
        found = candidates & set(decoded.frame[ROW][list(rows_with(decoded.frame.lazy(), inside).rows)])
        words = [re.compile(rb"(?<![0-9A-Za-z])" + re.escape(each.value.encode()) + rb"(?![0-9A-Za-z])") for each in inside]
        unread = decoded.settled.filter(pl.col("outcome") == int(Outcome.DEAD_LETTERED))[ROW] if all(each.value for each in inside) else ()
        by_text = [row for row in unread if row in candidates and all(word.search(frame[DATA][row]) for word in words)]
        return Matching(tuple(sorted(found.union(by_text))), len(by_text))


async def open_originals(pipeline: Pipeline, base: Path, env: Mapping[str, str], clock: Clock) -> Originals:
    """The decoder of ``pipeline``; the tables and secrets of its stages are not needed.

    Raises:
        DefinitionError: a file of the decoder is missing.
    """
    fetched = await resources_of(pipeline.model_copy(update={"stages": ()}), base, env)
    source = pipeline.source
    return Originals(compile_chain(source.decode, source.record_schema(), (), fetched.resources, clock.monotonic))
