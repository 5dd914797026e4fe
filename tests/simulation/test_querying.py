"""`stream query` while real workers seal, die, are rewound and resharded. A failure names the seed that replays it."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import ClassVar

import pytest

from stream.audit.outputs import DamagedFileError
from stream.commit.manifest import State
from stream.contracts import shard_of_chain
from stream.operations.query import cuts
from stream.operations.query.contents import Queried
from stream.operations.query.cuts import ShardCut
from stream.simulation.fleet import Tools
from stream.simulation.schedule import Rewinding, draw
from tests.simulation.querying import Questioned, play, wrong
from tests.simulation.test_pipelines import LEASED, PIPELINE, SEVERAL, newer_than, subject

SEEDS = int(os.environ.get("STREAM_QUERYING_SEEDS", "12"))


@pytest.mark.parametrize(
    ("text", "newer", "seeds"),
    [(PIPELINE, False, SEEDS), (PIPELINE, True, SEEDS), (LEASED, True, SEEDS), (SEVERAL, True, SEEDS // 2)],
    ids=["one-file", "rolling-update", "leases", "several-streams"],
)
def test_every_answer_has_each_row_once_and_all_that_had_arrived(tmp_path, text, newer, seeds):
    one = subject(tmp_path, newer=newer, text=text, after=other_rows)
    rewinding = [seed for seed in range(40 * seeds) if any(isinstance(each, Rewinding) for each in draw(seed, one.possible).operations)]
    answers = mixed = rewound = resharded = both = 0
    for seed in [*range(seeds), *rewinding[: seeds // 3]]:
        world = play(Questioned(one, draw(seed, one.possible), Tools()))
        assert wrong(world) == [], f"seed {seed}"
        answers += len(world.asked)
        mixed += sum(any(s.sealed_rows and s.unsealed_rows for s in asked.contents.shards) for asked in world.asked)
        rewound += world.changes["rewound"]
        both += sum(two_definitions(world, asked) for asked in world.asked)
        resharded += world.changes["split"] + world.changes["merged"]
    assert answers > 5 * seeds
    assert mixed > 0, "answers of which no shard has rows of both kinds prove nothing about the boundary"
    assert resharded > 0
    # With leases, a schedule seals only a few units, most often all of one file.
    assert (both > 0) == newer or text == LEASED, "answers with units of both definitions"
    # While leases change hands, an operator is mostly refused.
    assert rewound > 0 or text != PIPELINE


def other_rows(text):
    """The pipeline file of a rolling update that also chooses other rows, so that a record may be in one definition's rows only."""
    return newer_than(text).replace("amount IS NOT NULL", "id % 3 <> 0")


def two_definitions(world, asked):
    """Whether some shard is sealed, as far as the answer says, by units of more than one definition."""
    sealed = world.units(asked.contents.stream, State.SEALED)
    reached = {shard.shard: shard.position for shard in asked.contents.shards}
    return len({unit.pipeline for unit in sealed if int(unit.last) <= reached.get(shard_of_chain(unit.shard)[0], 0)}) > 1


class ReadsOnFromLater(Queried):
    """Looks again where the sealed part ends before it reads on: what is sealed in between is missing."""

    async def _tails(self, cuts, listed, newest, bounds, room):
        return await super()._tails(await self._cuts(0, listed, bounds), listed, newest, bounds, room)


class ReadsOnFromEarlier(Queried):
    """Reads on from where the sealed part ended a moment ago: what was sealed since is there twice."""

    earlier: ClassVar[dict[str, ShardCut]] = {}

    async def _cuts(self, at, listed, bounds):
        self.earlier.clear()
        self.earlier.update(await super()._cuts(at, listed, bounds))
        now = await super()._cuts(at, listed, bounds)
        return {name: cut if name in self.earlier else self.earlier.setdefault(name, cut) for name, cut in now.items()}

    async def _tails(self, cuts, listed, newest, bounds, room):
        return await super()._tails(self.earlier, listed, newest, bounds, room)


class BelievesIntents(Queried):
    """Reads on after a unit that is begun and not sealed: its rows are in no file yet."""

    async def _tails(self, cuts, listed, newest, bounds, room):
        begun = {name: cut if cut.begun is None else replace(cut, after=cut.begun.last or 0) for name, cut in cuts.items()}
        return await super()._tails(begun, listed, newest, bounds, room)


class ForgetsWhatIsBeyond(Queried):
    """Leaves out shards that no worker has begun."""

    async def _cuts(self, at, listed, bounds):
        return {
            name: replace(cut, ended=cut.ended or cut.newest is None) for name, cut in (await super()._cuts(at, listed, bounds)).items()
        }


@pytest.mark.parametrize("kind", [ReadsOnFromLater, ReadsOnFromEarlier, BelievesIntents, ForgetsWhatIsBeyond])
def test_each_planted_defect_is_found(tmp_path, kind):
    one = subject(tmp_path, text=PIPELINE)
    assert any(wrong(play(Questioned(one, draw(seed, one.possible), Tools(), kind=kind))) for seed in range(40)), "it survived"


def test_units_that_a_rewind_took_back_would_be_noticed(tmp_path, monkeypatch):
    """Their files are gone, or, if the rewind was interrupted, their rows are there twice."""
    monkeypatch.setattr(cuts, "superseded", lambda _chains: set())
    one = subject(tmp_path, text=PIPELINE)

    def noticed(seed):
        try:
            return bool(wrong(play(Questioned(one, draw(seed, one.possible), Tools()))))
        except ExceptionGroup as group:
            return group.subgroup(DamagedFileError) is not None

    rewinding = [seed for seed in range(90) if any(isinstance(each, Rewinding) for each in draw(seed, one.possible).operations)]
    assert any(noticed(seed) for seed in rewinding[:20])
