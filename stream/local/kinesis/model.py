"""Streams: which shard a record goes to, splits, merges, retention. Pure; times are Unix milliseconds, passed in.

A change (create, split, merge, ...) takes effect at once; the stream then reports ``CREATING`` or ``UPDATING`` and refuses
further changes for ``Settings.transition_ms``, which is how a client sees that the service needs time.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from stream.local.kinesis import shards as shard_room
from stream.local.kinesis.errors import in_use, invalid, malformed, not_found, over_limit
from stream.local.kinesis.shards import HASH_KEYS, Shard

DAY_HOURS: Final = 24
MAX_RETENTION_HOURS: Final = 8760
HOUR_MS: Final = 3_600_000
_NAME: Final = re.compile(r"[a-zA-Z0-9_.-]{1,128}")


@dataclass(frozen=True, slots=True)
class Settings:
    """How the emulator behaves.

    ``throttle``: enforce the service's limits per shard (5 reads/s, 2 MiB/s out, 1000 records/s and 1 MiB/s in); if false, only faults
    throttle. ``transition_ms``: how long a stream or consumer is busy after a change. ``resubscribe_ms``: how long after a
    SubscribeToShard a second one is refused.
    """

    region: str = "us-east-1"
    account: str = "123456789012"
    throttle: bool = False
    transition_ms: int = 0
    iterator_ms: int = 300_000
    subscription_ms: int = 300_000
    resubscribe_ms: int = 5_000
    heartbeat_ms: int = 1_000
    shard_limit: int = 10_000


@dataclass(slots=True)
class Consumer:
    """A registered reader with its own push channel."""

    name: str
    arn: str
    created_ms: int
    busy_until_ms: int

    def status(self, now_ms: int) -> str:
        """``CREATING`` or ``ACTIVE``."""
        return "CREATING" if now_ms < self.busy_until_ms else "ACTIVE"


class Stream:
    """One stream. ``shards`` holds every shard not yet expired, by id, in the order of their creation.

    ``spreads``: records go to shards in turn, whatever their keys (the record distribution strategy ``AUTO``).
    """

    def __init__(self, name: str, arn: str, created_ms: int, max_record_bytes: int, mode: str, busy_until_ms: int = 0) -> None:
        self.name = name
        self.key = name
        """What the emulator calls it: its name, and if another account than the emulator's has it, that account."""
        self.arn = arn
        self.created_ms = created_ms
        self.max_record_bytes = max_record_bytes
        self.mode = mode
        self.spreads = False
        self.shards: dict[str, Shard] = {}
        self.retention_hours = DAY_HOURS
        self.consumers: dict[str, Consumer] = {}
        self.tags: dict[str, str] = {}
        self.state = "CREATING"
        self.busy_until_ms = busy_until_ms
        self._open: list[Shard] = []
        self._first_hashes: list[int] = []
        self._next_index = 0
        self._turn = 0

    def start(self, count: int, now_ms: int) -> None:
        """Give a new stream its first shards."""
        self._adopt(shard_room.uniform(count, now_ms), [])

    def status(self, now_ms: int) -> str:
        """``CREATING``, ``UPDATING``, ``DELETING`` or ``ACTIVE``."""
        return self.state if now_ms < self.busy_until_ms else "ACTIVE"

    @property
    def open_shards(self) -> Sequence[Shard]:
        """Shards that take records, by hash range; they tile the hash space."""
        return self._open

    def route(self, hash_key: int) -> Shard:
        """The open shard that holds ``hash_key``."""
        return self._open[bisect_right(self._first_hashes, hash_key) - 1]

    def next_in_turn(self) -> Shard:
        """The open shard for the next record of a stream that spreads them."""
        self._turn += 1
        return self._open[self._turn % len(self._open)]

    def shard(self, shard_id: str) -> Shard:
        """The shard, open or closed.

        Raises:
            ApiError: unknown or expired.
        """
        found = self.shards.get(shard_id)
        if found is None:
            message = f"Shard {shard_id} in stream {self.name} does not exist; it may have expired with the retention period."
            raise not_found(message)
        return found

    def horizon(self, now_ms: int) -> int:
        """The oldest moment whose records are kept, not before the stream's creation."""
        return max(now_ms - self.retention_hours * HOUR_MS, self.created_ms)

    def expire(self, now_ms: int) -> None:
        """Forget what is older than the retention: records, and closed shards that cannot have any records left."""
        horizon = self.horizon(now_ms)
        for shard in list(self.shards.values()):
            shard.trim(horizon)
            if shard.closed_ms is not None and shard.closed_ms < horizon:
                del self.shards[shard.shard_id]

    def split(self, shard_id: str, at: int, now_ms: int) -> None:
        """Replace an open shard by two, the second beginning at hash key ``at``."""
        parent = self._changeable(shard_id)
        if not parent.first_hash + 1 < at < parent.last_hash:
            message = (
                f"NewStartingHashKey {at} used in SplitShard() on shard {shard_id} in stream {self.name} is not both "
                f"greater than one plus the shard's StartingHashKey {parent.first_hash} and less than the shard's EndingHashKey "
                f"{parent.last_hash}."
            )
            raise invalid(message)
        left = shard_room.child(self._next_index, parent.first_hash, at - 1, [parent], now_ms)
        right = shard_room.child(self._next_index + 1, at, parent.last_hash, [parent], now_ms)
        self._replace([parent], [left, right])

    def merge(self, shard_id: str, adjacent_id: str, now_ms: int) -> None:
        """Replace two open neighbours by one."""
        parents = [self._changeable(shard_id), self._changeable(adjacent_id)]
        left, right = sorted(parents, key=lambda shard: shard.first_hash)
        if left.last_hash + 1 != right.first_hash:
            message = f"Shards {shard_id} and {adjacent_id} in stream {self.name} are not an adjacent pair eligible for merging."
            raise invalid(message)
        merged = shard_room.child(self._next_index, left.first_hash, right.last_hash, parents, now_ms)
        self._replace(parents, [merged])

    def scale(self, count: int, now_ms: int) -> None:
        """Split and merge until ``count`` shards of equal width are open, as the service's uniform scaling does."""
        wanted = set(shard_room.boundaries(count))
        for bound in sorted(wanted - set(self._first_hashes)):
            parent = self.route(bound)
            left = shard_room.child(self._next_index, parent.first_hash, bound - 1, [parent], now_ms)
            right = shard_room.child(self._next_index + 1, bound, parent.last_hash, [parent], now_ms)
            self._replace([parent], [left, right])
        for bound in sorted(set(self._first_hashes) - wanted):
            parents = [self.route(bound - 1), self.route(bound)]
            merged = shard_room.child(self._next_index, parents[0].first_hash, parents[1].last_hash, parents, now_ms)
            self._replace(parents, [merged])

    def _changeable(self, shard_id: str) -> Shard:
        shard = self.shard(shard_id)
        if not shard.is_open:
            message = (
                f"Shard {shard_id} in stream {self.name} has already been merged or split, and thus is not eligible "
                "for merging or splitting."
            )
            raise invalid(message)
        return shard

    def _replace(self, parents: list[Shard], children: list[Shard]) -> None:
        for parent in parents:
            parent.closed_ms = children[0].opened_ms
            parent.children.extend(children)
        self._adopt(children, parents)

    def _adopt(self, new: Sequence[Shard], gone: Sequence[Shard]) -> None:
        self.shards.update((shard.shard_id, shard) for shard in new)
        self._next_index += len(new)
        kept = [shard for shard in self._open if shard not in gone]
        self._open = sorted([*kept, *new], key=lambda shard: shard.first_hash)
        self._first_hashes = [shard.first_hash for shard in self._open]


@dataclass(slots=True)
class Account:
    """Every stream, of the emulator's own account and of others, in one region."""

    settings: Settings
    streams: dict[str, Stream] = field(default_factory=dict)

    def create(self, key: str, shard_count: int, mode: str, max_record_bytes: int, now_ms: int) -> Stream:
        """A new stream, ``ACTIVE`` after the transition. ``key``: its name, and if another account has it, ``@`` and that account.

        Raises:
            ApiError: the name is taken or malformed, or too many shards.
        """
        settings, (name, _, other) = self.settings, key.partition("@")
        account = other or settings.account
        if not _NAME.fullmatch(name):
            message = f"Value '{name}' at 'streamName' failed to satisfy constraint: 1 to 128 of a-z, A-Z, 0-9, '_', '.', '-'."
            raise malformed(message)
        self.forget_deleted(now_ms)
        if key in self.streams:
            message = f"Stream {name} under account {account} already exists."
            raise in_use(message)
        if shard_count + sum(len(stream.open_shards) for stream in self.streams.values()) > settings.shard_limit:
            message = f"This request would exceed the shard limit of {settings.shard_limit} for account {settings.account}."
            raise over_limit(message)
        arn = f"arn:aws:kinesis:{settings.region}:{account}:stream/{name}"
        stream = Stream(name, arn, now_ms, max_record_bytes, mode, busy_until_ms=now_ms + settings.transition_ms)
        stream.key = key
        stream.start(shard_count, now_ms)
        self.streams[key] = stream
        return stream

    def find(self, name: str, now_ms: int) -> Stream:
        """The stream, after forgetting what is older than the retention.

        Raises:
            ApiError: no such stream.
        """
        self.forget_deleted(now_ms)
        stream = self.streams.get(name)
        if stream is None:
            message = f"Stream {name} under account {self.settings.account} not found."
            raise not_found(message)
        stream.expire(now_ms)
        return stream

    def changing(self, name: str, now_ms: int) -> Stream:
        """The stream, about to be changed: from now it is ``UPDATING`` for the transition.

        Raises:
            ApiError: no such stream, or it is busy with another change.
        """
        stream = self.find(name, now_ms)
        status = stream.status(now_ms)
        if status != "ACTIVE":
            message = f"Stream {name} under account {self.settings.account} not ACTIVE, instead in state {status}"
            raise in_use(message)
        return stream

    def touch(self, stream: Stream, state: str, now_ms: int) -> None:
        """Make ``stream`` busy in ``state`` for the transition."""
        stream.state = state
        stream.busy_until_ms = now_ms + self.settings.transition_ms

    def delete(self, stream: Stream, now_ms: int) -> None:
        """Remove the stream; it reports ``DELETING`` during the transition."""
        self.touch(stream, "DELETING", now_ms)
        self.forget_deleted(now_ms)

    def forget_deleted(self, now_ms: int) -> None:
        """Drop streams whose deletion is complete."""
        for stream in list(self.streams.values()):
            if stream.state == "DELETING" and now_ms >= stream.busy_until_ms:
                del self.streams[stream.key]


def hash_key_of(text: str) -> int:
    """An explicit hash key.

    Raises:
        ApiError: not a decimal number in 0..2^128-1.
    """
    value = int(text) if text.isascii() and text.isdecimal() and len(text) <= 39 else -1
    if not 0 <= value < HASH_KEYS:
        message = f"Invalid ExplicitHashKey. ExplicitHashKey must be in the range: [0, 2^128-1]. Specified value was {text}"
        raise invalid(message)
    return value
