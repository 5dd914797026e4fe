"""Frames and batches as the engine receives them, and resources for stages."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import polars as pl

from stream.batch import ARRIVAL, DATA, OUTCOME, PARTITION_KEY, RAW_SCHEMA, SEQUENCE, SUBSEQUENCE, Batch, Outcome
from stream.transform.stage import Resources
from stream.transform.types import SYSTEM, SYSTEM_SCHEMA

AIRLINES = pl.DataFrame({"carrier": ["AA", "UA"], "name": ["American Airlines Inc.", "United Air Lines Inc."]})

RESOURCES = Resources(
    tables={"reference/airlines.parquet": AIRLINES},
    secrets={"env:MASK_KEY": b"a key for examples"},
    functions={"my_company.flights:score": lambda frame: frame.with_columns((pl.col("dep_delay") * 2).alias("score"))},
)


def batch(records: Sequence[bytes], outcomes: Sequence[int] | None = None) -> Batch:
    """A raw batch of ``records``, one sequence number each."""
    count = len(records)
    columns: dict[str, Any] = {
        SEQUENCE: [str(10**20 + index) for index in range(count)],
        SUBSEQUENCE: [0] * count,
        ARRIVAL: list(range(count)),
        PARTITION_KEY: [f"key-{index}" for index in range(count)],
        DATA: list(records),
        OUTCOME: list(outcomes) if outcomes is not None else [int(Outcome.PENDING)] * count,
    }
    return Batch(pl.DataFrame(columns, schema=RAW_SCHEMA), sum(map(len, records)))


def raw_frame(records: Sequence[bytes]) -> pl.DataFrame:
    """The frame that a decoder receives."""
    return rows({PARTITION_KEY: ["k"] * len(records), DATA: list(records)}, {PARTITION_KEY: pl.String(), DATA: pl.Binary()})


def rows(columns: dict[str, list[Any]], schema: dict[str, Any] | None = None) -> pl.DataFrame:
    """A frame between stages: system columns and then ``columns``."""
    user = pl.DataFrame(columns, schema=schema)
    count = user.height
    system = pl.DataFrame(
        {
            "_shard": ["s"] * count,
            "_sequence": [str(n) for n in range(count)],
            "_subsequence": [0] * count,
            "_arrival": range(count),
            "_row": range(count),
        },
        schema=SYSTEM_SCHEMA,
    )
    return pl.concat([system, user], how="horizontal")


def user(frame: pl.DataFrame) -> list[dict[str, Any]]:
    """The user's columns as dicts."""
    return frame.drop(SYSTEM).to_dicts()


def ticks() -> Any:
    """A timer that counts its calls."""
    counter = itertools.count()
    return lambda: float(next(counter))


def apply(stage: Any, frame: pl.DataFrame, resources: Resources = RESOURCES) -> tuple[list[dict[str, Any]], dict[int, str]]:
    """Run one stage: the user's columns of the rows that it passes on, and the reason for each row that it rejects.

    Asserts that the frame has the schema that the stage declares.
    """
    declared = stage.output(frame.schema, resources)
    applied = stage.bind(frame.schema, resources)(frame)
    assert applied.frame.schema == declared
    rejects = {} if applied.rejects is None else dict(applied.rejects.iter_rows())
    return user(applied.frame), rejects
