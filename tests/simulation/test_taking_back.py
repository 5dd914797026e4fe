"""A rewind, a redrive of the dead letters that it would take back, and a worker, in random order. A failure names the seed."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from functools import partial
from random import Random

import pytest

from stream.batch import ORIGIN
from stream.budget import ByteBudget
from stream.commit.claims import Claims
from stream.commit.committer import RenderedUnit
from stream.commit.log import CommitLog
from stream.commit.manifest import Kind
from stream.commit.rewind import history, rewind_link
from stream.contracts import Shard
from stream.errors import DefinitionError
from stream.operations.changes import rewind_refusals
from stream.operations.changes.rewind_refusals import refuse_doubles
from stream.pipeline.replay import RedriveBudget
from stream.simulation.virtual_time import leaping
from stream.worker.sources.dead_letters import DeadLetters, Redrive, chain_name
from tests.sealed import Sealed, shard_id
from tests.turns import Turns, turns

SEEDS = int(os.environ.get("STREAM_TAKING_BACK_SEEDS", "150"))
SHARD = Shard("events", shard_id(0))


async def _rewind(sealed, dice):
    """As ``stream leases rewind`` does; whether it took the units back."""
    log = CommitLog(Turns(sealed.stores.state, dice), sealed.pipeline.application, sealed.clock, "operator")
    known = await history(log, SHARD)
    link = rewind_link(log, known, sealed.heads[SHARD.shard_id], ORIGIN, "", sealed.clock.now().isoformat())
    try:
        await refuse_doubles(log, known, link, ORIGIN, sealed.stores.targets)
    except DefinitionError:
        return False
    await turns(dice)
    try:
        stored = await sealed.committer.commit(SHARD, RenderedUnit(link, ()), _never)
    except DefinitionError:
        return False
    return stored.manifest.kind is Kind.REWIND


async def _never(_manifest):
    msg = "a worker has begun a unit meanwhile"
    raise DefinitionError(msg)


async def _redrive(letters, dice, worker):
    await turns(dice)
    try:
        return await letters.redrive(None, None, worker)
    except DefinitionError:
        return None


async def _play(seed):
    """Whether the units were taken back, and how many letters were claimed meanwhile and afterwards."""
    dice, sealed = Random(seed), await Sealed.open()
    await sealed.unit(0, 1, 30)
    state = sealed.stores.state
    letters = DeadLetters("events", Turns(state, dice), sealed.stores.targets["rejects"], RedriveBudget(), sealed.clock)
    work = [_rewind(sealed, dice), _redrive(letters, dice, "one"), _redrive(letters, dice, "two")]
    if dice.random() < 0.3:
        work.append(_beside(sealed, dice))
    taken_back, *claimed = (await asyncio.gather(*work))[:3]
    if not taken_back:
        claimed.append(await letters.redrive(None, None, "afterwards"))
    return taken_back, sum(size for _, size in filter(None, claimed))


async def _beside(sealed, dice):
    await turns(dice)
    await sealed.unit(0, 31, 5)


LETTERS = len([n for n in range(1, 31) if n % 13 == 12])


def test_letters_are_either_taken_back_or_redriven_once():
    seen = Counter()
    for seed in range(SEEDS):
        taken_back, claimed = leaping(partial(_play, seed))
        assert claimed == (0 if taken_back else LETTERS), f"seed {seed}"
        seen[taken_back] += 1
    assert min(seen[True], seen[False]) > SEEDS / 20, seen


async def _only_looks(log, known, link):
    """What a rewind that claims nothing would do: a redrive may claim between its look and its link."""
    taken = {file.key for file in link.superseded if file.sink == "rejects"}
    rewind_refusals._refuse_redriven(known, taken, await Claims(log.store, chain_name("events"), Redrive).all())


def test_a_rewind_that_only_looked_would_be_found(monkeypatch):
    monkeypatch.setattr(rewind_refusals, "_claim_letters", _only_looks)
    assert any(taken_back and claimed for taken_back, claimed in (leaping(partial(_play, seed)) for seed in range(SEEDS)))


def test_letters_that_an_interrupted_rewind_has_claimed_are_redriven_once_the_shard_goes_on():
    async def run():
        sealed = await Sealed.open()
        await sealed.unit(0, 1, 30)
        known = await history(sealed.log, SHARD)
        link = rewind_link(sealed.log, known, sealed.heads[SHARD.shard_id], ORIGIN, "", sealed.clock.now().isoformat())
        letters = DeadLetters("events", sealed.stores.state, sealed.stores.targets["rejects"], RedriveBudget(), sealed.clock)
        for _ in range(2):  # a rewind that is run again claims them again
            await refuse_doubles(sealed.log, known, link, ORIGIN, sealed.stores.targets)
        with pytest.raises(DefinitionError, match="all 2 dead letters that would be redriven are about to be taken back"):
            await letters.redrive(None, None, "early")
        await sealed.unit(0, 31, 5)
        claimed = await letters.redrive(None, None, "late")
        assert claimed == (3, 2)
        shards = await (await letters.source(ByteBudget(2**20), lambda _event: None)).shards()
        assert [shard.shard_id for shard in shards] == ["redrive-000003"]
        with pytest.raises(DefinitionError, match="were redriven"):
            await refuse_doubles(sealed.log, known, link, ORIGIN, sealed.stores.targets)

    asyncio.run(run())
