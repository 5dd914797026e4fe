"""Records that hold several payloads, or one inside an envelope: opened here, read by a decoder of payloads.

While payloads are read each has a row number of its own, so that which of a record's payloads is found bad first does not depend
on where the inner decoder draws its windows; the record's number comes back afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import polars as pl

from stream.batch import DATA, ROW
from stream.transform.stage import Applied, BoundStage

REJECTS: Final = pl.Schema({ROW: pl.UInt32(), "reason": pl.String()})


def rejected(frame: pl.DataFrame, reasons: dict[int, str]) -> pl.DataFrame:
    """Rejects of the records at the given places of ``frame``."""
    return pl.DataFrame({ROW: frame[ROW][list(reasons)], "reason": list(reasons.values())}, schema=REJECTS)


def read_payloads(
    frame: pl.DataFrame, parents: Sequence[int], payloads: Sequence[bytes], inner: BoundStage, reasons: dict[int, str]
) -> Applied:
    """Decode ``payloads``, each belonging to the record at that place of ``frame`` in ``parents`` (ascending).

    ``reasons`` has the records that could not be opened. A record is rejected for its first bad payload.
    """
    lines = pl.int_range(len(parents), dtype=pl.UInt32, eager=True)
    opened = frame[list(parents)].with_columns(lines.alias(ROW), pl.Series(DATA, payloads, pl.Binary()))
    applied = inner(opened)
    rows = frame[ROW][list(parents)]
    good = applied.frame.with_columns(rows.gather(applied.frame[ROW]).alias(ROW))
    parts = [rejected(frame, reasons)]
    if applied.rejects is not None:
        bad = applied.rejects.sort(ROW)
        parts.append(bad.with_columns(rows.gather(bad[ROW]).alias(ROW)).unique(ROW, keep="first", maintain_order=True))
    return Applied(good, pl.concat(parts).sort(ROW, maintain_order=True))
