"""Turns records that a sink cannot write into dead letters, before anything is written."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import polars as pl

from stream.batch import ROW, Outcome
from stream.contracts import RefusingSink, Sink, Transformed


def accepted(transformed: Transformed, sinks: Iterable[Sink]) -> Transformed:
    """``transformed``, with each record that one of ``sinks`` refuses turned into a dead letter whose stage is the sink's name.

    A record that became several rows is refused as a whole, so each record still has exactly one outcome.
    """
    for sink in sinks:
        if not isinstance(sink, RefusingSink) or (refused := sink.refused(transformed.rows_for(sink.name))).is_empty():
            continue
        dead_letters = refused.select(
            pl.col(ROW).cast(pl.UInt32),
            pl.lit(Outcome.DEAD_LETTERED.value, pl.UInt8).alias("outcome"),
            pl.lit(sink.name).alias("stage"),
            pl.col("reason"),
        )
        kept = transformed.frame.select(~pl.col(ROW).is_in(dead_letters[ROW].implode())).to_series()
        taken = {name: rows.filter(kept) for name, rows in transformed.taken.items()}
        settled = pl.concat([transformed.settled, dead_letters.select(transformed.settled.columns)]).sort(ROW)
        transformed = dataclasses.replace(transformed, frame=transformed.frame.filter(kept), settled=settled, taken=taken)
    return transformed
