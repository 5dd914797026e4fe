"""The commit protocol under random and under all schedules. A failure prints the seed that replays it."""

from __future__ import annotations

import os
from bisect import bisect
from collections import Counter
from random import Random

import pytest

from stream.commit import recovery
from stream.commit.manifest import Kind
from stream.errors import Halted
from tests.simulation.schedule import DATA, World, judge, manifests, run_schedule
from tests.simulation.world import Records, SeededChooser, Version

SEEDS = int(os.environ.get("STREAM_SIMULATION_SEEDS", "20000"))
BATCHES = 8
MUTANT_SEEDS = 2000
MUTANTS = (
    "no_seal",
    "blind_seal",
    "no_create_only",
    "checkpoint_before_write",
    "seal_before_write",
    "delete_before_seal",
    "unpinned",
    "cut_inside_aggregate",
    "same_names",
)


def build(seed: int, mutant: str = "") -> tuple[World, list[Version]]:
    """A stream, a fleet and a fault rate, all from ``seed``: half of the fleets reshard, a third run one build only, some three."""
    random = Random(seed)
    shards = {"p": _records(random, 1)}
    parents: dict[str, tuple[str, ...]] = {}
    if random.random() < 0.5:
        shards |= {"a": _records(random, 100), "b": _records(random, 100)}
        parents |= {"a": ("p",), "b": ("p",)}
        if random.random() < 0.5:
            shards["m"] = _records(random, 200)
            parents["m"] = ("a", "b")
    builds = 1 + bisect((0.34, 0.8), random.random())
    versions = [Version(definition, build) for definition in (1, 2) for build in range(1, builds + 1)]
    return World(SeededChooser(seed, random.choice((0.0, 0.05, 0.2))), shards, parents, mutant), versions


def _records(random: Random, first: int) -> Records:
    count = random.randrange(1, 7)
    return Records({first + 3 * number: random.choice((1, 1, 1, 3)) for number in range(count)})


def simulate(seed: int, mutant: str = "") -> tuple[World, int]:
    world, versions = build(seed, mutant)
    try:
        run_schedule(world, versions, steps=Random(seed + 1).randrange(20, 160))
        one_build = len({version.build for version in versions}) == 1
        return world, judge(world, strict_listing=one_build)
    finally:
        for process in world.processes:
            process.kill()


HINTS = ("lost", "older", "set_back", "elsewhere")
"""What becomes of checkpoints, on which nothing may rely."""


@pytest.mark.parametrize("batch", range(BATCHES))
def test_every_schedule_commits_each_record_once(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "MANY_LINKS", 2 if batch % 2 else recovery.MANY_LINKS)
    leftovers, faults, tips = 0, Counter[str](), 0
    for seed in range(batch, SEEDS, BATCHES):
        try:
            world, extra = simulate(seed)
        except Exception as error:
            raise AssertionError(f"seed {seed} (replay: simulate({seed})): {error}") from error
        leftovers, faults, tips = leftovers + extra, faults + world.faults, tips + len(world.tips)
    assert min(tips, *(faults[what] for what in ("kill", *HINTS))) > 0
    # Only a file that arrives after its worker died and its replacement was cleaned up may stay: found by `audit verify`, never read by
    # whoever follows manifests.
    assert leftovers <= 0.05 * SEEDS / BATCHES


@pytest.mark.parametrize("batch", range(BATCHES))
def test_rewinds_skips_and_foreign_workers_keep_every_chain_whole(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Operators and a Java KCL with the same leases act at any moment; the log has what they did, and each record counts once."""
    monkeypatch.setattr(recovery, "MANY_LINKS", 2 if batch % 2 else recovery.MANY_LINKS)
    moved: Counter[str] = Counter()
    for seed in range(batch, SEEDS // 4, BATCHES):
        try:
            world, versions = build(seed)
            world.moving = True
            run_schedule(world, versions, steps=Random(seed + 1).randrange(20, 160))
            judge(world, strict_listing=False)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error!r}") from error
        finally:
            for process in world.processes:
                process.kill()
        moved += world.moved
        moved += Counter(manifest.kind.value for _, manifest in manifests(world))
    assert min(moved[kind] for kind in ("rewind", "skip", "foreign", "operator")) > 0


@pytest.mark.parametrize("batch", range(BATCHES))
def test_moving_and_renaming_sinks_still_commits_each_record_once(batch: int) -> None:
    """Workers with three definitions, whose sink differs in URL and name, run at a time: each finishes what others began."""
    finished: Counter[str] = Counter()
    for seed in range(batch, SEEDS // 8, BATCHES):
        try:
            world, versions = build(seed)
            world.sinks = {2: ("data", "sea/"), 3: ("lake", "")}
            versions += [Version(3, version.build) for version in versions if version.definition == 1]
            one_build = len({version.build for version in versions}) == 1
            run_schedule(world, versions, steps=Random(seed + 1).randrange(20, 160))
            judge(world, strict_listing=one_build)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error!r}") from error
        finally:
            for process in world.processes:
                process.kill()
        for _, manifest in manifests(world):
            sink, folder = world.sink(int(manifest.pipeline or 1))
            assert manifest.targets.get(sink, DATA + folder) == DATA + folder
            finished[folder + sink] += manifest.kind is Kind.UNIT
    assert min(finished[place] for place in ("data", "sea/data", "lake")) > 0


@pytest.mark.parametrize("mutant", MUTANTS)
def test_each_planted_mutant_is_caught(mutant: str) -> None:
    for seed in range(MUTANT_SEEDS):
        try:
            simulate(seed, mutant)
        except (AssertionError, Halted):
            return
    pytest.fail(f"{mutant} survived {MUTANT_SEEDS} schedules")
