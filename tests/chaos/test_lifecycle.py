"""Where a pipeline starts, and how it continues after the pipeline or the stream changed while no worker ran."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

from stream.clock import SystemClock
from tests.chaos.truth import read_stream


def test_latest_starts_after_the_existing_records_and_restarts_continue_from_there(world):
    world.produce(200)
    path = world.pipeline(start="latest")
    before = {(shard, each.sequence) for shard, truth in read_stream(world.client, world.stream).items() for each in truth.records}
    begun = SystemClock().now()
    first = world.start(path)
    first.until(lambda: first.said().count("shard_started") >= 2)
    world.put_so_far = 0
    pinned = datetime.fromisoformat(json.loads(world.objects()[f"state/chaos/starts/{world.stream}.json"])["timestamp"])
    assert begun - timedelta(minutes=1) < pinned <= SystemClock().now()
    world.produce(100)
    first.until(world.committed)
    assert first.drain() == 0
    world.produce(100)
    world.split()
    world.produce(100)
    world.finish(path)
    verdict = world.exact(begins=lambda record: all(record.sequence != sequence for _, sequence in before))
    assert sum(verdict.outcomes.values()) == world.put_so_far


def test_a_timestamp_starts_at_the_first_record_that_is_not_older(world):
    world.produce(150)
    old = {each.sequence for truth in read_stream(world.client, world.stream).values() for each in truth.records}
    last_old = _last_arrival(world)
    while SystemClock().now().timestamp() * 1000 < last_old + 5:
        pass
    moment = SystemClock().now()
    world.put_so_far = 0
    world.produce(150)
    world.finish(world.pipeline(start="{at_timestamp: '" + moment.isoformat(timespec="milliseconds") + "'}"))
    world.exact(begins=lambda record: record.sequence not in old)


def _last_arrival(world):
    latest = 0.0
    for shard_id in read_stream(world.client, world.stream):
        iterator = world.client.get_shard_iterator(StreamName=world.stream, ShardId=shard_id, ShardIteratorType="TRIM_HORIZON")
        records = world.client.get_records(ShardIterator=iterator["ShardIterator"])["Records"]
        latest = max([latest, *(each["ApproximateArrivalTimestamp"].timestamp() * 1000 for each in records)])
    return latest


def test_reshards_while_no_worker_runs_are_followed(world):
    world.produce(150)
    path = world.pipeline()
    world.finish(path)
    for change in (world.split, world.merge, world.split, world.merge, world.merge):
        change()
        world.produce(80)
    world.finish(path)
    world.exact()


def test_a_shard_that_closes_without_further_records_while_no_worker_runs_is_ended(world):
    world.produce(150)
    path = world.pipeline()
    world.finish(path)
    world.split()
    world.finish(path)
    world.finish(path)
    world.exact()


def test_a_stream_without_records_can_be_resharded_and_drained(world):
    worker = world.start(world.pipeline())
    worker.until(lambda: worker.said().count("shard_started") >= 2)
    world.split()
    worker.until(world.committed)
    assert worker.drain() == 0
    world.exact(whole=False)


def test_records_pushed_by_fan_out_are_committed_through_a_split(world):
    path = world.pipeline()
    path.write_text(path.read_text().replace("start: trim_horizon}", "start: trim_horizon, retrieval: fan_out, consumer: mine}"))
    world.produce(200)
    world.misbehave({"action": "truncate", "operation": "SubscribeToShard", "times": 2})
    worker = world.start(path)
    worker.until(world.committed)
    world.split()
    world.produce(200)
    worker.until(world.committed)
    assert worker.drain() == 0, worker.said()
    world.exact()
    assert '"to":"polling"' not in worker.said()
    arn = world.client.describe_stream_summary(StreamName=world.stream)["StreamDescriptionSummary"]["StreamARN"]
    assert [each["ConsumerName"] for each in world.client.list_stream_consumers(StreamARN=arn)["Consumers"]] == ["mine"]
