"""The function under the AWS runtime interface client, unmodified, and a Runtime API on loopback: with S3, killed, and without memory."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.chaos.world import World
from tests.invocations import event_of, held
from tests.runtime_api import RuntimeApi, Sandbox

SHARD = "shardId-000000000000"


@pytest.fixture
def world(make_world: Any) -> World:
    made: World = make_world(1, s3=True)
    return made


def delivered(world: World, first: int = 0, last: int | None = None) -> dict[str, Any]:
    return event_of(world.stream, SHARD, held(world.client, world.stream, SHARD)[first:last])


def lines(sandbox: Sandbox) -> list[dict[str, Any]]:
    return [json.loads(line) for line in sandbox.said().splitlines() if line.startswith("{")]


def test_the_runtime_client_of_aws_runs_the_pipeline(world):
    world.pipeline()
    world.produce(150)
    with RuntimeApi() as api, Sandbox(api, world.folder, world.environment, world.folder / "one.log", python=True) as sandbox:
        half = len(delivered(world)["Records"]) // 2
        assert sandbox.invoke(delivered(world, last=half)).body == {"batchItemFailures": []}
        world.produce(80)
        assert sandbox.invoke(delivered(world)).body == {"batchItemFailures": []}
        assert sandbox.invoke(delivered(world, first=half)).body == {"batchItemFailures": []}
        said = lines(sandbox)
    world.exact()
    metrics = [line for line in said if "_aws" in line]
    assert sum(line.get("records", 0) for line in metrics) == world.put_so_far
    assert {line["stream"] for line in metrics} == {world.stream}
    assert {manifest["sealed_by"] for manifest in world.manifests() if manifest["kind"] == "unit"} == {"2026/11/26/[$LATEST]one"}


def test_a_function_that_is_killed_half_way_is_followed_by_one_that_repeats_nothing(world):
    world.pipeline()
    world.produce(150)
    told_of = delivered(world)
    with RuntimeApi() as api:
        for at, event in enumerate(("intent_created", "file_written", "manifest_sealed")):
            world.produce(40)
            with Sandbox(
                api, world.folder, {**world.environment, "STREAM_LOG_LEVEL": "debug"}, world.folder / f"killed-{at}.log"
            ) as sandbox:
                sandbox.begin(delivered(world))
                sandbox.until(lambda said, event=event: f'"event":"{event}"' in said)
                sandbox.kill()
            while not api.answers.empty():
                api.answers.get()
        with Sandbox(api, world.folder, world.environment, world.folder / "last.log") as sandbox:
            assert sandbox.invoke(told_of).ok
            assert sandbox.invoke(delivered(world)).body == {"batchItemFailures": []}
    world.exact()


@pytest.mark.parametrize(
    ("event", "words"),
    [
        ({"key1": "value1"}, "neither of an event source mapping for a Kinesis stream"),
        ({"Records": [{"eventSource": "aws:sqs", "body": "x"}]}, "a record has no 'eventSourceARN'"),
    ],
)
def test_an_event_that_is_none_is_an_error_in_words(world, event, words):
    world.pipeline()
    with RuntimeApi() as api, Sandbox(api, world.folder, world.environment, world.folder / "bad.log") as sandbox:
        answer = sandbox.invoke(event)
    assert not answer.ok
    assert answer.body["errorType"] == "DefinitionError"
    assert words in answer.body["errorMessage"]


def test_a_pipeline_that_cannot_be_run_by_a_function_is_refused_in_words(world):
    path = world.pipeline(place="file:")
    world.produce(5)
    with RuntimeApi() as api, Sandbox(api, world.folder, world.environment, world.folder / "disk.log") as sandbox:
        answer = sandbox.invoke(delivered(world))
        assert "state is at file:state/, on the function's own disk" in answer.body["errorMessage"]
        path.write_text(path.read_text().replace("flush:", "flsh:"))
        assert "flsh" in sandbox.invoke(delivered(world)).body["errorMessage"]


def test_a_bucket_that_is_missing_is_an_error_and_the_same_function_works_once_it_is_there(world):
    world.pipeline(lake="s3://not-there-yet/lake/")
    world.produce(30)
    with RuntimeApi() as api, Sandbox(api, world.folder, world.environment, world.folder / "bucket.log") as sandbox:
        answer = sandbox.invoke(delivered(world))
        assert not answer.ok
        assert "not-there-yet" in answer.body["errorMessage"]
        # The client adds one line of ours to the error's words, and no more.
        assert sandbox.said().count('File "') == 1
        world.s3.create_bucket(Bucket="not-there-yet")
        assert sandbox.invoke(delivered(world)).body == {"batchItemFailures": []}


def test_a_schedule_needs_no_mapping(world):
    world.pipeline()
    world.produce(60)
    event = {"version": "0", "detail-type": "Scheduled Event", "source": "aws.events", "account": "1", "resources": [], "detail": {}}
    with RuntimeApi() as api, Sandbox(api, world.folder, world.environment, world.folder / "scheduled.log") as sandbox:
        assert sandbox.invoke(event).body == {"left": []}
    world.exact()
