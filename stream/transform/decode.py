"""The contract of a decoder: bytes in, columns out, and a reason for every record that cannot be read.

A decoder is a frozen config like a stage. Its bound form is given a frame of ``SYSTEM`` columns plus ``_partition_key`` and
``_data`` and gives back ``SYSTEM`` columns plus what ``output`` declares; records that it cannot read are rejects with a reason
code. Where one record holds many rows (``expands``), the rows of a record repeat its ``_row``, stand together and keep their
order.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

import polars as pl
from pydantic import BaseModel, ConfigDict

from stream.transform.stage import BoundStage, Example
from stream.transform.types import RecordSchema


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

    def output(self, schema: RecordSchema | None) -> pl.Schema:
        """Columns that decoding gives, without the system columns.

        Raises:
            SchemaMismatch: ``schema`` is missing where it is needed, or given where it has no use.
        """
        raise NotImplementedError

    def bind(self, schema: RecordSchema | None) -> BoundStage:
        """A pure, thread-safe function over raw frames; ``output`` has accepted ``schema``."""
        raise NotImplementedError
