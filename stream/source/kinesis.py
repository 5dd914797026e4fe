"""A Kinesis stream as a source of pages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime

from stream.contracts import Page, Shard, Start
from stream.source.access import StreamAccess
from stream.source.shard import ShardReader


class KinesisSource(StreamAccess):
    """``contracts.Source`` over one stream."""

    def read(
        self, shard: Shard, after: int, start: Start, until: int | None = None, complete_until: datetime | None = None
    ) -> AsyncIterator[Page]:
        """Pages of ``shard``, as ``contracts.Source.read`` promises."""
        return ShardReader(self, shard, after, start, until, complete_until).pages()
