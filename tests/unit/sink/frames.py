"""Frames as a chain of stages passes them to a sink."""

from datetime import UTC, datetime, timedelta

import polars as pl

from stream.batch import ARRIVAL, DATA, OUTCOME, PARTITION_KEY, RAW_SCHEMA, ROW, SEQUENCE, SHARD, SUBSEQUENCE, Batch

SHARD_ID = "shardId-000000000003"
FIRST = 49590338271490256608559692538361571095921575989136588898
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


def sequence(row: int) -> str:
    return str(FIRST + row * 7919)


def raw(records: int) -> Batch:
    frame = pl.DataFrame(
        {
            SEQUENCE: [sequence(row) for row in range(records)],
            SUBSEQUENCE: [0] * records,
            ARRIVAL: [EPOCH + timedelta(milliseconds=row) for row in range(records)],
            PARTITION_KEY: [f"key-{row % 5}" for row in range(records)],
            DATA: [b"\xff%d" % row for row in range(records)],
            OUTCOME: [0] * records,
        },
        schema=RAW_SCHEMA,
    )
    return Batch(frame, sum(map(len, frame[DATA])))


def rows(columns: pl.DataFrame, row: list[int] | None = None) -> pl.DataFrame:
    """``columns`` as rows that come from the records ``row`` (by default 0, 1, 2, ...)."""
    numbers = list(range(columns.height)) if row is None else row
    lineage = {
        SHARD: [SHARD_ID] * columns.height,
        SEQUENCE: [sequence(number) for number in numbers],
        SUBSEQUENCE: [0] * columns.height,
        ARRIVAL: [EPOCH + timedelta(milliseconds=number) for number in numbers],
        ROW: numbers,
    }
    schema = {SHARD: pl.String, SEQUENCE: pl.String, SUBSEQUENCE: pl.UInt32, ARRIVAL: pl.Datetime("ms", "UTC"), ROW: pl.UInt32}
    return columns.hstack(pl.DataFrame(lineage, schema=schema))
