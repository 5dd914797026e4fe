"""One shard: its hash range and its records, oldest first. Pure; times are Unix milliseconds, passed in."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from stream.local.kinesis import sequence

HASH_KEYS: Final = 2**128
"""Number of hash keys; a stream's open shards tile 0..2^128-1 at every moment."""

MAX_PAGE_RECORDS: Final = 10_000
MAX_PAGE_BYTES: Final = 10 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Page:
    """A slice of a shard: ``records`` are rendered JSON objects, ``last`` is the position after them.

    ``behind_ms`` is 0 exactly if no record follows ``last``; ``ended`` if none ever will.
    """

    records: Sequence[bytes]
    last: int
    size: int
    behind_ms: int
    ended: bool


class Shard:
    """A shard and its log.

    ``second`` is the creation time in the sequence numbers. ``_sizes[i]`` is the total of payload and key bytes put up to and
    including record i, so that a page's size is a difference. The lists are parallel; ``_sequences`` and ``_arrivals`` are ascending.
    """

    def __init__(self, index: int, first_hash: int, last_hash: int, opened_ms: int, second: int, parents: tuple[str, ...] = ()) -> None:
        self.index = index
        self.first_hash = first_hash
        self.last_hash = last_hash
        self.opened_ms = opened_ms
        self.second = second
        self.parents = parents
        self.children: list[Shard] = []
        self.closed_ms: int | None = None
        self._base = sequence.base(second, index)
        self._counter = 0
        self._last = self.starting_sequence
        self._trimmed_bytes = 0
        self._sequences: list[int] = []
        self._arrivals: list[int] = []
        self._sizes: list[int] = []
        self._records: list[bytes] = []

    @property
    def shard_id(self) -> str:
        """``shardId-`` and twelve digits."""
        return f"shardId-{self.index:012d}"

    @property
    def is_open(self) -> bool:
        """Whether records can be put."""
        return self.closed_ms is None

    @property
    def starting_sequence(self) -> int:
        """Smaller than every record's number; no record has it."""
        return sequence.number(self._base, 0, self.second)

    @property
    def ending_sequence(self) -> int | None:
        """Greater than every record's number; None while open."""
        return None if self.closed_ms is None else sequence.number(self._base, sequence.END_COUNTER, self.closed_ms // 1000)

    @property
    def tip(self) -> int:
        """The position after the newest record: its number, also after it was trimmed, or the shard's starting number."""
        return self._last

    def open_at(self, moment_ms: int) -> bool:
        """Whether the shard took records at that moment."""
        return self.opened_ms <= moment_ms and (self.closed_ms is None or self.closed_ms > moment_ms)

    def put(self, key: bytes, text: bytes, size: int, now_ms: int) -> int:
        """Append one record and return its number.

        Args:
            key: the partition key as JSON text, quotes included; empty for a record without one.
            text: the data in base64.
            size: bytes of data and key, unencoded.
            now_ms: arrival; if the clock went back, the last record's arrival is used.
        """
        arrival = max(now_ms, self._arrivals[-1]) if self._arrivals else now_ms
        self._counter += 1
        self._last = value = sequence.number(self._base, self._counter, arrival // 1000)
        self._sequences.append(value)
        self._arrivals.append(arrival)
        self._sizes.append((self._sizes[-1] if self._sizes else self._trimmed_bytes) + size)
        self._records.append(
            b'{"SequenceNumber":"%d","ApproximateArrivalTimestamp":%d.%03d,"Data":"%b"%b}'
            % (value, arrival // 1000, arrival % 1000, text, b',"PartitionKey":' + key if key else b"")
        )
        return value

    def read(self, after: int, limit: int, now_ms: int) -> Page:
        """Records after position ``after``: at most ``limit``, 10,000 and 10 MiB, but at least one if there is one."""
        start = bisect_right(self._sequences, after)
        before = self._sizes[start - 1] if start else self._trimmed_bytes
        stop = bisect_right(self._sizes, before + MAX_PAGE_BYTES, lo=start)
        stop = min(max(stop, start + 1), start + min(limit, MAX_PAGE_RECORDS), len(self._sequences))
        more = stop < len(self._sequences)
        return Page(
            records=self._records[start:stop],
            last=self._sequences[stop - 1] if stop > start else after,
            size=self._sizes[stop - 1] - before if stop > start else 0,
            behind_ms=max(1, now_ms - self._arrivals[stop]) if more else 0,
            ended=not more and not self.is_open,
        )

    def before_timestamp(self, moment_ms: int) -> int:
        """Position before the first record that arrived at ``moment_ms`` or later."""
        found = bisect_left(self._arrivals, moment_ms)
        return self._sequences[found - 1] if found else self.starting_sequence

    def knows(self, value: int) -> bool:
        """Whether ``value`` was issued for this shard: the number of a record, trimmed or not, or one end of the range."""
        if value in (self.starting_sequence, self.ending_sequence, self.tip):
            return True
        said = sequence.parts(value)
        if said is None or (said.shard_second, said.shard_index) != (self.second, self.index):
            return False
        found = bisect_left(self._sequences, value)
        if found < len(self._sequences) and self._sequences[found] == value:
            return True
        return 0 < said.counter <= self._counter - len(self._sequences)

    def trim(self, horizon_ms: int) -> None:
        """Forget records that arrived before ``horizon_ms``."""
        count = bisect_left(self._arrivals, horizon_ms)
        if count:
            self._trimmed_bytes = self._sizes[count - 1]
            for column in (self._sequences, self._arrivals, self._sizes, self._records):
                del column[:count]

    @property
    def records(self) -> int:
        """Number of records still held."""
        return len(self._sequences)


def child(index: int, first_hash: int, last_hash: int, parents: Sequence[Shard], now_ms: int) -> Shard:
    """A new shard that continues ``parents``.

    Its creation second is later than theirs, so all its numbers are greater; it opens at least a millisecond after them, so that
    every shard was open at some moment, however fast shards are split.
    """
    opened_ms = max([now_ms, *(parent.opened_ms + 1 for parent in parents)])
    return Shard(
        index=index,
        first_hash=first_hash,
        last_hash=last_hash,
        opened_ms=opened_ms,
        second=max([now_ms // 1000, *(parent.second + 1 for parent in parents)]),
        parents=tuple(parent.shard_id for parent in parents),
    )


def uniform(count: int, now_ms: int) -> list[Shard]:
    """The first ``count`` shards of a stream, of equal width to within one key."""
    bounds = [*boundaries(count), HASH_KEYS]
    return [Shard(index, bounds[index], bounds[index + 1] - 1, now_ms, now_ms // 1000) for index in range(count)]


def boundaries(count: int) -> list[int]:
    """First hash keys of ``count`` shards of equal width to within one key; a multiple of ``count`` keeps all of them."""
    return [index * HASH_KEYS // count for index in range(count)]
