"""Plays one schedule: the stream and the stores, the workers that come and go, and in the end one that finishes what is left."""

from __future__ import annotations

import asyncio
import binascii
import hashlib
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final

from stream.aws.errors import AccessRefused
from stream.commit.manifest import Kind, decode
from stream.concurrency import ObservableEvent
from stream.contracts import Shard
from stream.errors import StreamError, most_severe
from stream.events import Event
from stream.lease.paused import Target, What
from stream.local.kinesis.errors import ApiError
from stream.local.kinesis.model import Settings
from stream.local.kinesis.shards import HASH_KEYS
from stream.local.kinesis.state import State
from stream.local.kpl import UserRecord, aggregate
from stream.simulation.dynamodb import RecentTables
from stream.simulation.fleet import Surroundings, Tools, work
from stream.simulation.operators import Refused, pause, resume, resume_all, rewind
from stream.simulation.places import EPOCH_MS, Bucket, SimulatedStore, at_once
from stream.simulation.process import Process, mixed
from stream.simulation.schedule import LONGEST_FREEZE, OPERATORS, Arrival, Operation, Pausing, Reshard, Schedule, Start, Struck
from stream.simulation.subject import Subject
from stream.simulation.virtual_time import LoopClock
from stream.worker.shards.reasons import WAITED_FOR

PATIENCE: Final = 6 * 3600.0
"""Virtual seconds after which workers that nothing disturbs any more must be done. The longest wait between two attempts is 20 s."""

LAST: Final = 99
"""The number of the worker that finishes what is left."""

SETTLED: Final = 300.0
"""Virtual seconds within which workers that share leases have committed everything, once nothing goes wrong any more: failover, a unit's
age, the longest wait between two attempts, and two listings of shards, several times over."""

Whole = Callable[[Process], Awaitable[None]]
"""The whole life of a process, if nothing ends it early."""

Left = Callable[["World"], str]
"""Says what is not committed yet, for people; empty if all is."""


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

    stream: str
    shard: str
    sequence: int
    arrival_ms: int
    key: str
    contents: tuple[bytes, ...]
    numbers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PausedPeriod:
    """``target`` was paused from ``begin``, when the command had ended, to ``end``, when somebody began to resume it."""

    target: Target
    begin: float
    end: float = float("inf")


class World:
    """Everything outside the workers, and what happened.

    ``writes``: what was done to which object, in order. ``changes``: how often shards were split and merged, damaged records arrived, and
    workers started with the new pipeline file. ``halted``: why, by shard. ``unsettled``: what workers that share leases have left undone.
    """

    def __init__(self, subject: Subject, schedule: Schedule, tools: Tools) -> None:
        self.subject = subject
        self.schedule = schedule
        self.tools = tools
        self.clock = LoopClock()
        self.bucket = Bucket(clock=self.clock)
        self.state = State(Settings(throttle=True))
        self.tables = RecentTables()
        self.happened: list[Happened] = []
        self.writes: list[tuple[str, str]] = []
        self.begun: dict[str, str] = {}
        """The definition with which each unit was begun, by the key of its manifest."""
        self.changes: Counter[str] = Counter()
        self.puts: list[Put] = []
        self.halted: dict[str, str] = {}
        self.ended: list[tuple[str, str]] = []
        """Workers that ended because of an error, with the error."""
        self.processes: dict[str, Process] = {}
        self.pauses: list[PausedPeriod] = []
        self.unsettled = ""
        self.calls = 0
        """Calls that all workers and operators made."""

    @property
    def now_ms(self) -> int:
        """The time by the stream's own clock."""
        return EPOCH_MS + round(self.clock.monotonic() * 1000)

    @property
    def around(self) -> Surroundings:
        """What workers work with."""
        return Surroundings(self.subject, self.schedule, self.state, self.tables, self.open_place, self.tools)

    def note(self, at: float, who: str, what: Event | Struck | str) -> None:
        """Remember what happened."""
        self.happened.append(Happened(at, who, what))

    def open_place(self, url: str, process: Process) -> SimulatedStore:
        """The store at ``url`` as ``process`` sees it."""
        return self.tools.store(self.bucket, url, process, self._written)

    def _written(self, what: str, key: str) -> None:
        self.writes.append((what, key))
        if what == "create" and "/commits/" in key and (stored := at_once(self.bucket.get(key))) is not None:
            manifest = decode(stored.body, key)
            self.begun |= {key: manifest.pipeline} if manifest.kind is Kind.UNIT else {}

    def observer(self, name: str) -> Process:
        """A process to which nothing happens, for the judge."""
        return Process(name, LAST + 1, self.schedule.seed, 0.0, (), lambda _at, _who, _what: None)

    async def play(self, left: Left) -> None:
        """Play the schedule to its end.

        Raises:
            TimeoutError: the workers that nothing disturbs any more do not come to an end.
        """
        for stream in self.subject.streams:
            self.state.account.create(stream, self.schedule.shards, "PROVISIONED", 2**20, self.now_ms)
        schedule, running = self.schedule, []
        async with asyncio.timeout(schedule.until + LONGEST_FREEZE + PATIENCE), asyncio.TaskGroup() as group:
            for arrival in schedule.arrivals:
                group.create_task(self._at(arrival.at, self._put(arrival)))
            for reshard in schedule.reshards:
                group.create_task(self._at(reshard.at, self._reshard(reshard)))
            operating = [group.create_task(self._at(each.at, self._operate(each))) for each in schedule.operations]
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
            await self._resume(operating)
            if schedule.leased:
                await self._settle(left, [task for start, _, task in running if not start.drains])
                # A run that ends reads every shard by itself, so it has to be alone.
                await _ended(running)
            await self._work(Start(LAST, 0.0, newer=self.subject.newer is not None), ObservableEvent(), once=True)
            await _ended(running)

    async def _resume(self, operating: Sequence[asyncio.Task[None]]) -> None:
        """Wait until every operator has ended or died, and resume what is still paused."""
        for task in operating:
            await asyncio.wait([task])
        self.pauses = [replace(each, end=min(each.end, self.clock.monotonic())) for each in self.pauses]
        if await resume_all(self.around, self.observer("operator")):
            self.note(self.clock.monotonic(), "", "what is still paused is resumed")

    async def _settle(self, left: Left, working: Sequence[asyncio.Task[None]]) -> None:
        """Wait until workers that share leases have committed everything, if there are any; they have some minutes for it."""
        pipeline, _ = self.subject.version(newer=False)
        limited = pipeline.leases is not None and pipeline.leases.max_leases is not None
        waited = 0.0
        while (undone := left(self)) and not limited and any(not task.done() for task in working):
            if waited >= SETTLED:
                self.unsettled = undone
                return
            await self.clock.sleep(5.0)
            waited += 5.0

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
        stream = self.state.account.find(self.subject.streams[arrival.stream], self.now_ms)
        data = contents[0] if len(contents) == 1 else aggregate([UserRecord(arrival.key, None, each) for each in contents])
        shard = stream.route(int.from_bytes(hashlib.md5(arrival.key.encode(), usedforsecurity=False).digest()))
        sequence = shard.put(json.dumps(arrival.key).encode(), _base64(data), len(data) + len(arrival.key), self.now_ms)
        (stored,) = shard.read(sequence - 1, 1, self.now_ms).records
        arrival_ms = round(float(json.loads(stored)["ApproximateArrivalTimestamp"]) * 1000)
        numbers = tuple(range(first, first + len(contents)))
        self.puts.append(Put(stream.name, shard.shard_id, sequence, arrival_ms, arrival.key, tuple(contents), numbers))
        self.changes.update(["damaged"] if arrival.damaged else [])
        damaged = ", damaged" if arrival.damaged else ""
        several = f"records {first} to {numbers[-1]}, aggregated{damaged}, arrive"
        what = f"record {first}{damaged} arrives" if len(numbers) == 1 else several
        self.note(self.clock.monotonic(), "", f"{what} in {self.named(stream.name, shard.shard_id)}")

    async def _reshard(self, reshard: Reshard) -> None:
        stream = self.state.account.find(self.subject.streams[reshard.stream], self.now_ms)
        shards = list(stream.open_shards)
        at = int(reshard.where * len(shards))
        with suppress(ApiError):
            if reshard.merges and len(shards) > 1:
                left, right = shards[at - 1 if at else 0], shards[at or 1]
                stream.merge(left.shard_id, right.shard_id, self.now_ms)
                kind, what = "merged", f"{self.named(stream.name, left.shard_id)} and {short(right.shard_id)} are merged"
            else:
                shard = shards[at]
                stream.split(shard.shard_id, (shard.first_hash + min(shard.last_hash, HASH_KEYS)) // 2, self.now_ms)
                kind, what = "split", f"{self.named(stream.name, shard.shard_id)} is split"
            self.changes[kind] += 1
            self.note(self.clock.monotonic(), "", what)

    def named(self, stream: str, shard_id: str) -> str:
        """A shard, for people."""
        return named(self.subject.streams, stream, shard_id)

    async def _work(self, start: Start, draining: ObservableEvent, *, once: bool = False) -> None:
        """A worker, from its start to its end, whatever that is."""
        name = "the last worker" if once else f"worker {start.number + 1}"
        about = (" with the new pipeline file" if start.newer else "") + (f", its clock {start.skew:+g} s off" if start.skew else "")
        self.changes.update(["updated"] if start.newer else [])

        async def whole(process: Process) -> None:
            streams = await work(self.around, process, draining, newer=start.newer, once=once)
            if process.dead:
                return
            self.note(self.clock.monotonic(), name, "ends")
            # A shard that would have been tried again is another worker's affair.
            self.halted |= {where: why for where, why in streams.halted.items() if not why.endswith(WAITED_FOR)}
            if once and streams.interrupted:
                self.ended.append((name, f"it has not read {', '.join(streams.interrupted)} to the end"))

        await self._live(name, start.number, start.skew, f"starts{about}", whole, calm=once)

    async def _operate(self, operation: Operation) -> None:
        """An operator, from the first call of a command to its end."""
        name, stream = f"operator {operation.number - OPERATORS + 1}", self.subject.streams[operation.stream]

        async def whole(process: Process) -> None:
            shards = self.state.account.streams[stream].shards
            chosen = "" if operation.where is None else list(shards)[int(operation.where * len(shards))]
            if isinstance(operation, Pausing):
                await self._stand_still(process, Target(What.READING, stream, chosen), operation.seconds)
            elif puts := [put for put in self.puts if (put.stream, put.shard) == (stream, chosen)]:
                await self._rewind(process, puts[int(operation.share * len(puts))])

        await self._live(name, operation.number, 0.0, "", whole, calm=False)

    async def _stand_still(self, process: Process, target: Target, seconds: float) -> None:
        what = self.named(target.stream, target.part) if target.part else f"all of {target.stream}"
        await pause(self.around, process, target)
        self.pauses.append(PausedPeriod(target, self.clock.monotonic()))
        self.changes["paused"] += 1
        self.note(self.clock.monotonic(), process.name, f"has paused {what}")
        await process.clock.sleep(seconds)
        self.pauses = [replace(each, end=min(each.end, self.clock.monotonic())) if each.target == target else each for each in self.pauses]
        await resume(self.around, process, target)
        self.note(self.clock.monotonic(), process.name, f"has resumed {what}")

    async def _rewind(self, process: Process, put: Put) -> None:
        where = f"{self.named(put.stream, put.shard)} to record {put.numbers[0]}"
        self.note(self.clock.monotonic(), process.name, f"begins to rewind {where}")
        try:
            await rewind(self.around, process, Shard(put.stream, put.shard), put.sequence)
        except Refused as error:
            self.note(self.clock.monotonic(), process.name, f"does not rewind {where}: {error}")
        else:
            self.changes["rewound"] += 1
            self.note(self.clock.monotonic(), process.name, f"has rewound {where}")

    async def _live(self, name: str, number: int, skew: float, begins: str, whole: Whole, *, calm: bool) -> None:
        """The life of a process: ``whole``, or as much of it as comes before its death."""
        process = Process(name, number, self.schedule.seed, skew, self.schedule.disturbances, self.note)
        process.task, process.calm = asyncio.current_task(), calm or self.clock.monotonic() >= self.schedule.until
        self.processes[name] = process
        if begins:
            self.note(self.clock.monotonic(), name, begins)
        try:
            await whole(process)
        except BaseException as error:
            if not process.dead:
                cause = most_severe(error) if isinstance(error, BaseExceptionGroup) else error
                if not isinstance(cause, StreamError):
                    raise
                if isinstance(cause, AccessRefused):
                    self.note(self.clock.monotonic(), name, "ends")  # as it should, since it has not sealed anything yet
                    return
                self.ended.append((name, str(cause)))
        finally:
            self.calls += process.calls
            process.task = None


async def _ended(running: Sequence[tuple[Start, ObservableEvent, asyncio.Task[None]]]) -> None:
    """Tell all workers to drain, and wait until they have ended."""
    for _, draining, _ in running:
        draining.set()
    for _, _, task in running:
        await asyncio.wait([task])


def named(streams: Sequence[str], stream: str, shard_id: str) -> str:
    """A shard, for people; with its stream's name if there are several."""
    return f"{short(shard_id)} of {stream}" if len(streams) > 1 else short(shard_id)


def short(shard_id: str) -> str:
    """A shard's id without its leading zeros."""
    return f"shard {int(shard_id.rpartition('-')[2])}"


def _base64(data: bytes) -> bytes:
    return binascii.b2a_base64(data, newline=False)
