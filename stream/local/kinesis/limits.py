"""The service's limits per shard, as token buckets. Pure; times are Unix milliseconds, passed in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from stream.local.kinesis.errors import ApiError

MIB: Final = 1024 * 1024


@dataclass(slots=True)
class Bucket:
    """Refills at ``rate`` per second up to ``rate``. A large read may take the level below zero, and later ones have to wait."""

    rate: float
    level: float = 0.0
    filled_ms: int = -1

    def refill(self, now_ms: int) -> float:
        """Refill, and return the level."""
        if self.filled_ms < 0:
            self.level = self.rate
        else:
            self.level = min(self.rate, self.level + self.rate * max(0, now_ms - self.filled_ms) / 1000)
        self.filled_ms = now_ms
        return self.level


@dataclass(slots=True)
class ShardRates:
    """The four limits of one shard."""

    reads: Bucket = field(default_factory=lambda: Bucket(5))
    read_bytes: Bucket = field(default_factory=lambda: Bucket(2 * MIB))
    writes: Bucket = field(default_factory=lambda: Bucket(1000))
    write_bytes: Bucket = field(default_factory=lambda: Bucket(MIB))


class Limiter:
    """Enforces the limits, or none if disabled."""

    def __init__(self, *, enabled: bool) -> None:
        self._enabled = enabled
        self._rates: dict[tuple[str, str], ShardRates] = {}

    def may_read(self, stream: str, shard_id: str, now_ms: int) -> None:
        """Take one call from the shard's five per second.

        Raises:
            ApiError: ``ProvisionedThroughputExceededException``, also while earlier reads keep the byte bucket below zero.
        """
        if not self._enabled:
            return
        rates = self._of(stream, shard_id)
        if rates.reads.refill(now_ms) < 1 or rates.read_bytes.refill(now_ms) <= 0:
            raise exceeded(stream, shard_id)
        rates.reads.level -= 1

    def has_read(self, stream: str, shard_id: str, size: int) -> None:
        """Charge the bytes of a page."""
        if self._enabled:
            self._of(stream, shard_id).read_bytes.level -= size

    def may_write(self, stream: str, shard_id: str, size: int, now_ms: int) -> bool:
        """Take one record of ``size`` bytes; False if the shard is over its rate."""
        if not self._enabled:
            return True
        rates = self._of(stream, shard_id)
        if rates.writes.refill(now_ms) < 1 or rates.write_bytes.refill(now_ms) <= 0:
            return False
        rates.writes.level -= 1
        rates.write_bytes.level -= size
        return True

    def _of(self, stream: str, shard_id: str) -> ShardRates:
        return self._rates.setdefault((stream, shard_id), ShardRates())


def exceeded(stream: str, shard_id: str) -> ApiError:
    """The error of a shard over its limit."""
    return ApiError("ProvisionedThroughputExceededException", exceeded_message(stream, shard_id))


def exceeded_message(stream: str, shard_id: str) -> str:
    """The message of that error."""
    return f"Rate exceeded for shard {shard_id} in stream {stream}."
