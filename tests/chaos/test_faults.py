"""Workers while Kinesis fails, and signals to healthy workers."""

from __future__ import annotations

import json
import signal

import pytest

from tests.chaos.workers import clean

FAULTS = {
    "throttled": [{"operation": "GetRecords", "action": "throttle", "times": 3}],
    "iterators expire": [{"operation": "GetRecords", "action": "expire_iterator", "times": 2, "skip": 1}],
    "errors": [
        {"operation": "GetRecords", "action": "error500", "times": 2},
        {"operation": "GetShardIterator", "action": "error500", "times": 2},
        {"operation": "ListShards", "action": "error500", "times": 1},
    ],
    "pages come twice": [{"operation": "GetRecords", "action": "duplicate_page", "times": 4}],
    "replies break off": [{"operation": "GetRecords", "action": "truncate", "times": 3, "skip": 1}],
    "connections close": [
        {"operation": "GetRecords", "action": "close_after_apply", "times": 2, "skip": 1},
        {"operation": "GetRecords", "action": "close_before_reply", "times": 1},
    ],
    "pages are empty": [{"operation": "GetRecords", "action": "empty_page", "times": 3}],
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_of_the_service_is_survived(world, fault):
    world.produce(500)
    world.split()
    world.produce(100)
    world.misbehave(*FAULTS[fault])
    world.finish(world.pipeline())
    assert not world.faults_left()
    world.exact()


def test_a_worker_that_dies_amid_faults_of_the_service_loses_nothing(world):
    world.produce(500)
    path = world.pipeline()
    world.misbehave({"operation": "GetRecords", "action": "duplicate_page", "times": 2}, *FAULTS["throttled"])
    world.crash(path, "IntentCreated:2")
    world.misbehave(*FAULTS["iterators expire"], *FAULTS["pages come twice"], *FAULTS["replies break off"])
    world.finish(path)
    world.exact()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_under_load_drains_and_the_next_worker_repeats_nothing(world, number):
    path = world.pipeline(age="30s")
    world.produce(800)
    first = world.start(path)
    first.until(lambda: world.sealed_units() >= 1)
    world.produce(400)
    first.signal(number)
    assert first.exit() == 0
    assert clean(first.said())
    assert all(manifest["state"] == "sealed" for manifest in world.manifests())
    world.exact(whole=False)
    world.pipeline()
    second = world.finish(path)
    lines = [json.loads(line) for line in second.said().splitlines()]
    assert [line["units_followed"] for line in lines if line["event"] == "recovery_finished"] == [0, 0]
    world.exact()


def test_a_drain_that_runs_out_of_time_loses_nothing(world):
    world.produce(500)
    path = world.pipeline(age="30s")
    worker = world.start(path, "--drain", "0")
    worker.until(lambda: bool(world.manifests()))
    assert worker.drain() == 1
    assert clean(worker.said())
    last = json.loads(worker.said().splitlines()[-1])
    assert (last["level"], last["event"]) == ("error", "worker_failed")
    assert last["reason"].startswith("work in progress was not sealed and its checkpoints stored within 0 s")
    world.pipeline()
    world.finish(path)
    world.exact()


def test_a_signal_before_the_first_record_ends_cleanly(world):
    worker = world.start(world.pipeline())
    worker.until(lambda: "worker_started" in worker.said())
    assert worker.drain() == 0
    assert clean(worker.said())
