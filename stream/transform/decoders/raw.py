"""Records as they are: without parsing, no record can be bad."""

from __future__ import annotations

from typing import ClassVar

import polars as pl

from stream.batch import DATA, PARTITION_KEY
from stream.transform.decode import DecoderConfig
from stream.transform.stage import Applied, BoundStage, Example, SchemaMismatch
from stream.transform.types import SYSTEM, RecordSchema


class Raw(DecoderConfig):
    """Keep the payload as bytes in ``data`` and the partition key as text in ``partition_key``, empty if there is none."""

    name: ClassVar[str] = "raw"
    example: ClassVar[Example] = Example(
        config={}, given=[{"_data": "any bytes", "_partition_key": "k"}], expect=[{"data": b"any bytes", "partition_key": "k"}]
    )

    def output(self, schema: RecordSchema | None) -> pl.Schema:
        """``data`` and ``partition_key``; a schema has no meaning for bytes."""
        if schema is not None:
            raise SchemaMismatch((), "decoder raw takes no schema: it gives the columns data and partition_key", "remove `schema`")
        return pl.Schema({"data": pl.Binary(), "partition_key": pl.String()})

    def bind(self, schema: RecordSchema | None) -> BoundStage:  # noqa: ARG002
        """Rename two columns."""

        def decode(frame: pl.DataFrame) -> Applied:
            return Applied(frame.select(*SYSTEM, pl.col(DATA).alias("data"), pl.col(PARTITION_KEY).alias("partition_key")))

        return decode
