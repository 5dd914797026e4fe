"""Rows as JSON lines record by record, for a host that writes the files itself."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Final

import numpy as np
import polars as pl

from stream.batch import ROW
from stream.sink.encode import Compression, Encoder, Format
from stream.sink.objects import ObjectsSinkConfig
from stream.sink.partition import Partitioning

LINES: Final = pl.Schema({ROW: pl.UInt32(), "lines": pl.String(), "partition": pl.UInt32(), "one_partition": pl.Boolean()})
"""What ``RecordLines.encode`` returns: one row per record. ``lines`` is base64 of its JSON lines, each with a newline at its end."""

_ENCODER: Final = Encoder(Format.NDJSON, Compression.NONE)


class RecordLines:
    """The lines that the files of a sink would contain if its format were ndjson, and the partition of each record."""

    def __init__(self, config: ObjectsSinkConfig) -> None:
        self._config = config
        self._partitions = Partitioning(config.partition_by, config.max_partitions)

    def encode(self, frame: pl.DataFrame) -> tuple[pl.DataFrame, tuple[Mapping[str, str], ...]]:
        """Rows of ``LINES``, ascending by ``_row``, for each record that has rows in ``frame``; and the partitions by number.

        A partition is a text for each partition column, never empty: the name of the directory in which the sink would put the rows,
        without the column's name. Where the rows of a record belong to several partitions, ``one_partition`` is false, and ``partition``
        is that of the first.
        """
        assigned = self._partitions.assign(frame)
        rows, codes = frame[ROW].to_numpy(), assigned.codes.to_numpy()
        # Rows of one record are adjacent.
        first = np.flatnonzero(np.diff(rows, prepend=rows[:1] ^ 1))
        # Of bytes: a text would also be split at line ends that JSON does not escape, such as U+2028.
        lines = _ENCODER.encode(frame[self._config.columns(frame.schema)]).splitlines(keepends=True) if frame.height else []
        if len(first) < frame.height:
            lines = [b"".join(lines[start:end]) for start, end in pairwise([*first.tolist(), frame.height])]
        counts = np.diff(first, append=frame.height)
        mixed = np.add.reduceat(codes != codes[first].repeat(counts), first) if frame.height else counts
        columns = {
            ROW: rows[first],
            "lines": pl.Series(lines, dtype=pl.Binary()).bin.encode("base64"),
            "partition": codes[first],
            "one_partition": mixed == 0,
        }
        return pl.DataFrame(columns, schema=LINES), tuple(self._values(path) for path in assigned.paths)

    def _values(self, path: str) -> dict[str, str]:
        parts = path.split("/") if path else []
        return {name: part.partition("=")[2] for name, part in zip(self._partitions.names, parts, strict=True)}
