"""Invocations of a function, told about the emulator's records as a Lambda event source mapping tells it, and what is committed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from random import Random

import pytest
from pyiceberg.catalog import load_catalog
from typer.testing import CliRunner

from stream import events
from stream.cli.main import app
from stream.errors import DefinitionError, Fatal, Halted
from stream.local.kinesis.server import running
from tests.chaos.conftest import KEYS, client
from tests.chaos.gateway import Answer, gateway
from tests.chaos.world import World
from tests.clocks import HurriedClock, ShiftedClock
from tests.integration.narration import Received, collector
from tests.invocations import Environment, TimeIsOver, delivery, held, with_environments

SHARD = "shardId-000000000000"
LEFT, RIGHT = "shardId-000000000001", "shardId-000000000002"


@pytest.fixture
def clock() -> ShiftedClock:
    return ShiftedClock()


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: ShiftedClock) -> Iterator[World]:
    with running(clock=clock) as server:
        environment = KEYS | {"AWS_ENDPOINT_URL_KINESIS": server.url}
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        kinesis = client("kinesis", server.url)
        kinesis.create_stream(StreamName="s", ShardCount=1)
        yield World(tmp_path, kinesis, "s", server.url, environment, 7)
        kinesis.close()


def delivered(world: World, shard: str = SHARD, first: int = 0, last: int | None = None, step: int = 1):
    return delivery("s", shard, held(world.client, "s", shard)[first:last:step])


def accounted_for(world: World, path: Path) -> bool:
    """What `stream audit verify` says."""
    verdict = CliRunner().invoke(app, ["audit", "verify", str(path)])
    assert f"All {world.put_so_far:,} records are accounted for, once." in verdict.output, f"seed {world.seed}:\n{verdict.output}"
    return verdict.exit_code == 0


def test_the_records_of_an_event_are_committed(world):
    path = world.pipeline()
    world.produce(200)

    async def body(make):
        return await make(path, world.environment).deliver(delivered(world))

    assert with_environments(body) is None
    world.exact()
    assert accounted_for(world, path)


def test_one_environment_serves_many_invocations_and_repeats_nothing(world):
    path = world.pipeline()
    world.produce(90)
    count = len(held(world.client, "s", SHARD))

    async def body(make):
        environment = make(path, world.environment)
        for last in (count // 3, count // 3, count // 2, count):
            assert await environment.deliver(delivered(world, last=last)) is None
        return environment

    environment = with_environments(body)
    world.exact()
    sealed = environment.of(events.UnitSealed)
    assert sum(number for event in sealed for _, number in event.outcomes) == world.put_so_far


def test_records_that_the_mapping_dropped_are_read_from_the_stream(world):
    path = world.pipeline()
    world.produce(120)

    async def body(make):
        return await make(path, world.environment).deliver(delivered(world, first=-3))

    assert with_environments(body) is None
    world.exact()


def test_a_mapping_with_a_filter_or_several_batches_at_a_time_loses_nothing_and_is_reported(world):
    path = world.pipeline()
    world.produce(60)

    async def body(make):
        even, odd = make(path, world.environment), make(path, world.environment)
        assert await asyncio.gather(even.deliver(delivered(world, step=2)), odd.deliver(delivered(world, first=1, step=2))) == [None, None]
        return even.of(events.EventIncomplete) + odd.of(events.EventIncomplete)

    incomplete = with_environments(body)
    assert incomplete
    assert all(event.missing > 0 for event in incomplete)
    world.exact()


def test_children_follow_parents_that_have_ended_although_nobody_says_that_they_have(world):
    path = world.pipeline()
    world.produce(50)

    async def body(make):
        environment = make(path, world.environment)
        # What the first shard holds is sealed, but not its end: it has none yet.
        assert await environment.deliver(delivered(world)) is None
        world.produce(20)
        world.split()
        world.produce(50)
        world.split(1)
        world.produce(80)
        youngest = next(name for name in ("shardId-000000000003", "shardId-000000000004") if held(world.client, "s", name))
        assert await environment.deliver(delivered(world, youngest)) is None
        order = [event.shard for event in environment.of(events.ShardStarted)]
        for shard in world.open_shards():
            if held(world.client, "s", shard["ShardId"]):
                assert await environment.deliver(delivered(world, shard["ShardId"])) is None
        assert order == [SHARD, SHARD, RIGHT, youngest]

    with_environments(body)
    world.exact(whole=False)
    kinds = [(manifest["kind"], manifest["shard"]) for manifest in world.manifests() if manifest["kind"] == "end"]
    assert sorted(kinds) == [("end", SHARD), ("end", RIGHT)]
    assert sum(manifest.get("records", 0) for manifest in world.manifests()) == world.put_so_far


@pytest.fixture
def faulty(world, moto_url, monkeypatch):
    """``world`` with its results in S3, and the gateway through which they go there."""
    s3 = client("s3", moto_url)
    s3.create_bucket(Bucket="function-behind-a-gateway")
    with gateway(moto_url) as (url, gate):
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", url)
        environment = {**world.environment, "AWS_ENDPOINT_URL_S3": url}
        yield replace(world, environment=environment, s3=s3, bucket="function-behind-a-gateway"), gate
    s3.close()


def test_what_does_not_answer_for_a_moment_is_asked_again_within_the_invocation(faulty):
    """What every call is tried for by itself is over by then: the shard is begun again from the log."""
    world, gate = faulty
    path = world.pipeline()
    world.produce(50)
    world.split()
    world.produce(80)
    child = next(name for name in (LEFT, RIGHT) if held(world.client, "s", name))
    fails = Answer(500, "InternalError")
    gate.rules.append(lambda asked: fails if asked.method == "GET" and asked.key.endswith(f"/checkpoints/s/{SHARD}.json") else None)

    def answers_again(event):
        if isinstance(event, events.CallRepeated) and event.call == "run shard":
            gate.rules.clear()

    async def body(make):
        environment = make(path, world.environment, answers_again, clock=HurriedClock())
        assert await environment.deliver(delivered(world, child)) is None
        return [(event.shard, event.call) for event in environment.of(events.CallRepeated)]

    assert with_environments(body) == [(child, "run shard")]
    assert {manifest["shard"] for manifest in world.manifests() if manifest["kind"] == "unit"} == {SHARD, child}


def test_a_child_is_read_although_its_parent_has_expired_and_is_listed_no_more(world, clock):
    path = world.pipeline()
    world.produce(30)
    world.split()
    clock.ahead = timedelta(hours=25)
    world.put_all([b'{"id": 1, "kind": "a", "value": 1}'] * 40)
    assert SHARD not in {shard["ShardId"] for shard in world.shards()}

    async def body(make):
        environment = make(path, world.environment)
        return [await environment.deliver(delivered(world, shard)) for shard in (LEFT, RIGHT)]

    assert with_environments(body) == [None, None]
    assert sum(manifest.get("records", 0) for manifest in world.manifests()) == 40
    assert {manifest["shard"] for manifest in world.manifests() if manifest["kind"] == "unit"} == {LEFT, RIGHT}


def test_what_was_read_when_the_time_is_over_is_sealed_however_young_it_is(world):
    path = world.pipeline(age="1h", budget="64MiB")
    world.produce(20)

    all_read = TimeIsOver(lambda event: isinstance(event, events.PageReceived) and not event.records and not event.behind_ms)

    async def body(make):
        environment = make(path, world.environment, all_read)
        # What the first invocation opens takes some of its time: how much is the machine's affair.
        assert await environment.deliver(delivered(world)) is None
        world.produce(40)
        everything = held(world.client, "s", SHARD)
        late = {**everything[-1], "SequenceNumber": str(int(everything[-1]["SequenceNumber"]) + 1)}
        all_read.seconds = 60.0
        assert await environment.deliver(delivery("s", SHARD, [*everything, late]), 60.0) == int(late["SequenceNumber"])
        assert not all_read.seconds

    with_environments(body)
    world.exact()


def is_throttled(event):
    return isinstance(event, events.PollRepeated) and event.why == "throttled"


def test_what_a_schedule_has_no_time_for_is_named_and_what_it_read_is_sealed(world):
    path = world.pipeline(budget="64KiB", age="1h")
    world.produce(1500)

    async def body(make):
        environment = make(path, world.environment, throttled := TimeIsOver(is_throttled))
        assert await environment.deliver(delivered(world, last=5)) is None
        before = world.sealed_units()
        world.misbehave({"operation": "GetRecords", "action": "throttle", "times": 100_000, "skip": 1})
        throttled.seconds = 60.0
        assert await environment.function.catch_up(60.0) == ["s is not read to its tip"]
        assert world.sealed_units() > before
        world._faults("DELETE")
        assert await environment.function.catch_up(60.0) == []

    with_environments(body)
    world.exact()


def test_a_parent_that_there_was_no_time_to_end_is_read_on_before_its_child(world):
    path = world.pipeline(budget="64KiB")
    world.produce(1500)
    world.split()
    world.produce(80)
    child = next(name for name in (LEFT, RIGHT) if held(world.client, "s", name))
    everything = delivered(world, child)
    world.misbehave({"operation": "GetRecords", "action": "throttle", "times": 100_000, "skip": 1})

    def committed():
        return {(manifest["shard"], manifest["kind"]) for manifest in world.manifests() if manifest["kind"] in {"unit", "end"}}

    async def body(make):
        environment = make(path, world.environment, throttled := TimeIsOver(is_throttled))
        throttled.seconds = 60.0
        assert await environment.deliver(everything) == everything.numbers[0]
        assert committed() == {(SHARD, "unit")}
        world._faults("DELETE")
        assert await environment.deliver(everything) is None

    with_environments(body)
    assert committed() == {(SHARD, "unit"), (SHARD, "end"), (child, "unit")}


def test_what_is_left_when_the_time_is_over_is_named_and_done_next_time(world):
    path = world.pipeline(budget="64KiB")
    world.produce(1500)
    everything = delivered(world)

    async def body(make):
        throttled = TimeIsOver(is_throttled)
        environment, answers = make(path, world.environment, throttled), []
        # What the first invocation opens takes some of its time: how much is the machine's affair.
        assert await environment.deliver(delivered(world, last=5)) is None
        world.misbehave({"operation": "GetRecords", "action": "throttle", "times": 100_000, "skip": 2})
        throttled.seconds = 60.0
        answers.append(await environment.deliver(everything, 60.0))
        world._faults("DELETE")
        answers.append(await environment.deliver(everything, 60.0))
        return answers

    first, second = with_environments(body)
    assert first in everything.numbers
    assert second is None
    world.exact()


def test_an_invocation_that_cannot_seal_anything_is_an_error_that_says_what_it_waited_for(world):
    path = world.pipeline()
    world.produce(10)
    everything = delivered(world)
    world.misbehave({"operation": "GetRecords", "action": "error500", "times": 100_000})

    async def body(make):
        environment = make(path, world.environment, failed := TimeIsOver(lambda event: isinstance(event, events.PollRepeated)))
        failed.seconds = 60.0
        with pytest.raises(Fatal, match=r"no record of s/shardId-000000000000 could be sealed in 60\.0 s"):
            await environment.deliver(everything, 60.0)

    with_environments(body)
    assert world.sealed_units() == 0


async def command(*words: str) -> str:
    done = await asyncio.to_thread(CliRunner().invoke, app, list(words))
    assert done.exit_code == 0, done.output
    return done.output


def test_what_is_paused_is_not_read_and_continues_in_the_same_environment_when_it_is_resumed(world):
    path = world.pipeline()
    world.produce(40)

    async def body(make):
        environment = make(path, world.environment)
        assert await environment.deliver(delivered(world)) is None
        world.produce(40)
        await command("pause", str(path), "--note", "new bucket policy")
        with pytest.raises(Fatal, match=r"reading of s is paused, by .*: new bucket policy\. Lambda tries again until"):
            await environment.deliver(delivered(world))
        (left,) = await environment.function.catch_up(60.0)
        assert "new bucket policy" in left
        before = world.sealed_units()
        await command("resume", str(path))
        assert await environment.deliver(delivered(world)) is None
        return before

    assert with_environments(body) == 1, "units sealed before it was resumed"
    world.exact()
    assert accounted_for(world, path)


def test_a_delivery_that_waits_for_a_paused_parent_says_that_it_is_paused(world):
    path = world.pipeline()
    world.produce(50)
    world.split()
    world.produce(80)
    child = next(name for name in (LEFT, RIGHT) if held(world.client, "s", name))

    async def body(make):
        environment = make(path, world.environment)
        await command("pause", str(path), SHARD, "--note", "new bucket policy")
        with pytest.raises(Fatal, match=rf"reading of s/{SHARD} is paused, by .*: new bucket policy\. Lambda tries again until"):
            await environment.deliver(delivered(world, child))
        await command("resume", str(path), SHARD)
        assert await environment.deliver(delivered(world, child)) is None

    with_environments(body)
    assert {manifest["shard"] for manifest in world.manifests() if manifest["kind"] == "unit"} == {SHARD, child}


def test_a_shard_that_halts_is_an_error_and_other_shards_continue_in_the_same_environment(world):
    path = world.pipeline(min_records=1)
    world.put_all([b"{"] * 20)

    async def body(make):
        environment = make(path, world.environment)
        for _ in range(2):
            with pytest.raises(Halted, match="would become dead letters"):
                await environment.deliver(delivered(world))
        return environment

    environment = with_environments(body)
    assert len(environment.of(events.ShardHalted)) == 2
    assert len(environment.of(events.RecoveryFinished)) == 2
    assert world.sealed_units() == 0


def test_an_event_of_another_stream_is_refused_by_name(world):
    world.produce(5)
    other = delivery("other", SHARD, held(world.client, "s", SHARD))

    async def body(make):
        with pytest.raises(DefinitionError, match="about the stream other, and the pipeline reads s;"):
            await make(world.pipeline(), world.environment).deliver(other)

    with_environments(body)


def test_latest_begins_with_the_first_record_that_is_delivered(world, clock):
    path = world.pipeline(start="latest")
    world.produce(40)
    early = len(held(world.client, "s", SHARD))
    clock.ahead = timedelta(seconds=10)
    world.produce(30)
    since = int(held(world.client, "s", SHARD)[early]["SequenceNumber"])

    async def body(make):
        later = ShiftedClock()
        later.ahead = timedelta(minutes=1)
        assert await make(path, world.environment, clock=later).deliver(delivered(world, first=early)) is None
        assert await make(path, world.environment, clock=later).deliver(delivered(world, last=early)) is None

    with_environments(body)
    world.exact(begins=lambda record: record.sequence >= since)


def test_with_latest_another_shard_whose_records_all_arrived_before_has_nothing_to_do(world, clock):
    path = world.pipeline(start="latest")
    world.split()
    world.put_all([b"{}"] * 40)
    clock.ahead = timedelta(seconds=10)
    world.put_all([b"{}"] * 40)
    left, right = held(world.client, "s", LEFT), held(world.client, "s", RIGHT)
    early = [at for at in left if at["ApproximateArrivalTimestamp"] < right[-1]["ApproximateArrivalTimestamp"] - timedelta(seconds=5)]

    async def body(make):
        environment = make(path, world.environment)
        assert await environment.deliver(delivered(world, RIGHT, first=-1)) is None
        assert await environment.deliver(delivery("s", LEFT, early)) is None

    with_environments(body)
    assert {manifest["shard"] for manifest in world.manifests() if manifest["kind"] == "unit"} == {RIGHT}


def test_a_schedule_reads_every_shard_to_its_tip(world):
    path = world.pipeline()
    world.produce(60)
    world.split()
    world.produce(60)

    async def body(make):
        return await make(path, world.environment).function.catch_up(60.0)

    assert with_environments(body) == []
    world.exact()
    assert accounted_for(world, path)


def test_a_schedule_reads_the_other_shards_although_one_is_halted_and_says_so(world):
    path = world.pipeline(min_records=1)
    world.split()
    world.put_all([b"{"] * 20)
    sound = [shard["HashKeyRange"]["StartingHashKey"] for shard in world.open_shards()][1]
    rows = [{"Data": b'{"id": 1, "kind": "a", "value": 1}', "PartitionKey": "k", "ExplicitHashKey": sound}] * 400
    world.put(rows, 400)

    async def body(make):
        with pytest.raises(Fatal, match=r"1 shard\(s\) or stream\(s\) are halted:\n  s/shardId-000000000001: .*become dead letters"):
            await make(path, world.environment).function.catch_up(60.0)

    with_environments(body)
    assert {manifest["shard"] for manifest in world.manifests() if manifest["kind"] == "unit"} == {RIGHT}


def test_from_invocations_to_a_worker_and_back(world):
    path = world.pipeline()
    world.produce(80)

    async def deliver(make):
        return await make(path, world.environment).deliver(delivered(world))

    assert with_environments(deliver) is None
    world.produce(70)
    world.finish(path)
    world.produce(60)
    assert with_environments(deliver) is None
    world.exact()
    writers = {manifest["sealed_by"] for manifest in world.manifests() if manifest["kind"] == "unit"}
    assert len(writers) >= 2
    assert accounted_for(world, path)


@pytest.mark.parametrize("seed", range(12))
def test_whatever_the_mapping_does_each_record_is_committed_once(world, seed):
    """Repeated, overlapping, split, reordered, incomplete, concurrent and killed invocations; the last one is told of the last record."""
    rng = Random(seed)
    path = world.pipeline(budget=rng.choice(["128KiB", "1MiB"]))
    world.seed = seed

    async def invocation(make, environments: list[Environment], count: int) -> None:
        first = rng.randrange(count)
        some = delivered(world, first=first, last=rng.randrange(first + 1, count + 1), step=rng.choice([1, 1, 2, 3]))
        if not environments or rng.random() < 0.3:
            environments.append(make(path, world.environment))
        environment = environments.pop(rng.randrange(len(environments)))
        if rng.random() < 0.4:
            await environment.killed(some, rng.randrange(1, 40))
            return
        assert await environment.deliver(some) is None
        environments.append(environment)

    async def body(make):
        environments: list[Environment] = []
        for _ in range(4):
            world.produce(rng.randrange(20, 80))
            count = len(held(world.client, "s", SHARD))
            for _ in range(rng.randrange(1, 4)):
                await asyncio.gather(*(invocation(make, environments, count) for _ in range(rng.randrange(1, 4))))
        assert await make(path, world.environment).deliver(delivered(world, first=-1)) is None

    with_environments(body)
    world.exact()
    assert accounted_for(world, path)


@pytest.fixture
def received() -> Iterator[Received]:
    with collector() as found:
        yield found


def with_collector(path: Path, received: Received, mode: str = "ledger") -> Path:
    path.write_text(f'{path.read_text()}audit: {{otlp: {{endpoint: "{received.url}", mode: {mode}}}}}\n')
    return path


def exported(world: World) -> str:
    (cursor,) = [json.loads(body) for name, body in world.objects("state/chaos/export/").items() if name.endswith(f"{SHARD}.json")]
    return str(cursor["position"])


def test_spans_are_exported_before_the_answer(world, received):
    path = with_collector(world.pipeline(), received)
    world.produce(60)
    everything = delivered(world)

    async def body(make):
        assert await make(path, world.environment).deliver(everything) is None

    with_environments(body)
    assert exported(world) == str(everything.last)
    assert len(received.spans) > world.put_so_far


def test_a_collector_that_refuses_holds_nothing_up_and_a_schedule_makes_up_for_it(world, received):
    path = with_collector(world.pipeline(), received)
    world.produce(60)
    everything = delivered(world)
    received.status = 503

    async def body(make):
        assert await make(path, world.environment).deliver(everything) is None
        world.exact()
        assert not [name for name in world.objects("state/chaos/export/") if name.endswith(f"{SHARD}.json")]
        received.status = 200
        assert await make(path, world.environment).function.catch_up(60.0) == []

    with_environments(body)
    assert exported(world) == str(everything.last)


def test_in_strict_mode_an_invocation_is_not_done_before_its_spans_are(world, received):
    path = with_collector(world.pipeline(), received, "strict")
    world.produce(60)
    everything = delivered(world)
    received.status = 503

    refused = TimeIsOver(lambda event: isinstance(event, events.CallRepeated) and event.call == "export spans", entirely=True)

    async def body(make):
        refused.seconds = 60.0
        assert await make(path, world.environment, refused).deliver(everything) == everything.numbers[0]
        refused.seconds = 60.0
        assert await make(path, world.environment, refused).function.catch_up(60.0) == ["the time, 60 s, was over before all was done"]
        received.status = 200
        assert await make(path, world.environment).deliver(everything) is None

    with_environments(body)
    world.exact()
    assert exported(world) == str(everything.last)


ICEBERG = """  - iceberg:
      location: "file:./table"
      table: lake.events
      catalog: {{type: sql, uri: "sqlite:///{folder}/catalog.db", warehouse: "file://{folder}/warehouse"}}
flush:"""


def test_a_schedule_loads_tables(world):
    path = world.pipeline()
    path.write_text(path.read_text().replace("flush:", ICEBERG.format(folder=world.folder)))
    world.produce(60)

    def rows() -> int:
        catalog = load_catalog(
            "default", type="sql", uri=f"sqlite:///{world.folder}/catalog.db", warehouse=f"file://{world.folder}/warehouse"
        )
        try:
            return int(catalog.load_table("lake.events").scan().to_arrow().num_rows)
        finally:
            catalog.close()

    async def body(make):
        environment = make(path, world.environment)
        assert await environment.deliver(delivered(world)) is None
        assert not (world.folder / "catalog.db").exists()
        assert await environment.function.catch_up(120.0) == []
        assert await environment.function.catch_up(120.0) == []

    with_environments(body)
    written = sum(manifest["outcomes"].get("written", 0) for manifest in world.manifests() if manifest["kind"] == "unit")
    assert rows() == written > 0


def test_people_are_notified_of_a_halted_shard_once_until_it_continues(world, received):
    path = world.pipeline(min_records=1)
    halting = f'{path.read_text()}notify: {{webhook: "{received.url}/v1/notices"}}\n'
    path.write_text(halting)
    world.put_all([b"{"] * 20)

    def notices() -> list[str]:
        return [path for path, _ in received.bodies]

    async def body(make):
        environment = make(path, world.environment)
        for _ in range(3):
            with pytest.raises(Halted, match="would become dead letters"):
                await environment.deliver(delivered(world))
            assert notices() == ["/v1/notices"]
        path.write_text(halting.replace("min_records: 1", "min_records: 1000"))
        assert await make(path, world.environment).deliver(delivered(world)) is None
        world.put_all([b'{"id": 1, "kind": "a", "value": 1}'] * 20)
        assert await environment.deliver(delivered(world)) is None
        world.put_all([b"{"] * 40)
        with pytest.raises(Halted, match="would become dead letters"):
            await environment.deliver(delivered(world))

    with_environments(body)
    assert notices() == ["/v1/notices"] * 2
