"""Workers that are led step by step, for schedules of the commit protocol alone: what `stream simulate` cannot enumerate.

The production coroutines (CommitLog, Committer, recover) run here unchanged, over the stores of ``stream.simulation``, but without an event
loop: each call hands control to the scheduler, which decides which worker continues and what happens to the call.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Protocol

from stream.contracts import Checkpoint, Shard
from stream.errors import LeaseLost
from stream.simulation.process import NoReply
from stream.simulation.schedule import Trouble
from stream.simulation.virtual_time import EPOCH


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

    what: str

    def __await__(self) -> Generator[Call, Fate, Fate]:
        return (yield self)


Fate = Trouble | None
FATES: tuple[Fate, ...] = (None, Trouble.UNDONE, Trouble.UNANSWERED, Trouble.LATE)
"""What may become of one call; None: nothing special. Deaths are the scheduler's own business."""


class StandingClock:
    """A clock that stands still; sleeping hands control to the scheduler."""

    def now(self):
        return EPOCH

    def monotonic(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> None:
        await Call("sleep")


class StoredRows:
    """Checkpoints that stale workers set back, and calls that find the lease lost, before or after the write.

    ``stored``: every checkpoint of a shard that was ever stored.
    """

    def __init__(self) -> None:
        self.rows: dict[str, Checkpoint] = {}
        self.stored: defaultdict[str, list[Checkpoint]] = defaultdict(list)

    async def read(self, shard: Shard) -> Checkpoint | None:
        await Call("read checkpoint")
        return self.rows.get(shard.shard_id)

    async def advance(self, shard: Shard, checkpoint: Checkpoint) -> None:
        fate = await Call("checkpoint")
        if fate is Trouble.UNDONE:
            raise LeaseLost(f"{shard.shard_id} is another worker's")
        # What others have said of the row before is over then.
        self.rows[shard.shard_id] = replace(checkpoint, foreign=None, set_back="")
        self.stored[shard.shard_id].append(self.rows[shard.shard_id])
        if fate is Trouble.UNANSWERED:
            raise LeaseLost(f"{shard.shard_id} is another worker's")


@dataclass
class Stepped:
    """One worker: a coroutine that waits for what becomes of a call. A ``Caller``; ``late``: where its writes go that happen later."""

    name: str
    late: list[Callable[[], Any]]
    coroutine: Coroutine[Call, Fate, None] | None = None
    finished: bool = False

    async def call(self, what: str, apply: Callable[[], Any], *, writes: bool = False) -> Any:
        if what.startswith("list "):
            # A coroutine that waits inside an asynchronous generator cannot be closed, which is how a worker is killed here.
            return apply()
        fate = await Call(what)
        if fate is None or (fate is Trouble.LATE and not writes):
            return apply()
        if fate is Trouble.LATE:
            self.late.append(apply)
        elif fate is Trouble.UNANSWERED:
            apply()
        raise NoReply

    def advance(self, fate: Fate) -> None:
        """Run up to the next call; errors that end a worker in production end it here."""
        try:
            self.coroutine.send(fate)
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
