"""Whatever dies, whenever: the next worker brings the lake to what the stream says. One test for each point a worker can die at."""

from __future__ import annotations

import pytest

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
def test_a_worker_that_dies_leaves_nothing_undone_and_nothing_twice(world, at):
    world.produce(900)
    path = world.pipeline()
    world.crash(path, at)
    world.finish(path)
    world.exact()
