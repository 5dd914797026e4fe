"""Our child under a scripted MultiLangDaemon: what it commits, and which checkpoints it asks for."""

from __future__ import annotations

import asyncio
import io
import json
import signal
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from stream.clock import SystemClock
from stream.concurrency import ObservableEvent
from stream.events import CallRepeated
from stream.hosts.multilang import Child, Daemon, Progress
from stream.local.kinesis.server import running
from stream.local.kpl import UserRecord, aggregate
from stream.pipeline.checks.lint import check
from stream.source.aggregated import user_records
from stream.worker.assemble import WorkerOptions, assemble
from stream.worker.parts import to_all
from stream.worker.shards.shard import NUDGE_SECONDS
from tests.chaos.conftest import KEYS, client
from tests.chaos.gateway import gateway
from tests.chaos.test_store_faults import DENIED, refuses
from tests.chaos.world import World
from tests.kcl.fake import FakeDaemon, delivered

SHARD = "shardId-000000000000"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with running() as server:
        kinesis = client("kinesis", server.url)
        kinesis.create_stream(StreamName="s", ShardCount=1)
        yield World(tmp_path, kinesis, "s", server.url, KEYS | {"AWS_ENDPOINT_URL_KINESIS": server.url}, 7)
        kinesis.close()


@pytest.fixture
def path(world: World) -> Path:
    file = world.pipeline(age="50ms")
    file.write_text(file.read_text() + "coordination: kcl\n")
    return file


def daemon(world: World, path: Path, shard: str = SHARD, sequence: str = "TRIM_HORIZON", subsequence: int = 0) -> FakeDaemon:
    made = FakeDaemon(path, world.environment, world.folder / "child.log")
    made.ask("initialize", shardId=shard, sequenceNumber=sequence, subSequenceNumber=subsequence)
    return made


def records(world: World, shard: str = SHARD) -> list[dict[str, Any]]:
    """The records of the shard as a KCL delivers them, with aggregates opened."""
    token = world.client.get_shard_iterator(StreamName="s", ShardId=shard, ShardIteratorType="TRIM_HORIZON")["ShardIterator"]
    found = []
    for raw in world.client.get_records(ShardIterator=token)["Records"]:
        users = user_records(raw["Data"])
        if users is None:
            found.append(delivered(raw))
        else:
            found += [delivered(raw, at, user.data, user.partition_key) for at, user in enumerate(users)]
    return found


def until_committed(child: FakeDaemon, world: World) -> None:
    """Return once everything is committed and the checkpoint has followed."""
    child.until(lambda: world.committed() and child.checkpoints != [] and child.checkpoints[-1][0] == last(world))


def last(world: World) -> str:
    return str(max(int(manifest["last"]) for manifest in world.manifests() if manifest["kind"] == "unit"))


def test_records_are_committed_and_the_daemons_checkpoint_follows(world, path):
    world.produce(200)
    everything = records(world)
    with daemon(world, path) as child:
        assert child.records(everything[:80]) == []
        child.records(everything[80:])
        until_committed(child, world)
        assert child.ask("shutdownRequested") == []
        child.ask("leaseLost")
        assert child.close() == 0
    numbers = [int(sequence) for sequence, _ in child.checkpoints]
    assert numbers == sorted(set(numbers))
    final = everything[-1]
    assert child.checkpoints[-1] == (final["sequenceNumber"], final["subSequenceNumber"])
    world.exact()


def test_with_start_latest_a_child_shard_is_committed_from_its_beginning(world, path):
    """The KCL's daemon has another application's leases, and the stream was resharded before this one was first started."""
    path.write_text(path.read_text().replace("start: trim_horizon", "start: latest"))
    world.produce(60)
    with daemon(world, path, sequence="TRIM_HORIZON") as child:
        child.records(records(world))
        until_committed(child, world)
        assert child.close() == 0
    world.exact()


def test_the_end_of_a_shard_is_committed_before_it_is_confirmed(world, path):
    world.produce(100)
    world.split()
    with daemon(world, path) as child:
        child.records(records(world))
        assert child.ask("shardEnded") == [(None, None)]
        ends = [manifest for manifest in world.manifests() if manifest["kind"] == "end"]
        assert [end["children"] for end in ends] == [["shardId-000000000001", "shardId-000000000002"]]
        assert child.close() == 0
    world.exact(whole=False)


def test_a_shutdown_request_seals_buffered_records_and_signals_are_ignored(world, path):
    path.write_text(path.read_text().replace("age: 50ms", "age: 1h"))
    world.produce(30)
    everything = records(world)
    with daemon(world, path) as child:
        child.records(everything)
        child.signal(signal.SIGTERM)
        child.signal(signal.SIGINT)
        assert child.ask("shutdownRequested") == [(everything[-1]["sequenceNumber"], everything[-1]["subSequenceNumber"])]
        child.ask("leaseLost")
        assert child.close() == 0
    world.exact()


def test_a_shutdown_request_seals_what_our_own_client_is_still_reading_again(world, path):
    """The first delivery is read again by our own client, which may be slower than the daemon."""
    path.write_text(path.read_text().replace("age: 50ms", "age: 1h"))
    world.produce(30)
    everything = records(world)
    world.misbehave({"operation": "GetRecords", "action": "delay", "seconds": 3 * NUDGE_SECONDS})
    with daemon(world, path) as child:
        child.records(everything)
        assert child.ask("shutdownRequested") == [(everything[-1]["sequenceNumber"], everything[-1]["subSequenceNumber"])]
        assert child.close() == 0
    assert world.faults_left() == []
    world.exact()


def test_the_successor_of_a_killed_child_repeats_nothing(world, path):
    world.produce(150)
    everything = records(world)
    half = everything[:70]
    with daemon(world, path) as child:
        child.records(half)
        child.until(lambda: world.sealed_units() > 0)
        child.kill()
    with daemon(world, path) as child:
        child.records(everything)
        until_committed(child, world)
        assert child.close() == 0
    world.exact()


def test_records_that_the_daemon_skipped_are_read_from_the_stream(world, path):
    """A checkpoint of another application, or LATEST while the log begins at the horizon."""
    world.produce(120)
    everything = records(world)
    with daemon(world, path, sequence=everything[60]["sequenceNumber"]) as child:
        child.records([each for each in everything if int(each["sequenceNumber"]) > int(everything[60]["sequenceNumber"])])
        until_committed(child, world)
        assert child.close() == 0
    world.exact()


def test_user_records_that_the_kcl_drops_from_an_aggregate_are_not_lost(world, path):
    """After a split the KCL drops an aggregate from the first record on that is another shard's."""
    world.split()
    left, right = "shardId-000000000001", "shardId-000000000002"
    users = [UserRecord(f"k{number}", None, b'{"id": 1, "kind": "a", "value": 2}') for number in range(12)]
    world.put([{"Data": aggregate(users), "PartitionKey": "k1"}, {"Data": b'{"id": 1, "kind": "b"}', "PartitionKey": "k1"}], 13)
    shard = next(each for each in (left, right) if records(world, each))
    kept = records(world, shard)
    with daemon(world, path, shard) as child:
        child.records([*kept[:2], kept[-1]])
        child.until(lambda: world.sealed_units() > 0 and child.checkpoints != [])  # the parent is not read
        assert child.close() == 0
    (unit,) = [manifest for manifest in world.manifests() if manifest["kind"] == "unit"]
    assert unit["records"] == 13
    assert unit["outcomes"]["out_of_range"] > 0


def test_a_lost_lease_ends_the_work_without_a_checkpoint(world, path):
    path.write_text(path.read_text().replace("age: 50ms", "age: 1h"))
    world.produce(30)
    with daemon(world, path) as child:
        child.records(records(world))
        assert child.ask("leaseLost") == []
        assert child.close() == 0
        assert child.checkpoints == []
    assert world.sealed_units() == 0


def test_a_refused_checkpoint_is_requested_again(world, path):
    world.produce(60)
    everything = records(world)
    with daemon(world, path) as child:
        child.refuse = ["ThrottlingException"]
        child.records(everything)
        until_committed(child, world)
        assert child.refuse == []
        assert child.close() == 0
    world.exact()


def test_a_halted_shard_keeps_answering_and_confirms_nothing(world, path):
    path.write_text(path.read_text().replace("min_records: 100000", "min_records: 1, max_ratio: 0.01").replace("min_records: 100_000", ""))
    world.put_all([b"{"] * 20)
    with daemon(world, path) as child:
        child.records(records(world))
        child.until(lambda: "shard_halted" in child.said())
        for _ in range(3):
            assert child.records([]) == []
        assert child.ask("shardEnded") == []
        assert child.ask("shutdownRequested") == []
        assert child.close() == 0


def test_output_printed_by_a_library_does_not_reach_the_daemon(world, path):
    (world.folder / "noisy.py").write_text(
        "print('import says hello')\n\n\ndef keep(frame):\n    print('so does the call')\n    return frame\n"
    )
    path.write_text(path.read_text().replace("sinks:", "  - python: noisy:keep\nsinks:"))
    world.environment = {**world.environment, "PYTHONPATH": str(world.folder)}
    world.produce(20)
    with daemon(world, path) as child:
        child.records(records(world))
        until_committed(child, world)
        assert child.close() == 0
    assert "so does the call" in child.said()


def test_a_line_that_is_not_a_message_ends_the_child_with_an_error(world, path):
    with daemon(world, path) as child:
        child.send({"action": "unheard of"})
        assert child.receive() is None
        assert child.exit() == 1
        assert "not a known message" in child.said()
        assert "Traceback" not in child.said()


@pytest.mark.parametrize(("level", "emitted"), [("debug", {"unit_cut", "unit_sealed"}), ("info", {"unit_sealed"}), ("warning", set())])
def test_a_child_logs_at_the_level_in_the_daemons_environment(world, path, level, emitted):
    world.environment["STREAM_LOG_LEVEL"] = level
    world.produce(30)
    with daemon(world, path) as child:
        child.records(records(world))
        until_committed(child, world)
        assert child.close() == 0
        said = child.said()
    assert {event for event in ("unit_cut", "unit_sealed") if f'"event":"{event}"' in said} == emitted


def test_a_daemon_that_dies_during_a_checkpoint_is_not_an_error_of_the_child(world, path):
    world.produce(60)
    with daemon(world, path) as child:
        child.records(records(world))
        while child.begin("processRecords", records=[], millisBehindLatest=0) != "checkpoint":
            pass
        assert child.die() == 0
    assert "worker_failed" not in child.said()


def test_a_daemon_that_dies_while_the_child_works_is_not_an_error_of_the_child(world, path):
    world.produce(60)
    with daemon(world, path) as child:
        child.send({"action": "processRecords", "records": records(world), "millisBehindLatest": 0})
        assert child.die() == 0
    assert "worker_failed" not in child.said()


class ImpatientClock(SystemClock):
    """A clock that sleeps for a moment only, however long the request."""

    async def sleep(self, seconds: float) -> None:
        await super().sleep(min(seconds, 0.01))


class SentMessages(io.BytesIO):
    """The messages that the child writes, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    def write(self, line: Any) -> int:
        self.messages.put_nowait(json.loads(line))
        return len(line)


def test_a_failing_list_of_shards_does_not_end_the_child(world, path, monkeypatch):
    """The daemon would end with its child, and with it every other shard of the daemon."""
    for name, value in world.environment.items():
        monkeypatch.setenv(name, value)
    world.produce(30)
    everything = records(world)
    pipeline = check(path, world.environment).pipeline
    assert pipeline is not None

    async def serve():
        lines, said, progress, emitted = asyncio.StreamReader(limit=2**20), SentMessages(), Progress(), []
        emit = to_all(progress, emitted.append)

        async def ask(action: str, **members: Any) -> None:
            lines.feed_data(json.dumps({"action": action, **members}).encode() + b"\n")
            while (message := await said.messages.get())["action"] == "checkpoint":
                lines.feed_data(b'{"action":"checkpoint","error":null}\n')
            assert message == {"action": "status", "responseFor": action}

        async with AsyncExitStack() as stack:
            options = WorkerOptions(path.parent, world.environment, 5.0, 1, clock=ImpatientClock())
            (stream,) = await assemble(pipeline, options, emit, ObservableEvent(), stack)
            await asyncio.to_thread(world.misbehave, {"operation": "ListShards", "action": "error500", "times": 12})
            async with asyncio.TaskGroup() as group:
                group.create_task(Child(Daemon(lines, said), stream, progress, emit, 5.0).run())
                await ask("initialize", shardId=SHARD, sequenceNumber="TRIM_HORIZON", subSequenceNumber=0)
                await ask("processRecords", records=everything, millisBehindLatest=0)
                await ask("shutdownRequested")
                lines.feed_eof()
        return [event.call for event in emitted if isinstance(event, CallRepeated)]

    assert "run shard" in asyncio.run(asyncio.wait_for(serve(), 120))
    world.exact()


@contextmanager
def refused(world, moto_url, bucket, halts):
    """A child that has committed, and to which S3 was refused ``halts`` times since then, with records that wait for that.

    Yields the child, the gate at which S3 is refused, the pipeline, and the records that were committed before.
    """
    world.s3, world.bucket, world.place = client("s3", moto_url), bucket, f"s3://{bucket}/"
    world.s3.create_bucket(Bucket=bucket)
    path = world.pipeline(age="50ms")
    path.write_text(path.read_text() + "coordination: kcl\n")
    with gateway(moto_url) as (url, gate):
        world.environment = {**world.environment, "AWS_ENDPOINT_URL_S3": url}
        world.produce(40)
        with daemon(world, path) as child:
            first = records(world)
            child.records(first)
            until_committed(child, world)
            gate.rules.append(refuses("", DENIED))
            world.produce(40)
            child.records(records(world)[len(first) :])
            child.until(lambda: child.said().count('"event":"shard_halted"') >= halts)
            yield child, gate, path, first


def test_while_access_is_refused_the_child_lives_says_why_and_goes_on_by_itself(world, moto_url):
    """Ending it would end every shard of the daemon."""
    with refused(world, moto_url, "multilang-refused", halts=3) as (child, gate, _, _):
        assert "AccessDenied" in child.said()
        assert "goes on by itself" in child.said()
        gate.rules.clear()
        until_committed(child, world)
        assert child.ask("shutdownRequested") == []
        child.ask("leaseLost")
        assert child.close() == 0
    world.exact()
    world.s3.close()


def test_a_child_that_waits_for_access_answers_a_request_to_shut_down(world, moto_url):
    with refused(world, moto_url, "multilang-drained", halts=2) as (child, gate, path, first):
        child.ask("shutdownRequested")
        child.ask("leaseLost")
        assert child.close() == 0
        gate.rules.clear()
        with daemon(world, path, sequence=first[-1]["sequenceNumber"]) as after:
            after.records(records(world)[len(first) - 1 :])
            until_committed(after, world)
            assert after.close() == 0
    world.exact()
    world.s3.close()
