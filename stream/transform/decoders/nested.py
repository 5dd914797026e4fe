"""Reads the payloads of records that contain several, or that wrap one in an envelope, with the decoder for payloads.

While payloads are read, each has a row number of its own, so that the first bad payload of a record is the same whatever windows the inner
decoder reads. Afterwards each row gets the number of its record again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from stream.batch import DATA, ROW
from stream.transform.stage import Applied, BoundStage
from stream.transform.types import SYSTEM

REJECTS: Final = pl.Schema({ROW: pl.UInt32(), "reason": pl.String()})


def rejected(frame: pl.DataFrame, reasons: Mapping[int, str]) -> pl.DataFrame:
    """The rejects for ``reasons``, which are given by the index of the record in ``frame``."""
    return pl.DataFrame({ROW: frame[ROW][list(reasons)], "reason": list(reasons.values())}, schema=REJECTS)


def system_rows(frame: pl.DataFrame, parents: npt.NDArray[Any] | None) -> pl.DataFrame:
    """The system columns of the records at the indexes ``parents`` of ``frame``; None: of all, once each."""
    columns = frame[[*SYSTEM]]
    if parents is None:
        return columns
    places = pl.Series(parents.astype(np.uint32, copy=False))
    return pl.DataFrame([column.gather(places) for column in columns])


def repeated_indexes(counts: npt.NDArray[Any]) -> npt.NDArray[Any] | None:
    """Each index, repeated as often as ``counts`` says; None if each occurs once."""
    return None if (counts == 1).all() else np.repeat(np.arange(len(counts), dtype=np.uint32), counts)


def read_payloads(
    frame: pl.DataFrame, parents: npt.NDArray[Any] | None, payloads: pl.Series, inner: BoundStage, reasons: Mapping[int, str]
) -> Applied:
    """Decode ``payloads``; ``parents`` has the index in ``frame`` of each payload's record (ascending; None: one payload per record).

    ``reasons`` has the records that could not be opened. A record is rejected for its first bad payload.
    """
    opened = system_rows(frame, parents)
    rows = opened[ROW]
    lines = pl.Series(ROW, np.arange(len(payloads), dtype=np.uint32))
    applied = inner(pl.DataFrame([lines if column.name == ROW else column for column in opened] + [payloads.alias(DATA)]))
    # The inner decoder keeps the order of rows, so an equal number means the same rows.
    same = applied.frame.height == len(payloads)
    numbers = rows if same else rows.gather(applied.frame[ROW])
    good = pl.DataFrame([numbers if column.name == ROW else column for column in applied.frame])
    parts = [rejected(frame, reasons)] if reasons else []
    if applied.rejects is not None and applied.rejects.height:
        bad = applied.rejects.sort(ROW)
        parts.append(bad.with_columns(rows.gather(bad[ROW]).alias(ROW)).unique(ROW, keep="first", maintain_order=True))
    return Applied(good, pl.concat(parts).sort(ROW, maintain_order=True) if parts else None)


def merged(quick: Applied, other: Applied) -> Applied:
    """Both results as one, in the order of the records."""
    frames = [each.frame for each in (quick, other) if each.frame.height] or [quick.frame]
    rejects = [each.rejects for each in (quick, other) if each.rejects is not None]
    frame = frames[0] if len(frames) == 1 else pl.concat(frames).sort(ROW, maintain_order=True)
    return Applied(frame, pl.concat(rejects).sort(ROW, maintain_order=True) if rejects else None)
