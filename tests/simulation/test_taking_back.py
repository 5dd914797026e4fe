"""A rewind beside what makes something of the units that it takes back, in random order: redrives of their dead letters, and compactions.

A failure names the seed.
"""

from __future__ import annotations

import asyncio
import io
import os
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from functools import partial
from random import Random

import polars as pl
import pytest

from stream.batch import ORIGIN, SEQUENCE, SUBSEQUENCE
from stream.budget import ByteBudget
from stream.commit.claims import Claims
from stream.commit.committer import Head, RenderedUnit
from stream.commit.log import CommitLog
from stream.commit.manifest import Kind, digest
from stream.commit.rewind import history, rewind_link
from stream.contracts import Shard
from stream.errors import DefinitionError
from stream.operations.changes import rewind_refusals
from stream.operations.changes.rewind_refusals import refuse_doubles
from stream.operations.compaction import uncompacted
from stream.operations.compaction.compactor import Compactor
from stream.pipeline.replay import RedriveBudget
from stream.simulation.virtual_time import leaping
from stream.storage.memory import MemoryStore
from stream.worker.sources.dead_letters import DeadLetters, Redrive, chain_name
from tests.sealed import NOON, START, Sealed, sequence, shard_id
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
    await turns(dice, most=dice.choice((40, 400)))
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
    monkeypatch.setattr(rewind_refusals, "_claim", _only_looks)
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


async def _compact(sealed, target, dice, worker):
    """As `stream compact --before` does, now and then, for as long as it takes to meet the rewind."""
    state, lake = Turns(sealed.stores.state, dice), Turns(sealed.stores.targets["s3"], dice)
    log = CommitLog(state, sealed.pipeline.application, sealed.clock, worker)
    await turns(dice, most=200)
    one = Compactor(log, "events", sealed.pipeline.sinks[0], lake, Turns(target, dice), sealed.clock, 2**20)
    await one.run(NOON + timedelta(days=1), closed=dice.random() < 0.5)


async def _compacted_beside(seed):
    """Whether the units were taken back. In the end, the dataset has each row of the sink once, whatever met."""
    dice, sealed = Random(seed), await Sealed.open()
    for first in (1, 31):
        await sealed.unit(0, first, 30)
    target = MemoryStore(url="memory:large")
    beside = [_compact(sealed, target, dice, f"compactor {number}") for number in range(dice.choice((1, 1, 2)))]
    taken_back, *_ = await asyncio.gather(_late_rewind(sealed, dice), *beside)
    if taken_back:
        await _go_on(sealed)
    await sealed.unit(0, 61, 5)
    await _compact(sealed, target, dice, "afterwards")
    found, wanted = await _rows(target), await _rows(sealed.stores.targets["s3"])
    assert found.height == wanted.height, f"seed {seed}: {found.height} rows in the dataset, {wanted.height} in the sink"
    assert found.equals(wanted), f"seed {seed}"
    return taken_back


async def _late_rewind(sealed, dice):
    await turns(dice, most=dice.choice((40, 800)))
    return await _rewind(sealed, dice)


async def _go_on(sealed):
    """What a worker does after a rewind of the shard to its start: it processes the records again."""
    link = await sealed.log.read(SHARD, sealed.heads[SHARD.shard_id].position)
    sealed.generations[SHARD.shard_id] = 1
    genesis = await sealed.log.open_chain(replace(SHARD, generation=1), START, ORIGIN, digest(link.body))
    sealed.heads[SHARD.shard_id] = Head(ORIGIN, digest(genesis.body))
    await sealed.unit(0, 1, 60)


async def _rows(store):
    """The rows of all Parquet files of a store, in the order of their records."""
    bodies = [(await store.get(info.key)).body async for info in store.list("")]
    return pl.concat(pl.read_parquet(io.BytesIO(body)) for body in bodies).sort(SEQUENCE, SUBSEQUENCE)


def _all_that_meet():
    """For each seed, whether the units were taken back."""
    return (leaping(partial(_compacted_beside, seed)) for seed in range(SEEDS // 2))


def test_units_are_either_taken_back_or_compacted():
    seen = Counter(_all_that_meet())
    assert min(seen[True], seen[False]) > SEEDS / 40, seen


async def _sees_no_claims(store, stream, last):
    return {}, last


async def _sees_no_compactions(log, stream, links):
    return None


@pytest.mark.parametrize(
    ("module", "name", "instead"),
    [
        (uncompacted, "_claimed_since", _sees_no_claims),
        (rewind_refusals, "_refuse_compacted", _sees_no_compactions),
    ],
)
def test_a_rewind_and_a_compaction_of_which_one_does_not_see_the_other_would_be_found(monkeypatch, module, name, instead):
    monkeypatch.setattr(module, name, instead)
    with pytest.raises(AssertionError, match="rows in the dataset"):
        list(_all_that_meet())


def test_files_that_an_interrupted_rewind_has_claimed_are_compacted_once_the_shard_goes_on():
    async def run():
        dice, sealed, target = Random(0), await Sealed.open(), MemoryStore(url="memory:large")
        for first in (1, 31):
            await sealed.unit(0, first, 30)
        known = await history(sealed.log, SHARD)
        link = rewind_link(sealed.log, known, sealed.heads[SHARD.shard_id], sequence(0, 30), "", sealed.clock.now().isoformat())
        await refuse_doubles(sealed.log, known, link, sequence(0, 30), sealed.stores.targets)
        await _compact(sealed, target, dice, "early")
        wanted = await _rows(sealed.stores.targets["s3"])
        assert (await _rows(target)).equals(wanted.filter(pl.col("n") <= 30))
        await sealed.unit(0, 61, 5)
        await _compact(sealed, target, dice, "late")
        assert (await _rows(target)).equals(await _rows(sealed.stores.targets["s3"]))

    leaping(run)
