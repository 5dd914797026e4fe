"""How much arrived in a shard over a period, computed from the ledger segments of its units. Pure.

A ledger row has the length of the payload, but not that of the partition key, which Kinesis also counts; and KPL aggregates have framing
that is in no row. So the sums are slightly lower than Kinesis's own.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stream.audit.ledger import SegmentError

_COLUMNS: Final = ("sub", "arrival_ms", "bytes")
_SECOND: Final = 1000
_MS: Final = timedelta(milliseconds=1)
_EPOCH: Final = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


class Arrivals:
    """Arrivals from ``begin`` until before ``end``, one bin per second from ``begin`` on; the last bin may be shorter.

    ``size``: payload bytes; ``records``: Kinesis records; ``users``: user records in all bins together.
    """

    def __init__(self, begin: datetime, end: datetime) -> None:
        self.begin = begin
        self.end = end
        seconds = max(1, -((begin - end) // timedelta(seconds=1)))
        self.size = np.zeros(seconds)
        self.records = np.zeros(seconds, np.int64)
        self.users = 0

    def add(self, segment: bytes) -> None:
        """Count the records of a ledger segment.

        Raises:
            SegmentError: it cannot be read.
        """
        try:
            rows = pq.ParquetFile(pa.BufferReader(segment)).read(columns=list(_COLUMNS))
            sub, arrival, size = (rows.column(name).to_numpy() for name in _COLUMNS)
        except (pa.ArrowInvalid, OSError, KeyError) as error:
            msg = f"a ledger segment is a Parquet file with the columns {', '.join(_COLUMNS)}, but this is not one: {error}"
            raise SegmentError(msg) from error
        begin, end = (self.begin - _EPOCH) // _MS, -((_EPOCH - self.end) // _MS)
        inside = (arrival >= begin) & (arrival < end)
        bins = (arrival[inside] - begin) // _SECOND
        self.size += np.bincount(bins, size[inside], len(self.size))
        # An aggregate is counted as one Kinesis record, by its first user record.
        self.records += np.bincount(bins[sub[inside] == 0], minlength=len(self.records))
        self.users += int(inside.sum())
