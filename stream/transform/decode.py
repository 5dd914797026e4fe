"""The contract of a decoder: bytes in, columns out, and a reason for every record that cannot be read.

A decoder is a frozen config like a stage. Its bound form is given a frame of ``SYSTEM`` columns plus ``_partition_key`` and
``_data`` and gives back ``SYSTEM`` columns plus what ``output`` declares; records that it cannot read are rejects with a reason
code. If one record holds many rows (``expands``), the rows of a record repeat its ``_row``, are adjacent and keep their
order.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from stream.transform.decompress import Codec, Compression, decompressing
from stream.transform.stage import BoundStage, Example, Resources
from stream.transform.types import RecordSchema
from stream.transform.windows import windowed


class Unknown(StrEnum):
    """What to do with fields that the schema does not name."""

    IGNORE = "ignore"
    REJECT = "reject"
    CAPTURE = "capture"


class DecoderConfig(BaseModel):
    """Base of all decoders."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ClassVar[str]
    example: ClassVar[Example]
    """``given`` has one row per record with the text under ``_data``; ``expect`` the decoded rows."""
    expands: ClassVar[bool] = False
    """Whether one record may hold any number of rows."""
    window_bytes: ClassVar[int | None] = None
    """Bytes of records to read in one go, where reading takes far more memory than the columns; None: the whole batch."""

    compression: Compression | None = Field(
        default=None, description="How each record is compressed: gzip, zstd, snappy, or {codec, max_bytes, max_ratio}."
    )

    def file_urls(self) -> tuple[str, ...]:
        """Files to load before ``resolved``, such as a schema that is kept outside of the definition."""
        return ()

    def resolved(self, resources: Resources) -> DecoderConfig:  # noqa: ARG002 - only decoders with files use it
        """This decoder with the content of its files in place of their URLs; itself if it has none.

        Raises:
            SchemaMismatch: a file is not among ``resources`` or does not hold what it should.
        """
        return self

    def output(self, schema: RecordSchema | None) -> pl.Schema:
        """Columns that decoding gives, without the system columns.

        Raises:
            SchemaMismatch: ``schema`` is missing where it is needed, or given where it has no use.
        """
        raise NotImplementedError

    def bind(self, schema: RecordSchema | None) -> BoundStage:
        """A pure, thread-safe function over raw frames; ``output`` has accepted ``schema``."""
        raise NotImplementedError

    def bound(self, schema: RecordSchema | None) -> BoundStage:
        """``bind``, over records that are decompressed first where ``compression`` says so."""
        bare = self.bind(schema)
        if self.window_bytes is not None:
            bare = windowed(bare, self.window_bytes)
        if self.compression is None or self.compression.codec is Codec.NONE:
            return bare
        return decompressing(self.compression, bare)
