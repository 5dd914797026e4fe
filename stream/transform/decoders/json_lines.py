"""Many JSON objects per record, one on each line."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import polars as pl

from stream.batch import DATA
from stream.transform.decode import Unknown
from stream.transform.decoders.json import EXTRA, Json
from stream.transform.decoders.json_kernel import json_lines_reader
from stream.transform.decoders.json_rows import EMPTY
from stream.transform.decoders.kernel_columns import LinesReader
from stream.transform.decoders.nested import merged, read_payloads, repeated_indexes, system_rows
from stream.transform.stage import Applied, BoundStage, Example
from stream.transform.types import RecordSchema


class JsonLines(Json):
    """Read each line of a record as one JSON object; blank lines are skipped.

    Options and reasons are those of `json`. A record with a bad line is rejected as a whole, for its first bad line.
    """

    name: ClassVar[str] = "json_lines"
    expands: ClassVar[bool] = True
    example: ClassVar[Example] = Example(
        config={}, given=[{"_data": '{"a": 1, "b": "x"}\n{"a": 2, "b": "y"}\n'}], expect=[{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]
    )

    def bind(self, schema: RecordSchema | None) -> BoundStage:
        """A function that splits and then reads as `json` does."""
        inner = super().bind(schema)
        assert schema is not None  # noqa: S101 - output() has refused None
        rest = EXTRA if self.unknown is Unknown.CAPTURE else None
        quick = json_lines_reader(schema, strict=self.unknown is Unknown.REJECT, rest=rest)

        def ordinary(frame: pl.DataFrame) -> Applied:
            parents: list[int] = []
            lines: list[bytes] = []
            reasons: dict[int, str] = {}
            for at, record in enumerate(frame[DATA].to_list()):
                found = [line for line in record.split(b"\n") if line.strip(b" \t\r")]
                if not found:
                    reasons[at] = EMPTY
                parents += [at] * len(found)
                lines += found
            return read_payloads(frame, np.array(parents, np.uint32), pl.Series(lines, dtype=pl.Binary()), inner, reasons)

        return ordinary if quick is None else _by_kernel(quick, ordinary)


def _by_kernel(quick: LinesReader, ordinary: BoundStage) -> BoundStage:
    """Reads with ``quick``, and with ``ordinary`` the records that it marks."""

    def decode(frame: pl.DataFrame) -> Applied:
        columns, counts, marked = quick.read(frame[DATA])
        read = Applied(system_rows(frame, repeated_indexes(counts)).hstack(columns))
        return read if marked is None else merged(read, ordinary(frame[np.flatnonzero(marked)]))

    return decode
