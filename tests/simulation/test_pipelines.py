"""Real workers with a pipeline of their own under random schedules: `stream simulate` as a library, and defects that it must find."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from stream.clock import SystemClock
from stream.commit import protocol
from stream.commit.committer import checkpoint_of
from stream.pipeline.lint import check
from stream.pipeline.resources import fetch_resources
from stream.pipeline.sample import generated
from stream.simulation.campaign import Tally, campaign, minimized, play
from stream.simulation.fleet import Tools
from stream.simulation.places import SimulatedStore
from stream.simulation.schedule import draw
from stream.simulation.subject import KnownDefinitions, Subject, payloads
from tests.simulation.schedule import MutantCommitter

DEFAULT = 200
"""The number of schedules that `stream simulate` plays."""

PIPELINE = """\
application: orders
source:
  kinesis: {stream: orders}
  schema: {id: int64, city: string, amount: float64?}
stages:
  - filter: amount IS NOT NULL
  - derive: {big: amount > 100}
sinks:
  - s3: {url: s3://lake/orders/, partition_by: big}
state: s3://lake/_stream/
"""
NEWER = PIPELINE.replace("amount > 100", "amount < 100").replace("lake/orders/", "lake/sales/")


def subject(tmp_path, *, newer=False):
    loaded = []
    for name, text in (("p.yaml", PIPELINE), ("n.yaml", NEWER)):
        (tmp_path / name).write_text(text)
        pipeline = check(tmp_path / name, {}).pipeline
        loaded.append((pipeline, asyncio.run(fetch_resources(pipeline, tmp_path, {}))))
    records = payloads(generated(loaded[0][0], 60, 1))
    return Subject(*loaded[0], tmp_path, {}, records, loaded[1] if newer else None)


def played(one, seeds, tools=None):
    """The tally of schedules, and the first that fails."""
    tally = Tally()
    failed = next(campaign(one, seeds, tools or Tools(), SystemClock(), None, tally.add), None)
    return tally, failed


def told(failed):
    return None if failed is None else f"seed {failed.schedule.seed}: {failed.failures}"


@pytest.mark.parametrize("newer", [False, True], ids=["one-file", "rolling-update"])
def test_every_schedule_keeps_every_promise(tmp_path, newer):
    tally, failed = played(subject(tmp_path, newer=newer), range(45))
    assert told(failed) is None
    assert tally.schedules == 45
    for what in ("killed_before", "killed_after", "undone", "unanswered", "late", "frozen", "throttled", "expired", "lease_lost"):
        assert tally.troubles[what] > 0, what
    assert tally.troubles["split"] > 0
    assert tally.troubles["merged"] > 0
    assert (tally.troubles["updated"] > 0) == newer
    assert tally.units > 100


def test_a_seed_always_plays_the_same(tmp_path):
    one = subject(tmp_path)
    first, second = (play(one, draw(7, 60, rolling=False), Tools()).world for _ in range(2))
    assert first.happened == second.happened
    assert len(first.happened) > 20
    assert first.writes == second.writes


class NoSeal(MutantCommitter):
    mutant = "no_seal"


class SealBeforeWrite(MutantCommitter):
    mutant = "seal_before_write"


class CheckpointBeforeWrite(MutantCommitter):
    async def commit(self, shard, unit, render):
        await self.checkpoint(shard, checkpoint_of(unit.manifest))
        return await super().commit(shard, unit, render)


class NoIfNoneMatch(SimulatedStore):
    async def create(self, key, body):
        await self.put(key, body)
        stored = await self.get(key)
        return None if stored is None else stored.etag


class NoIfMatch(SimulatedStore):
    async def replace(self, key, body, etag):
        await self.put(key, body)
        stored = await self.get(key)
        return None if stored is None else stored.etag


class Unpinned(KnownDefinitions):
    """Finishes units of other workers with its own definition, under the name of theirs."""

    async def record(self, pipeline, fetched):
        self.own = await super().record(pipeline, fetched)
        return self.own

    async def recorded(self, digest):
        return replace(self.own, digest=digest)


class WritesNothing(MutantCommitter):
    async def _carry_out(self, todo, work):
        if isinstance(todo, protocol.Write):
            return protocol.Written()
        return await super()._carry_out(todo, work)


MUTANTS = {
    "no_seal": Tools(committer=NoSeal),
    "seal_before_write": Tools(committer=SealBeforeWrite),
    "checkpoint_before_write": Tools(committer=CheckpointBeforeWrite),
    "writes_nothing": Tools(committer=WritesNothing),
    "no_if_none_match": Tools(store=NoIfNoneMatch),
    "no_if_match": Tools(store=NoIfMatch),
    "unpinned": Tools(definitions=Unpinned),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_each_planted_defect_is_found_within_the_default_number_of_schedules(tmp_path, name):
    _, failed = played(subject(tmp_path, newer=name == "unpinned"), range(1, DEFAULT + 1), MUTANTS[name])
    assert failed is not None, f"{name} survived {DEFAULT} schedules"


def test_a_failing_schedule_is_made_smaller_and_fails_in_the_same_way(tmp_path):
    one, tools = subject(tmp_path), MUTANTS["seal_before_write"]
    _, failed = played(one, range(1, DEFAULT + 1), tools)
    smaller = minimized(one, failed, tools)
    assert smaller.schedule.size < failed.schedule.size
    assert failed.failures[0].promise in {each.promise for each in smaller.failures}
    for piece in smaller.schedule.pieces():
        again = play(one, smaller.schedule.without(frozenset({piece})), tools)
        assert failed.failures[0].promise not in {each.promise for each in again.failures}, piece
