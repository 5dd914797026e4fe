"""Many JSON objects per record, one on each line."""

from __future__ import annotations

from typing import ClassVar

import polars as pl

from stream.batch import DATA
from stream.transform.decoders.json import Json
from stream.transform.decoders.nested import read_payloads
from stream.transform.decoders.rows import EMPTY
from stream.transform.stage import Applied, BoundStage, Example
from stream.transform.types import RecordSchema


class JsonLines(Json):
    """Read each line of a record as one JSON object; blank lines are passed over.

    Options and reasons are those of `json`. A record with one bad line is rejected as a whole, for its first bad line.
    """

    name: ClassVar[str] = "json_lines"
    expands: ClassVar[bool] = True
    example: ClassVar[Example] = Example(
        config={}, given=[{"_data": '{"a": 1, "b": "x"}\n{"a": 2, "b": "y"}\n'}], expect=[{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]
    )

    def bind(self, schema: RecordSchema | None) -> BoundStage:
        """A function that splits and then reads as `json` does."""
        inner = super().bind(schema)

        def decode(frame: pl.DataFrame) -> Applied:
            parents: list[int] = []
            lines: list[bytes] = []
            reasons: dict[int, str] = {}
            for at, record in enumerate(frame[DATA].to_list()):
                found = [line for line in record.split(b"\n") if line.strip(b" \t\r")]
                if not found:
                    reasons[at] = EMPTY
                parents += [at] * len(found)
                lines += found
            return read_payloads(frame, parents, lines, inner, reasons)

        return decode
