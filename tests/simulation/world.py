"""Simulated stores, checkpoints and workers, for schedules in which calls fail in every way. One seed determines a schedule.

The production coroutines (CommitLog, Committer, recover) run here unchanged, without an event loop: each call on the store, the
checkpoints or the clock hands control to the scheduler, which decides which worker continues and what happens to the call.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random
from typing import Any, Protocol

from stream.contracts import Checkpoint, ObjectInfo, Shard, Stored
from stream.errors import LeaseLost, Retryable

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


class Chooser(Protocol):
    """Where decisions come from: a seeded generator, or an enumeration of all of them."""

    def pick(self, options: int, what: str) -> int: ...


class SeededChooser:
    """Random decisions; a call fails with probability ``fault_rate`` at most."""

    def __init__(self, seed: int, fault_rate: float) -> None:
        self.random = Random(seed)
        self.fault_rate = fault_rate

    def pick(self, options: int, what: str) -> int:
        if what == "fate":
            return 0 if self.random.random() > self.fault_rate else self.random.randrange(options)
        return self.random.randrange(options)


@dataclass(frozen=True)
class Call:
    """What a worker is about to do; the scheduler answers with a fate."""

    kind: str

    def __await__(self) -> Generator[Call, str, str]:
        return (yield self)


FATES = ("done", "lost_before", "lost_after", "delayed")
"""done: reply arrives. lost_before: nothing happened, no reply. lost_after: it happened, no reply. delayed: it happens later, no reply."""


class SimClock:
    """A clock that stands still; sleeping hands control to the scheduler."""

    def now(self) -> datetime:
        return EPOCH

    def monotonic(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> None:
        await Call("sleep")


@dataclass
class Objects:
    """The content of one store, and writes that are still on their way to it."""

    bodies: dict[str, bytes] = field(default_factory=dict)
    in_flight: list[Callable[[], None]] = field(default_factory=list)
    history: list[tuple[str, str]] = field(default_factory=list)


def etag_of(body: bytes) -> str:
    """As S3 computes it from the content, so a change and its reversal give the first tag again."""
    return hashlib.md5(body, usedforsecurity=False).hexdigest()


class SimStore:
    """A ``contracts.ObjectStore`` over the folder ``root`` of ``objects``, whose replies can be lost and whose writes can arrive late.

    As long as each call is ``done``, it does what ``MemoryStore`` does: tests/contract/test_simulated_store.py compares the two.
    """

    def __init__(self, objects: Objects, url: str, create_only: bool = True, root: str = "") -> None:
        self.objects = objects
        self.url = url
        self.create_only = create_only
        self.root = root

    async def _write(self, kind: str, apply: Callable[[], Any]) -> Any:
        fate = await Call(kind)
        if fate == "done":
            return apply()
        if fate == "lost_after":
            apply()
        if fate == "delayed":
            self.objects.in_flight.append(apply)
        raise Retryable(f"no reply to {kind}")

    async def create(self, key: str, body: bytes) -> str | None:
        def apply() -> str | None:
            if self.root + key in self.objects.bodies and self.create_only:
                return None
            return self._set(key, body, "create")

        return await self._write("create", apply)

    async def replace(self, key: str, body: bytes, etag: str) -> str | None:
        def apply() -> str | None:
            current = self.objects.bodies.get(self.root + key)
            if current is None or etag_of(current) != etag:
                return None
            return self._set(key, body, "replace")

        return await self._write("replace", apply)

    async def put(self, key: str, body: bytes) -> None:
        await self._write("put", lambda: self._set(key, body, "put"))

    async def delete(self, key: str) -> None:
        def apply() -> None:
            if self.objects.bodies.pop(self.root + key, None) is not None:
                self.objects.history.append(("delete", self.root + key))

        await self._write("delete", apply)

    async def get(self, key: str) -> Stored | None:
        if await Call("get") in {"lost_before", "lost_after"}:
            raise Retryable("no reply to get")
        body = self.objects.bodies.get(self.root + key)
        return None if body is None else Stored(body, etag_of(body))

    async def list(self, prefix: str, after: str = "") -> AsyncIterator[ObjectInfo]:
        for key in sorted(self.objects.bodies):
            if key.startswith(prefix) and key > after:
                yield ObjectInfo(key, len(self.objects.bodies[key]), EPOCH)

    def _set(self, key: str, body: bytes, how: str) -> str:
        self.objects.bodies[self.root + key] = body
        self.objects.history.append((how, self.root + key))
        return etag_of(body)


class SimCheckpoints:
    """Checkpoints that stale workers set back, and calls that find the lease lost, before or after the write."""

    def __init__(self) -> None:
        self.rows: dict[str, Checkpoint] = {}

    async def read(self, shard: Shard) -> Checkpoint | None:
        await Call("read_checkpoint")
        return self.rows.get(shard.shard_id)

    async def advance(self, shard: Shard, checkpoint: Checkpoint) -> None:
        fate = await Call("checkpoint")
        if fate == "lost_before":
            raise LeaseLost(f"{shard.shard_id} is another worker's")
        self.rows[shard.shard_id] = checkpoint
        if fate == "lost_after":
            raise LeaseLost(f"{shard.shard_id} is another worker's")


@dataclass
class Process:
    """One worker: a coroutine that waits for the outcome of a call."""

    name: str
    coroutine: Coroutine[Call, str, None]
    waiting_for: Call | None = None
    finished: bool = False

    def advance(self, fate: str | None) -> None:
        """Run up to the next call; errors that end a worker in production end it here."""
        try:
            self.waiting_for = self.coroutine.send(fate)  # type: ignore[arg-type]
        except (StopIteration, LeaseLost):
            self.finished = True

    def kill(self) -> None:
        self.coroutine.close()
        self.finished = True


@dataclass(frozen=True)
class Version:
    """What a worker runs: a pipeline definition, which travels with the log, and a build, which does not."""

    definition: int
    build: int


@dataclass(frozen=True)
class Records:
    """One shard's content: sequence numbers, each with its number of user records (more than one in a KPL aggregate)."""

    sizes: dict[int, int]

    def within(self, after: int, last: int) -> list[tuple[int, int]]:
        return [(seq, sub) for seq in sorted(self.sizes) if after < seq <= last for sub in range(self.sizes[seq])]

    def after(self, position: int) -> list[int]:
        return [seq for seq in sorted(self.sizes) if seq > position]


def outcome_of(record: tuple[int, int], definition: int, build: int) -> str:
    """Partition ``a`` or ``b``, or ``filtered``. Different definitions and builds give the same record different outcomes."""
    value = int.from_bytes(hashlib.blake2b(f"{record}{definition}{build}".encode(), digest_size=2).digest(), "big")
    return ("a", "b", "a", "filtered")[value % 4]


def body_of(rows: list[tuple[int, int]]) -> bytes:
    return json.dumps(rows).encode()
