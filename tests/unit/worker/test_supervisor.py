"""The supervisor over a stream that is a list, with shards that do what a test says."""

import asyncio
from dataclasses import dataclass, field

import pytest

from stream import events
from stream.contracts import Shard, Start, StartKind
from stream.errors import Fatal, Halted, LeaseLost, Retryable
from stream.worker import supervisor
from stream.worker.supervisor import Supervisor

PARENT, LEFT, RIGHT = Shard("s", "0"), Shard("s", "1", ("0",)), Shard("s", "2", ("0",))
MERGED = Shard("s", "3", ("1", "2"))


class Clock:
    def __init__(self):
        self.slept = []

    async def sleep(self, seconds):
        self.slept.append(seconds)


@dataclass
class Stream:
    """Source, parts and shard tasks in one; ``fates`` maps shard ids to what their tasks do, one entry for each time."""

    fates: dict
    listed: list
    draining: asyncio.Event = field(default_factory=asyncio.Event)
    clock: Clock = field(default_factory=Clock)
    told: list = field(default_factory=list)
    order: list = field(default_factory=list)
    leases: None = None
    once: bool = False

    @property
    def source(self):
        return self

    @property
    def emit(self):
        return self.told.append

    async def shards(self):
        return self.listed

    async def run_shard(self, shard, start, parts):
        self.order.append(shard.shard_id)
        fate = self.fates[shard.shard_id].pop(0)
        if isinstance(fate, Exception):
            raise fate
        if fate == "drain":
            self.draining.set()
            return None
        return fate


def supervise(monkeypatch, fates, *shards):
    async def run():
        stream = Stream(fates, list(shards))
        monkeypatch.setattr(supervisor, "run_shard", stream.run_shard)
        watched = Supervisor("s", Start(StartKind.TRIM_HORIZON), stream)
        await watched.run()
        return stream, watched

    return asyncio.run(asyncio.wait_for(run(), 10))


def test_children_follow_both_their_parents(monkeypatch):
    fates = {"0": [("1", "2")], "1": [("3",)], "2": [("3",)], "3": ["drain"]}
    stream, watched = supervise(monkeypatch, fates, MERGED, RIGHT, LEFT, PARENT)
    assert stream.order == ["0", "1", "2", "3"]
    assert watched.ended == {"0", "1", "2"}


def test_a_fatal_error_ends_the_process_as_it_is(monkeypatch):
    with pytest.raises(Fatal, match="no permission"):
        supervise(monkeypatch, {"0": [Fatal("no permission")]}, PARENT)


def test_a_halted_shard_is_parked_and_its_children_wait(monkeypatch):
    stream, watched = supervise(monkeypatch, {"0": [Halted("look here")]}, PARENT, LEFT)
    assert watched.halted == {"0": "look here"}
    assert stream.order == ["0"]
    assert stream.told == [events.ShardHalted("s", "0", "look here")]


def test_a_halted_shard_does_not_stop_another(monkeypatch):
    other = Shard("s", "9")
    stream, watched = supervise(monkeypatch, {"0": [Halted("h")], "9": [Retryable("again"), "drain"]}, PARENT, other)
    assert stream.order == ["0", "9", "9"]
    assert stream.clock.slept == [supervisor.RESTART_SECONDS]
    assert set(watched.halted) == {"0"}


def test_an_error_that_nobody_foresaw_parks_its_shard_only(monkeypatch):
    stream, watched = supervise(monkeypatch, {"0": [KeyError("oops")], "9": ["drain"]}, PARENT, Shard("s", "9"))
    assert "unexpected KeyError" in watched.halted["0"]
    assert stream.order == ["0", "9"]


def test_a_lost_lease_ends_the_shard_without_an_alarm(monkeypatch):
    stream, watched = supervise(monkeypatch, {"0": [LeaseLost("gone")], "9": ["drain"]}, PARENT, Shard("s", "9"))
    assert not watched.halted
    assert events.ShardReleased("s", "0", "lease_lost") in stream.told
