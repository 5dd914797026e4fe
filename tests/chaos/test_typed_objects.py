"""Workers that are killed in the middle of objects of JSON values, Parquet, Arrow and Avro: the next one goes on there."""

from __future__ import annotations

import signal

import pytest

from tests.chaos.workers import Worker, clean
from tests.forked import prepare
from tests.integration.test_replay import place, truth, written  # noqa: F401 - the fixture
from tests.integration.test_typed_objects import FORMATS, put

ROWS = 150_000
"""So many that an object is several pages, and its units end inside of it."""


@pytest.fixture(autouse=True)
def _forked():
    prepare()


@pytest.fixture
def start(place):  # noqa: F811 - the fixture
    workers = []

    def started(*options):
        worker = Worker([*options, "--once", str(place.file())], {}, place.folder / f"worker-{len(workers)}.log")
        workers.append(worker)
        return worker

    yield started
    for worker in workers:
        worker.end()


@pytest.mark.parametrize("point", ["IntentCreated:2", "ManifestSealed:2"])
@pytest.mark.parametrize("name", FORMATS)
def test_a_worker_that_is_killed_in_the_middle_of_an_object_leaves_nothing_out_and_nothing_twice(place, start, name, point):  # noqa: F811
    made, key, options = FORMATS[name]
    place.settings = {"s3": f"{options}, shards: 1, watch: {{}}", "rows": 1000}
    put(place, f"1/{key}", made(range(ROWS), 20_000))
    put(place, f"2/{key}", made(range(ROWS, ROWS + 100), 20_000))
    killed = start("--at", point)
    assert killed.exit() == -signal.SIGKILL, killed.said()
    before = set(written(place)["id"])
    assert 0 < len(before) < ROWS
    again = start()
    assert again.exit() == 0, again.said()
    assert clean(again.said())
    assert written(place).equals(truth(range(ROWS + 100)))
    assert before <= set(written(place)["id"])
    assert place.proof() == []
