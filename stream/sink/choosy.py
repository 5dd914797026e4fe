"""Sets aside records that a sink cannot take, before anything is written."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import polars as pl

from stream.batch import ROW, Outcome
from stream.contracts import Choosy, Sink, Transformed


def accepted(transformed: Transformed, sinks: Iterable[Sink]) -> Transformed:
    """``transformed``, with records that one of ``sinks`` cannot take made into dead letters whose stage is the sink's name.

    A record that became several rows is refused as a whole; each record still ends exactly once.
    """
    for sink in sinks:
        if not isinstance(sink, Choosy) or (told := sink.refused(transformed.frame)).is_empty():
            continue
        dead = told.select(
            pl.col(ROW).cast(pl.UInt32),
            pl.lit(Outcome.DEAD_LETTERED.value, pl.UInt8).alias("outcome"),
            pl.lit(sink.name).alias("stage"),
            pl.col("reason"),
        )
        frame = transformed.frame.join(dead, on=ROW, how="anti", maintain_order="left")
        settled = pl.concat([transformed.settled, dead.select(transformed.settled.columns)]).sort(ROW)
        transformed = dataclasses.replace(transformed, frame=frame, settled=settled)
    return transformed
