"""Operators of a simulation: what `stream pause`, `stream resume` and `stream leases rewind` do, by the same code."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from functools import partial
from typing import Final

from stream.commit.retry import Repeater
from stream.concurrency import ObservableEvent
from stream.contracts import Shard
from stream.errors import DefinitionError, LeaseLost, Retryable, StreamError
from stream.lease.paused import Change, Pause, Target, paused, resumed
from stream.lease.pauses import PauseRecord
from stream.operations.changes.rewinds import recovered, take_back
from stream.simulation.fleet import Surroundings, leases_of, parts_of
from stream.simulation.process import Process
from stream.worker.opening.stores import Stores

NOTE: Final = "simulated"


class Refused(StreamError):
    """The command ended with an error, and nothing was changed."""


def _stores(around: Surroundings, process: Process) -> Stores:
    pipeline, _ = around.subject.version(newer=False)
    return Stores.over(pipeline, around.subject.base, lambda url: around.open_place(url, process))


async def pause(around: Surroundings, process: Process, target: Target) -> None:
    """Pause ``target``. Holds when this returns."""
    record, now = PauseRecord(_stores(around, process).state), process.clock.now()
    wanted = Pause(what=target.what, stream=target.stream, part=target.part, by=process.name, note=NOTE, since=now)
    change = partial(paused, wanted=[wanted], by=process.name, note=NOTE, now=now)
    await Repeater(process.clock, process.emit)("pause", Shard(target.stream, target.part), lambda: record.change(change))


async def resume(around: Surroundings, process: Process, target: Target) -> None:
    """End the pause of ``target``."""
    record, clock = PauseRecord(_stores(around, process).state), process.clock

    def change(newest: Change | None) -> Change | None:
        return resumed(newest, [target], process.name, NOTE, clock.now())

    await Repeater(clock, process.emit)("resume", Shard(target.stream, target.part), lambda: record.change(change))


async def resume_all(around: Surroundings, process: Process) -> bool:
    """End every pause, whose operators may have died; whether there was any."""
    record, clock = PauseRecord(_stores(around, process).state), process.clock
    held = await record.in_force(clock.now())
    if held.all:
        targets = [each.target for each in held.all]
        await record.change(lambda newest: resumed(newest, targets, process.name, NOTE, clock.now()))
    return bool(held.all)


async def rewind(around: Surroundings, process: Process, shard: Shard, wanted: int) -> None:
    """What ``worker.operating.rewind`` does: process the shard again from the unit that holds the record ``wanted``.

    Raises:
        Refused: nothing was changed.
    """
    async with AsyncExitStack() as stack:
        leases = await leases_of(around, process, newer=False)
        try:
            if leases is not None:
                if not await leases.table.exists():
                    msg = "there is no lease table yet"
                    raise Refused(msg)
                if await leases.seize(shard.stream, shard.shard_id) is None:
                    msg = "it has no lease"
                    raise Refused(msg)
                stack.push_async_callback(leases.leave)
                stack.callback(asyncio.ensure_future(leases.keep()).cancel)
            each = await parts_of(around, process, ObservableEvent(), leases)
            one = next(one for one in each if one.stream == shard.stream)
            listed = await one.parts.repeat("list shards", shard, one.parts.source.shards)
            found, head = await recovered(one, next(each for each in listed if each.shard_id == shard.shard_id))
            await take_back(one.parts, found, head, wanted, NOTE, _stores(around, process).targets)
        except (DefinitionError, LeaseLost, Retryable) as error:
            raise Refused(str(error)) from error
