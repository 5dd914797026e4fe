"""Plays one schedule: the stream and the stores, the workers that come and go, and in the end one that finishes what is left."""

from __future__ import annotations

import asyncio
import binascii
import hashlib
import json
from collections import Counter
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from stream.concurrency import ObservableEvent
from stream.errors import StreamError
from stream.events import Event
from stream.local.kinesis.errors import ApiError
from stream.local.kinesis.model import Settings
from stream.local.kinesis.shards import HASH_KEYS
from stream.local.kinesis.state import State
from stream.local.kpl import UserRecord, aggregate
from stream.simulation.fleet import Surroundings, Tools, supervisor_of
from stream.simulation.places import EPOCH_MS, SimulatedStore
from stream.simulation.process import Process, mixed
from stream.simulation.schedule import LONGEST_FREEZE, Arrival, Reshard, Schedule, Start, Struck
from stream.simulation.subject import Subject
from stream.simulation.virtual_time import LoopClock
from stream.storage.memory import MemoryStore
from stream.worker.supervisor import Supervisor

PATIENCE: Final = 6 * 3600.0
"""Virtual seconds after which workers that nothing disturbs any more must be done. The longest wait between two attempts is 20 s."""

LAST: Final = 99
"""The number of the worker that finishes what is left."""


@dataclass(frozen=True, slots=True)
class Happened:
    """One thing that happened at the virtual time ``at``: to or by ``who``."""

    at: float
    who: str
    what: Event | Struck | str


@dataclass(frozen=True, slots=True)
class Put:
    """A Kinesis record that was put: its place, its arrival (Unix milliseconds), and the user records in it with their numbers.

    ``numbers`` count all user records of the schedule from 1, in the order of their arrival.
    """

    shard: str
    sequence: int
    arrival_ms: int
    key: str
    contents: tuple[bytes, ...]
    numbers: tuple[int, ...]


@dataclass
class World:
    """Everything outside the workers, and what happened.

    ``writes``: what was done to which object, in order. ``changes``: how often shards were split and merged, damaged records arrived, and
    workers started with the new pipeline file.
    """

    subject: Subject
    schedule: Schedule
    tools: Tools = field(default_factory=Tools)
    bucket: MemoryStore = field(default_factory=lambda: MemoryStore(clock=LoopClock()))
    state: State = field(default_factory=lambda: State(Settings(throttle=True)))
    clock: LoopClock = field(default_factory=LoopClock)
    happened: list[Happened] = field(default_factory=list)
    writes: list[tuple[str, str]] = field(default_factory=list)
    changes: Counter[str] = field(default_factory=Counter)
    puts: list[Put] = field(default_factory=list)
    halted: dict[str, str] = field(default_factory=dict)
    ended: list[tuple[str, str]] = field(default_factory=list)
    """Workers that ended because of an error, with the error."""
    processes: dict[str, Process] = field(default_factory=dict)
    calls: int = 0
    """Calls that all workers made."""

    @property
    def now_ms(self) -> int:
        """The time by the stream's own clock."""
        return EPOCH_MS + round(self.clock.monotonic() * 1000)

    def note(self, at: float, who: str, what: Event | Struck | str) -> None:
        """Remember what happened."""
        self.happened.append(Happened(at, who, what))

    def open_place(self, url: str, process: Process) -> SimulatedStore:
        """The store at ``url`` as ``process`` sees it."""
        return self.tools.store(self.bucket, url, process, lambda what, key: self.writes.append((what, key)))

    def observer(self, name: str) -> Process:
        """A process to which nothing happens, for whoever judges."""
        return Process(name, LAST + 1, self.schedule.seed, 0.0, (), lambda _at, _who, _what: None)

    async def play(self) -> None:
        """Play the schedule to its end.

        Raises:
            TimeoutError: the workers that nothing disturbs any more do not come to an end.
        """
        self.state.account.create(self.subject.stream, self.schedule.shards, "PROVISIONED", 2**20, self.now_ms)
        schedule, running = self.schedule, []
        async with asyncio.timeout(schedule.until + LONGEST_FREEZE + PATIENCE), asyncio.TaskGroup() as group:
            for arrival in schedule.arrivals:
                group.create_task(self._at(arrival.at, self._put(arrival)))
            for reshard in schedule.reshards:
                group.create_task(self._at(reshard.at, self._reshard(reshard)))
            for start in schedule.starts:
                draining = ObservableEvent()
                running.append((start, draining, group.create_task(self._at(start.at, self._work(start, draining)))))
            await self.clock.sleep(schedule.until)
            self.note(schedule.until, "", "from here on nothing goes wrong any more")
            for process in self.processes.values():
                process.calm = True
            for start, draining, _ in running:
                if start.drains:
                    draining.set()
            await self.clock.sleep(max([0.0, *(each.seconds for each in schedule.disturbances)]) + 1.0)
            await self._work(Start(LAST, 0.0, newer=self.subject.newer is not None), ObservableEvent(), once=True)
            for _, draining, _ in running:
                draining.set()
            for _, _, task in running:
                await asyncio.wait([task])

    async def _at(self, at: float, what: Coroutine[Any, Any, None]) -> None:
        try:
            await self.clock.sleep(at)
        except BaseException:
            what.close()
            raise
        await what

    async def _put(self, arrival: Arrival) -> None:
        first = sum(len(put.numbers) for put in self.puts) + 1
        contents = [self.subject.records[at] for at in arrival.records]
        if arrival.damaged:
            contents = [each[: int(mixed(self.schedule.seed, first, len(each)) * len(each))] for each in contents]
        stream = self.state.account.find(self.subject.stream, self.now_ms)
        data = contents[0] if len(contents) == 1 else aggregate([UserRecord(arrival.key, None, each) for each in contents])
        shard = stream.route(int.from_bytes(hashlib.md5(arrival.key.encode(), usedforsecurity=False).digest()))
        sequence = shard.put(json.dumps(arrival.key).encode(), _base64(data), len(data) + len(arrival.key), self.now_ms)
        (stored,) = shard.read(sequence - 1, 1, self.now_ms).records
        arrival_ms = round(float(json.loads(stored)["ApproximateArrivalTimestamp"]) * 1000)
        numbers = tuple(range(first, first + len(contents)))
        self.puts.append(Put(shard.shard_id, sequence, arrival_ms, arrival.key, tuple(contents), numbers))
        self.changes.update(["damaged"] if arrival.damaged else [])
        damaged = ", damaged" if arrival.damaged else ""
        several = f"records {first} to {numbers[-1]}, aggregated{damaged}, arrive"
        named = f"record {first}{damaged} arrives" if len(numbers) == 1 else several
        self.note(self.clock.monotonic(), "", f"{named} in {short(shard.shard_id)}")

    async def _reshard(self, reshard: Reshard) -> None:
        stream = self.state.account.find(self.subject.stream, self.now_ms)
        shards = list(stream.open_shards)
        at = int(reshard.where * len(shards))
        with suppress(ApiError):
            if reshard.merges and len(shards) > 1:
                left, right = shards[at - 1 if at else 0], shards[at or 1]
                stream.merge(left.shard_id, right.shard_id, self.now_ms)
                kind, what = "merged", f"{short(left.shard_id)} and {short(right.shard_id)} are merged"
            else:
                shard = shards[at]
                stream.split(shard.shard_id, (shard.first_hash + min(shard.last_hash, HASH_KEYS)) // 2, self.now_ms)
                kind, what = "split", f"{short(shard.shard_id)} is split"
            self.changes[kind] += 1
            self.note(self.clock.monotonic(), "", what)

    async def _work(self, start: Start, draining: ObservableEvent, *, once: bool = False) -> None:
        """A worker, from its start to its end, whatever that is."""
        name = "the last worker" if once else f"worker {start.number + 1}"
        process = Process(name, start.number, self.schedule.seed, start.skew, self.schedule.disturbances, self.note)
        process.task, process.calm = asyncio.current_task(), once or self.clock.monotonic() >= self.schedule.until
        self.processes[name] = process
        self.changes.update(["updated"] if start.newer else [])
        about = (" with the new pipeline file" if start.newer else "") + (f", its clock {start.skew:+g} s off" if start.skew else "")
        self.note(self.clock.monotonic(), name, f"starts{about}")
        supervisor: Supervisor | None = None
        try:
            supervisor = await supervisor_of(
                self.subject,
                self.schedule,
                self.state,
                process,
                Surroundings(self.open_place, self.tools, draining),
                newer=start.newer,
                once=once,
            )
            await supervisor.run()
        except BaseException as error:
            if not process.dead:
                if not isinstance(error, StreamError):
                    raise
                self.ended.append((name, str(error)))
        finally:
            self.calls += process.calls
            process.task = None
        if process.dead:
            return
        self.note(self.clock.monotonic(), name, "ends")
        if supervisor is not None:
            self.halted |= supervisor.halted


def short(shard_id: str) -> str:
    """A shard's id without its leading zeros."""
    return f"shard {int(shard_id.rpartition('-')[2])}"


def _base64(data: bytes) -> bytes:
    return binascii.b2a_base64(data, newline=False)
