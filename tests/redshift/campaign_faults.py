"""The loader is killed, connections are dropped, replies are lost, transactions are aborted: every row is in the table once."""

import json
import os
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from tests.redshift.double.server import SERIALIZABLE, SNAPSHOT
from tests.redshift.faults import COMMITS, LOST_REPLIES, REQUESTS, STATEMENTS, Once, RandomFaults
from tests.redshift.loader import LoaderProcess
from tests.redshift.world import DELETES, VERSIONED, World

MODES = pytest.mark.parametrize("options", ["", DELETES], ids=["append", "upsert"])
UPSERT_STEPS = [("CREATE TEMP", 2), ("CREATE TEMP", 3), ("DELETE", 1), ("DELETE", 2), ("INSERT", 2), ("INSERT", 3), ("INSERT", 4)]
SEEDS = range(int(os.environ.get("REDSHIFT_SEEDS", "24")))
PATIENCE = 120.0
REPORT: Counter[str] = Counter()


@pytest.fixture(scope="module", autouse=True)
def report():
    """What went wrong in all, for the record: REDSHIFT_REPORT names a file."""
    yield
    if path := os.environ.get("REDSHIFT_REPORT"):
        Path(path).write_text(json.dumps(dict(sorted(REPORT.items())), indent=2) + "\n")


def one_more_loaded(make_world, options) -> World:
    """A world in which something is in the table already and more waits."""
    world = make_world(options=options)
    world.seal({0: 2, 1: 1})
    assert world.load()
    world.seal({0: 2, 1: 2, 2: 1})
    return world


@MODES
@pytest.mark.parametrize("point", [*REQUESTS, *STATEMENTS, *COMMITS, "BatchExecuteStatement:reply", "DescribeStatement:reply"])
def test_a_killed_loader_leaves_nothing_half_loaded_or_duplicated(make_world, redshift, options, point):
    world = one_more_loaded(make_world, options)
    process = None

    def kill():
        process.kill()
        return ""

    redshift.hook = fault = Once(point, kill)
    process = LoaderProcess(world.text, Path(), world.environment(), "victim")
    try:
        assert process.wait(PATIENCE) == -9
    finally:
        process.close()
    assert fault.happened.is_set()
    REPORT[f"kill at {point}"] += 1
    world.load_until_done()
    world.assert_exactly_once()


@pytest.mark.parametrize(("step", "occurrence"), UPSERT_STEPS)
def test_a_loader_killed_during_an_upsert_leaves_the_right_rows(make_world, redshift, step, occurrence):
    world = one_more_loaded(make_world, DELETES)
    process = None

    def kill():
        process.kill()
        return ""

    redshift.hook = Once(f"statement:{step}", kill, occurrence=occurrence)
    process = LoaderProcess(world.text, Path(), world.environment(), "victim")
    try:
        assert process.wait(PATIENCE) == -9
    finally:
        process.close()
    REPORT[f"kill at statement:{step} {occurrence}"] += 1
    world.load_until_done()
    world.assert_exactly_once()


@MODES
@pytest.mark.parametrize("at", ["LoadsWaiting:1", "UnitsLoaded:1", "LoadsWaiting:2"])
def test_a_loader_that_dies_between_loads_loses_nothing(make_world, options, at):
    world = one_more_loaded(make_world, options)
    process = LoaderProcess(world.text, Path(), world.environment(), "victim", at=at)
    try:
        assert process.wait(PATIENCE) == -9
    finally:
        process.close()
    REPORT[f"kill at {at}"] += 1
    world.load_until_done()
    world.assert_exactly_once()


@MODES
@pytest.mark.parametrize("point", [*REQUESTS, *LOST_REPLIES])
def test_a_dropped_connection_costs_only_a_repetition(make_world, redshift, options, point):
    world = one_more_loaded(make_world, options)
    redshift.hook = fault = Once(point, lambda: "drop")
    world.load_until_done()
    assert fault.happened.is_set()
    REPORT[f"drop at {point}"] += 1
    world.assert_exactly_once()


@MODES
def test_the_ledger_prevents_duplicates_when_reply_and_token_are_lost(make_world, redshift, options):
    """The call is made again with a token that the API no longer knows: only the ledger keeps the rows from coming twice."""
    world = one_more_loaded(make_world, options)
    redshift.hook, redshift.forget_tokens = Once("BatchExecuteStatement:reply", lambda: "drop"), True
    batches = len(redshift.batches)
    world.load_until_done()
    assert len(redshift.batches) > batches + 1
    REPORT["drop at BatchExecuteStatement:reply, token forgotten"] += 1
    world.assert_exactly_once()


@MODES
@pytest.mark.parametrize("reported", ["abort", "1023"])
@pytest.mark.parametrize("point", [*STATEMENTS, "commit:before"])
def test_an_aborted_transaction_is_repeated(make_world, redshift, options, point, reported):
    world = one_more_loaded(make_world, options)
    redshift.hook = fault = Once(point, lambda: reported)
    assert not world.load()
    assert fault.happened.is_set()
    REPORT[f"{reported} at {point}"] += 1
    world.load_until_done()
    world.assert_exactly_once()


@MODES
def test_a_busy_database_is_tried_again(make_world, redshift, options):
    world = one_more_loaded(make_world, options)
    redshift.hook = Once("BatchExecuteStatement:begin", lambda: "busy")
    assert world.load()
    world.assert_exactly_once()


@pytest.mark.parametrize("options", ["", DELETES, VERSIONED], ids=["append", "upsert", "versioned"])
@pytest.mark.parametrize("seed", SEEDS)
def test_two_loaders_without_a_lease_load_every_unit_once_amid_faults(make_world, redshift, options, seed):
    """Nobody holds a lease, both load the same units at once, and one or both are killed at random points."""
    rng = Random(seed)
    world = make_world(options=options + f"      units: {rng.choice([1, 2, 3, 200])}\n", seed=seed)
    world.seal({shard: rng.randrange(1, 4) for shard in range(rng.randrange(1, 4))}, rows=rng.choice([1, 5, 30]))
    processes = []
    faults = RandomFaults(rng, rng.randrange(1, 10), lambda: rng.choice(processes).kill())
    processes += [LoaderProcess(world.text, Path(), world.environment(), f"loader-{n}", leased=False) for n in range(2)]
    redshift.hook, redshift.forget_tokens = faults, rng.random() < 0.3
    redshift.isolation = rng.choice([SNAPSHOT, SERIALIZABLE])
    try:
        for _ in range(int(PATIENCE / 0.2)):
            processes[0].wait(0.1)
            processes[1].wait(0.1)
            if not any(process.alive for process in processes) or _ledger(world) == world.heads():
                break
    finally:
        for process in processes:
            process.close()
    REPORT.update(faults.done)
    redshift.hook = lambda point: ""
    world.load_until_done()
    assert world.ledger() == world.heads()
    world.assert_exactly_once()


def _ledger(world):
    there = world.query(f"SELECT to_regclass('{world.table}__loads') IS NOT NULL")[0][0]
    return world.ledger() if there else {}
