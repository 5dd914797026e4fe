"""The contract of a decoder: bytes in, columns out, and a reason for every record that cannot be read.

A decoder is a frozen config, like a stage. ``bind`` returns a function that takes a frame with the ``SYSTEM`` columns, ``_partition_key``
and ``_data``, and returns the ``SYSTEM`` columns and those that ``output`` declares. Records that it cannot read become rejects with a
reason code. If a record contains several rows (``expands``), these repeat its ``_row``, are adjacent and keep their order.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
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
    """Whether one record may hold any number of rows, with the options for which ``expanding`` says so."""
    window_bytes: ClassVar[int | None] = None
    """Bytes of records to decode at a time, for decoders that need far more memory than their columns; None: the whole batch."""

    compression: Compression | None = Field(
        default=None, description="How each record is compressed: gzip, zstd, snappy, or {codec, max_bytes, max_ratio}."
    )

    def expanding(self) -> bool:
        """Whether one record may hold any number of rows with the options that the decoder has; for most, options make no difference."""
        return self.expands

    def repeated(self) -> str | None:
        """The column that holds values of the schema's columns once more, such as a row before its change; None: there is none."""
        return None

    def documents(self, record: bytes) -> Sequence[tuple[str, bytes]]:
        """The JSON texts in ``record`` with the schema's columns, each with what reasons put in front of their names, for ``preview``."""
        return [("", record)]

    def file_urls(self) -> tuple[str, ...]:
        """URLs of the files to load before ``resolved`` is called, such as a schema that is not part of the definition."""
        return ()

    def resolved(self, resources: Resources) -> DecoderConfig:  # noqa: ARG002 - only decoders with files use it
        """This decoder with the content of its files in place of their URLs; itself if it has none.

        Raises:
            SchemaMismatch: a file is not among ``resources`` or does not hold what it should.
        """
        return self

    @abstractmethod
    def output(self, schema: RecordSchema | None) -> pl.Schema:
        """The columns that the decoder adds to the system columns.

        Raises:
            SchemaMismatch: ``schema`` is missing where it is needed, or given where it has no use.
        """

    @abstractmethod
    def bind(self, schema: RecordSchema | None) -> BoundStage:
        """A pure, thread-safe function over raw frames; ``output`` has accepted ``schema``."""

    def bound(self, schema: RecordSchema | None) -> BoundStage:
        """``bind``, for records that are decompressed first if ``compression`` says so."""
        bare = self.bind(schema)
        if self.window_bytes is not None:
            bare = windowed(bare, self.window_bytes)
        if self.compression is None or self.compression.codec is Codec.NONE:
            return bare
        return decompressing(self.compression, bare)
