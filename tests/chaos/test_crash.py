"""A worker is killed at each point at which it can die; the next one must bring the lake to what the stream says."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.chaos.oracle import Definition
from tests.chaos.world import KNOWN
from tests.forked import ROOT

POINTS = [
    "WorkerStarted",
    "ShardStarted",
    "ShardStarted:2",
    "PageReceived",
    "PageReceived:5",
    "UnitCut",
    "UnitCut:3",
    "StageApplied",
    "IntentCreated",
    "IntentCreated:2",
    "IntentCreated:4",
    "FileWritten",
    "FileWritten:2",
    "FileWritten:3",
    "FileWritten:4",
    "FileWritten:5",
    "FileWritten:9",
    "ManifestSealed",
    "ManifestSealed:3",
    "Checkpointed",
    "Checkpointed:3",
    "UnitSealed",
    "UnitSealed:4",
    "RecoveryFinished",
    "RecoveryFinished:2",
    "RecordsRejected",
]


@pytest.mark.parametrize("at", POINTS)
def test_after_a_worker_dies_the_next_one_completes_its_work_without_duplicates(world, at):
    world.produce(900)
    path = world.pipeline()
    world.crash(path, at)
    world.finish(path)
    world.exact()


@pytest.mark.parametrize("at", ["ShardEnded", "ManifestSealed:2", "ManifestSealed:4", "RecoveryFinished:3", "Checkpointed:3"])
@pytest.mark.parametrize("change", ["split", "merge"])
def test_a_worker_that_dies_during_a_reshard_loses_nothing(make_world, change, at):
    world = make_world(2)
    world.produce(250)
    world.split() if change == "split" else world.merge()
    world.produce(250)
    path = world.pipeline()
    world.crash(path, at)
    world.finish(path)
    outcomes = world.exact().outcomes
    assert outcomes["out_of_range"]
    assert len(world.judge().rows) == outcomes["written"]


@pytest.mark.parametrize("first", ["IntentCreated:2", "FileWritten:2"])
@pytest.mark.parametrize("second", ["IntentAdopted", "FileWritten", "ManifestSealed", "Checkpointed", "RecoveryFinished"])
def test_a_worker_that_dies_during_recovery_loses_nothing(world, first, second):
    world.produce(400)
    path = world.pipeline()
    world.crash(path, first)
    world.crash(path, second)
    world.finish(path)
    world.exact()


MASK = "  - mask: {columns: [note], method: keyed_hash, key: {env: MASK_KEY}}"
MASKED = Definition(KNOWN.mark, KNOWN.keeps, masked=frozenset({"note"}))


@pytest.mark.parametrize("second", [None, "IntentAmended", "FileWritten", "FileWritten:3", "ManifestSealed", "LeftoversRemoved"])
def test_an_intent_that_cannot_be_reproduced_is_replaced_and_its_files_are_removed(make_world, second):
    world = make_world(1)
    world.produce(300)
    path = world.pipeline(stages=MASK)
    world.crash(path, "IntentCreated", MASK_KEY="before")
    if second is not None:
        world.crash(path, second, MASK_KEY="after")
    world.finish(path, MASK_KEY="after")
    world.exact(MASKED)
    assert any(manifest.get("superseded") for manifest in world.manifests())


def test_missing_and_half_written_files_are_written_again(make_world):
    world = make_world(1)
    world.produce(300)
    path = world.pipeline()
    world.crash(path, "FileWritten:5")
    (intent,) = [manifest for manifest in world.manifests() if manifest["state"] == "intent"]
    missing, half = [world.folder / "lake" / file["key"] for file in intent["files"] if file["sink"] == "s3"][:2]
    missing.unlink(missing_ok=True)
    half.parent.mkdir(parents=True, exist_ok=True)
    half.write_bytes(b"PAR1")
    world.finish(path)
    world.exact()


def test_three_deaths_in_a_row_with_new_records_and_reshards_lose_nothing(world):
    path = world.pipeline()
    for at, change in (("IntentCreated:2", world.split), ("FileWritten:4", world.merge), ("ManifestSealed:2", world.split)):
        world.produce(300)
        world.crash(path, at)
        change()
    world.produce(100)
    world.finish(path)
    world.exact()


@pytest.mark.parametrize("at", ["IntentCreated:2", "FileWritten:3", "ManifestSealed"])
def test_a_worker_that_dies_with_all_objects_on_s3_loses_nothing(make_world, at):
    world = make_world(2, s3=True)
    world.produce(500)
    path = world.pipeline()
    world.crash(path, at)
    world.finish(path)
    world.exact()


def test_the_crash_module_runs_as_a_program(world):
    world.produce(100)
    command = [sys.executable, "-m", "stream.testing.crash", "--at", "IntentCreated", str(world.pipeline())]
    environment = {**os.environ, **world.environment, "PYTHONPATH": str(ROOT)}
    assert subprocess.run(command, env=environment, capture_output=True, check=False).returncode == -9
    assert [manifest["state"] for manifest in world.manifests() if manifest["kind"] == "unit"] == ["intent"]
