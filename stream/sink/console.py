"""Prints rows to standard output, for watching a pipeline while it runs."""

from __future__ import annotations

from typing import ClassVar, Literal

import polars as pl
from pydantic import Field

from stream.contracts import CONSOLE
from stream.sink.encode import Compression, Format
from stream.sink.objects import ObjectsSinkConfig, SinkConfig


class ConsoleSinkConfig(SinkConfig):
    """Rows as JSON lines on standard output, for runs by hand; not exactly once.

    A unit is printed as a whole before it is sealed. What was printed is not kept: if a worker dies, the unit it was working on is printed
    again by the next, and `stream audit verify` cannot check it. Events go to standard error, so `stream run pipeline.yaml | jq .` works;
    the run ends when its reader exits. Not for `coordination: kcl`, whose daemon talks to the worker over standard output.
    """

    kind: ClassVar[str] = "console"

    url: Literal["console:"] = Field(default=CONSOLE, description="Always the same; there is one standard output.")
    name: str = Field(default="console", pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$", description="Name in manifests and metrics.")
    lineage: bool = Field(default=False, description="Also print _shard, _sequence, _subsequence and _arrival.")

    def as_files(self) -> ObjectsSinkConfig:
        """The sink whose files would contain exactly the printed bytes."""
        return ObjectsSinkConfig(url="memory:", name=self.name, format=Format.NDJSON, compression=Compression.NONE, lineage=self.lineage)

    def check(self, schema: pl.Schema) -> None:
        """Make sure that rows of ``schema`` (lineage and ``_row`` included) can be printed.

        Raises:
            SinkMismatch: a column cannot be represented in JSON, or there are no columns.
        """
        self.as_files().check(schema)

    def key_pattern(self, unit: str) -> str:
        """See ``SinkConfig``. The keys appear in manifests only."""
        return self.as_files().key_pattern(unit)

    def most_files(self, partitions: float, encoded_bytes: float) -> float:  # noqa: ARG002
        """0: no file is kept."""
        return 0.0
