"""Real workers with a pipeline of their own under random schedules: `stream simulate` as a library, and defects that it must find."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest

from stream import events
from stream.clock import SystemClock
from stream.commit import protocol
from stream.commit.committer import checkpoint_of
from stream.lease.coordinator import Coordinator
from stream.lease.shards import new_lease
from stream.lease.table import LeaseTable
from stream.pipeline.checks.lint import check
from stream.pipeline.resources.fetching import fetch_resources
from stream.pipeline.trials.sample import generated
from stream.simulation.campaign import Tally, campaign, minimized, play
from stream.simulation.fleet import Tools
from stream.simulation.places import SimulatedStore
from stream.simulation.schedule import Among, Arrival, Disturbance, Schedule, Start, Trouble, draw
from stream.simulation.subject import KnownDefinitions, Subject, payloads
from stream.worker.coordination.pausing import PauseWatch
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
LEASED = PIPELINE + "coordination: native\n"
ROUTED = PIPELINE.replace(
    "  - s3: {url: s3://lake/orders/, partition_by: big}\n",
    "  - s3: {name: large, url: s3://lake/orders/, where: big}\n"
    "  - s3: {name: in-town, url: s3://lake/town/, where: city < 'm', format: ndjson}\n"
    "  - s3: {name: rest, url: s3://lake/rest/, where: amount < 50, partition_by: city}\n",
)
SEVERAL = LEASED.replace("stream: orders", "streams: [{stream: orders}, {stream: returns}]")


def newer_than(text):
    """The pipeline file of a rolling update: other rows, in another place, and for other sinks."""
    return text.replace("amount > 100", "amount < 100").replace("lake/orders/", "lake/sales/").replace("amount < 50", "amount < 80")


def subject(tmp_path, *, newer=False, text=PIPELINE, after=newer_than):
    loaded = []
    for name, content in (("p.yaml", text), ("n.yaml", after(text))):
        (tmp_path / name).write_text(content)
        pipeline = check(tmp_path / name, {}).pipeline
        loaded.append((pipeline, asyncio.run(fetch_resources(pipeline, tmp_path, {}))))
    records = payloads(generated(loaded[0][0], 60, 1))
    return Subject(*loaded[0], tmp_path, {}, records, loaded[1] if newer else None)


def played(one, seeds, tools=None):
    """The tally of schedules, and the first that fails."""
    tally = Tally()
    failed = next(campaign(one, seeds, tools or Tools(), SystemClock(), None, tally.add), None)
    return tally, failed


def first_failure(failed):
    return None if failed is None else f"seed {failed.schedule.seed}: {failed.failures}"


@pytest.mark.parametrize(
    ("text", "newer", "seeds"),
    [(PIPELINE, False, 45), (PIPELINE, True, 45), (LEASED, False, 60), (SEVERAL, True, 30), (ROUTED, True, 30)],
    ids=["one-file", "rolling-update", "leases", "several-streams", "conditions"],
)
def test_every_schedule_keeps_every_promise(tmp_path, text, newer, seeds):
    tally, failed = played(subject(tmp_path, newer=newer, text=text), range(seeds))
    assert first_failure(failed) is None
    assert tally.schedules == seeds
    for what in ("killed_before", "killed_after", "undone", "unanswered", "late", "frozen", "throttled", "expired", "lease_lost"):
        assert tally.troubles[what] > 0, what
    for what in ("split", "merged", "paused", "rewound"):
        assert tally.troubles[what] > 0, what
    assert (tally.troubles["updated"] > 0) == newer
    assert (tally.troubles["denied"] > 0) == (text in {LEASED, SEVERAL})
    assert tally.units > 100


def test_leases_are_taken_lost_and_taken_over(tmp_path):
    one, why = subject(tmp_path, text=LEASED), Counter()
    for seed in range(25):
        world = play(one, draw(seed, one.possible), Tools()).world
        why.update(f"taken {each.what.why}" for each in world.happened if isinstance(each.what, events.LeaseTaken))
        why.update(f"dropped {each.what.why}" for each in world.happened if isinstance(each.what, events.LeaseDropped))
    for what in ("taken free", "taken expired", "taken stolen", "taken own", "dropped released", "dropped lost", "dropped expired"):
        assert why[what] > 0, (what, why)


@pytest.mark.parametrize("alone", [True, False], ids=["one", "both"])
def test_a_worker_that_alone_has_no_access_for_a_while_is_relieved_of_its_shards_and_all_that_have_none_keep_them(tmp_path, alone):
    one, moved = subject(tmp_path, text=LEASED), []
    arrivals = tuple(Arrival(at / 2, f"key-{at}", (at % 60,)) for at in range(200))
    for seed in range(4):
        denials = tuple(Disturbance(number, 150, Trouble.DENIED, Among.CALLS, 80.0) for number in range(1 if alone else 2))
        starts = (Start(0, 0.0), Start(1, 1.0, drains=False))
        done = play(one, Schedule(seed, True, 4, 8, 2.0, 120.0, arrivals, starts, (), (), denials), Tools())
        assert done.failures == [], f"seed {seed}"
        taken = [each for each in done.world.happened if isinstance(each.what, events.LeaseTaken) and each.what.why == "refused"]
        assert len(taken) <= 4, f"seed {seed}"
        assert {each.who for each in taken} <= {"worker 2"} or not alone, f"seed {seed}"
        moved += taken
    assert moved or not alone


def test_on_an_empty_table_the_first_records_are_committed_within_five_seconds(tmp_path):
    """The KCL takes half a minute: it waits at random while the table is empty, and then for its next round of taking."""
    one = subject(tmp_path, text=LEASED)
    arrivals = tuple(Arrival(0.0, f"key-{place}", (place,)) for place in range(20))
    alone = Schedule(1, True, 4, 30, 1.0, 15.0, arrivals, (Start(0, 0.0),), (), (), ())
    played = play(one, alone, Tools())
    assert played.failures == []
    sealed = {each.what.shard: each.at for each in reversed(played.world.happened) if isinstance(each.what, events.UnitSealed)}
    assert len(sealed) == 4
    assert max(sealed.values()) < 5.0


STORY = """
import sys
from pathlib import Path
from tests.simulation.test_pipelines import SEVERAL, subject
from stream.simulation.campaign import play
from stream.simulation.fleet import Tools
from stream.simulation.narrate import narration
from stream.simulation.schedule import Arrival, Schedule, Start, draw
one = subject(Path(sys.argv[1]), newer=True, text=SEVERAL)
for seed in (3, 7):
    print(*narration(play(one, draw(seed, one.possible), Tools()).world), sep="\\n")
"""


def test_a_seed_tells_the_same_story_in_every_process(tmp_path):
    first_failure = []
    for seed in ("0", "77"):
        env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run([sys.executable, "-c", STORY, str(tmp_path)], env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        first_failure.append(done.stdout)
    assert len(first_failure[0].splitlines()) > 100
    assert first_failure[0] == first_failure[1]


def test_a_seed_always_plays_the_same(tmp_path):
    one = subject(tmp_path, text=LEASED)
    first, second = (play(one, draw(7, one.possible), Tools()).world for _ in range(2))
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


class OwnDefinition(Unpinned):
    """Finishes units of other workers with its own definition, and says so."""

    async def recorded(self, digest):
        return self.own


class WritesNothing(MutantCommitter):
    async def _carry_out(self, todo, work):
        if isinstance(todo, protocol.Write):
            return protocol.Written()
        return await super()._carry_out(todo, work)


class BelievesLostReplies(MutantCommitter):
    """Takes every write of a manifest for done, although no reply came."""

    async def _carry_out(self, todo, work):
        event = await super()._carry_out(todo, work)
        return protocol.Replaced("?") if isinstance(event, protocol.Unknown) and isinstance(todo, protocol.Replace) else event


class IgnoresConditions(LeaseTable):
    """Takes a refused write of a lease for one that was done."""

    async def take(self, lease, me):
        return await super().take(lease, me) or replace(lease, owner=me)

    async def renew(self, lease, throughput=None, until=float("inf")):
        return await super().renew(lease, throughput, until) or lease


class NeverSeesLosses(Coordinator):
    """Does not notice in a scan that a lease is another worker's."""

    def __init__(self, *parts):
        super().__init__(*parts)
        self.holdings.refresh = lambda row: None


class KeepsLeases(Coordinator):
    """Ends without giving its leases back."""

    async def release(self, stream, shard_id, *, avoid=False):
        pass

    async def leave(self):
        await self.stop_taking()


class ChildrenAtOnce(Coordinator):
    """Reads children before their parents have ended."""

    def waiting(self, stream):
        return {shard: lease.holder for shard, lease in self.leases(stream).items() if not lease.ended}

    def __init__(self, *args):
        super().__init__(*args)
        self.rows.create_missing = self.create_all

    async def create_all(self, leased, listed, leases):
        for shard in listed:
            if shard.shard_id not in leases:
                await self.table.create(new_lease(leased.key(shard.shard_id), shard, "TRIM_HORIZON"))


class NoLeasesForChildren(Coordinator):
    """Creates the rows of the shards that there are when it starts, and no others."""

    async def start(self, observed=None):
        await super().start(observed)
        self.rows.create_missing = self.create_none

    async def create_none(self, leased, listed, leases):
        """Creates nothing."""


class OldNews(Coordinator):
    """Believes at the end of a run what it has last seen of the table."""

    async def settle(self):
        await self.sync()
        await self.scan()


class NeverLooks(PauseWatch):
    """Does not see what was paused after it has started."""

    async def run(self):
        await asyncio.Event().wait()


MUTANTS = {
    "no_seal": (PIPELINE, Tools(committer=NoSeal)),
    "seal_before_write": (PIPELINE, Tools(committer=SealBeforeWrite)),
    "checkpoint_before_write": (PIPELINE, Tools(committer=CheckpointBeforeWrite)),
    "writes_nothing": (PIPELINE, Tools(committer=WritesNothing)),
    "believes_lost_replies": (PIPELINE, Tools(committer=BelievesLostReplies)),
    "no_if_none_match": (PIPELINE, Tools(store=NoIfNoneMatch)),
    "no_if_match": (PIPELINE, Tools(store=NoIfMatch)),
    "unpinned": (PIPELINE, Tools(definitions=Unpinned)),
    "own_definition": (PIPELINE, Tools(definitions=OwnDefinition)),
    "ignores_conditions": (LEASED, Tools(table=IgnoresConditions, coordinator=NeverSeesLosses)),
    "keeps_leases": (LEASED, Tools(coordinator=KeepsLeases)),
    "children_at_once": (LEASED, Tools(coordinator=ChildrenAtOnce)),
    "no_leases_for_children": (LEASED, Tools(coordinator=NoLeasesForChildren)),
    "old_news": (LEASED, Tools(coordinator=OldNews)),
    "never_looks": (PIPELINE, Tools(pauses=NeverLooks)),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_each_planted_defect_is_found_within_the_default_number_of_schedules(tmp_path, name):
    text, tools = MUTANTS[name]
    _, failed = played(subject(tmp_path, newer=name in {"unpinned", "own_definition"}, text=text), range(1, DEFAULT + 1), tools)
    assert failed is not None, f"{name} survived {DEFAULT} schedules"


def test_a_failing_schedule_is_made_smaller_and_fails_in_the_same_way(tmp_path):
    one, (_, tools) = subject(tmp_path), MUTANTS["seal_before_write"]
    _, failed = played(one, range(1, DEFAULT + 1), tools)
    smaller = minimized(one, failed, tools)
    assert smaller.schedule.size < failed.schedule.size
    assert failed.failures[0].promise in {each.promise for each in smaller.failures}
    for piece in smaller.schedule.pieces():
        again = play(one, smaller.schedule.without(frozenset({piece})), tools)
        assert failed.failures[0].promise not in {each.promise for each in again.failures}, piece
