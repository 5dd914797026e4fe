"""Dead letters: records that could not be processed, with their original bytes and the stage and reason of the failure."""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import Final

import polars as pl

from stream.batch import ARRIVAL, ATTEMPT, DATA, PARTITION_KEY, ROW, SEQUENCE, SHARD, SUBSEQUENCE, Batch, Outcome
from stream.contracts import Encoded, OutputFile
from stream.sink.encode import parquet
from stream.sink.objects import NOTHING_PLACED, PLACEMENT, checked_key

NAME: Final = "rejects"
"""The sink's name in manifests, ledgers and metrics."""

SCHEMA: Final = pl.Schema(
    {
        SHARD: pl.String(),
        SEQUENCE: pl.String(),
        SUBSEQUENCE: pl.UInt32(),
        ARRIVAL: pl.Datetime("ms", "UTC"),
        PARTITION_KEY: pl.String(),
        "stage": pl.String(),
        "reason": pl.String(),
        "fingerprint": pl.String(),
        "cause": pl.String(),
        ATTEMPT: pl.UInt16(),
        DATA: pl.Binary(),
    }
)
"""Columns of a rejects file. ``_data`` holds the record's original bytes, so that a redrive can send them again; ``_attempt`` counts how
often the record has been tried, this attempt included."""

SOURCE: Final = "source"
DECODE: Final = "decode"
STAGE_ERROR: Final = "stage_error"


class Cause(StrEnum):
    """What rejected a record."""

    SOURCE = "source"
    DECODE = "decode"
    VALIDATION = "validation"
    STAGE_ERROR = "stage_error"
    STAGE = "stage"
    SINK = "sink"


def cause_of(stage: str, reason: str) -> Cause:
    """The cause, from the stage's name (``<index>:<kind>``, ``decode``, or a sink's name) and the reason code."""
    if stage == SOURCE:
        return Cause.SOURCE
    if stage == DECODE:
        return Cause.DECODE
    if reason.partition(":")[0] == STAGE_ERROR:
        return Cause.STAGE_ERROR
    index, colon, kind = stage.partition(":")
    if not (colon and index.isdigit()):
        return Cause.SINK
    return Cause.VALIDATION if kind == "validate" else Cause.STAGE


def fingerprint(stage: str, reason: str) -> str:
    """16 hex digits, the same for all records rejected by one stage for one reason, across units and streams."""
    return hashlib.sha256(f"{stage}\0{reason}".encode()).hexdigest()[:16]


def encode(settled: pl.DataFrame, batch: Batch, shard_id: str, unit: str) -> Encoded:
    """The unit's dead letters as one Parquet file ``<unit>.<sha16>.parquet``; no file if there are none.

    ``settled`` is ``Transformed.settled`` of ``batch``; rows with other outcomes are ignored. Rows are in stream order. Redriven records
    keep the shard and sequence number of their first delivery.
    """
    dead = settled["outcome"] == Outcome.DEAD_LETTERED
    if not dead.any():
        return Encoded((), NOTHING_PLACED)
    rejected = settled.filter(dead).sort(ROW)
    causes = rejected.select("stage", "reason").unique(maintain_order=True)
    fingerprints = [fingerprint(stage or "", reason or "") for stage, reason in causes.iter_rows()]
    cause_names = [cause_of(stage or "", reason or "").value for stage, reason in causes.iter_rows()]
    marked = rejected.join(
        causes.with_columns(fingerprint=pl.Series(fingerprints, dtype=pl.String), cause=pl.Series(cause_names, dtype=pl.String)),
        on=["stage", "reason"],
        how="left",
        nulls_equal=True,
        maintain_order="left",
    )
    frame = batch.frame[rejected[ROW]].with_columns(
        pl.lit(shard_id).alias(SHARD),
        pl.lit(1, pl.UInt16).alias(ATTEMPT),
        *marked.select("stage", "reason", "fingerprint", "cause").get_columns(),
    )
    if batch.first_read is not None:
        first = batch.first_read[rejected[ROW]]
        frame = frame.with_columns(first.select(SHARD, SEQUENCE, SUBSEQUENCE).get_columns()).with_columns(first[ATTEMPT] + 1)
    body = parquet(frame.select(SCHEMA.names()))
    digest = hashlib.sha256(body).hexdigest()
    file = OutputFile(NAME, checked_key(f"{unit}.{digest[:16]}.parquet"), body, frame.height, digest)
    lines = pl.int_range(frame.height, dtype=pl.UInt32, eager=True)
    placement = pl.DataFrame({ROW: rejected[ROW], "file": pl.zeros(frame.height, pl.UInt16, eager=True), "line": lines})
    return Encoded((file,), placement.match_to_schema(PLACEMENT))
