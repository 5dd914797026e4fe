"""Links made by an operator, over an in-memory log."""

import asyncio
from pathlib import Path
from types import SimpleNamespace

import pytest

from stream.commit.committer import Committer
from stream.commit.places import Places
from stream.commit.retry import Repeater
from stream.commit.rewind import history, skip_link
from stream.contracts import Shard
from stream.errors import DefinitionError, Fatal, LeaseLost
from stream.lease.rows import decode
from stream.operations.changes.leases import seize_lease
from stream.operations.changes.rewinds import _commit, preview_rewind, rewind
from stream.pipeline.checks.lint import check_content
from stream.storage.open import open_store
from tests.sealed import PIPELINE, sequence, shard_id, three_units


class Lost:
    """Checkpoints of a shard whose lease was lost."""

    async def advance(self, shard, checkpoint):
        raise LeaseLost("it is another worker's")


class Refused:
    """Checkpoints that may not be written."""

    async def advance(self, shard, checkpoint):
        raise Fatal("dynamodb:UpdateItem was refused")


async def skipping(sealed, before, checkpoints=None):
    """Skip ten records; another worker does ``before`` at the last moment."""
    silent, where = lambda _event: None, Shard("events", shard_id(0))
    committer = Committer(sealed.log, Places(sealed.stores.targets, open_store), checkpoints or Lost(), sealed.clock, silent, "operator")
    parts = SimpleNamespace(log=sealed.log, committer=committer, repeat=Repeater(sealed.clock, silent))
    link = skip_link(sealed.log, where, sealed.heads[shard_id(0)], sequence(0, 130), "", "")
    await before()
    await _commit(parts, where, link)
    return await history(sealed.log, where)


def test_a_link_holds_even_if_the_lease_was_lost_after_it():
    async def run():
        async def nothing():
            pass

        return await skipping(await three_units(), nothing)

    assert asyncio.run(run()).head == sequence(0, 130)


def test_a_link_is_not_reported_as_done_if_a_worker_committed_there_first():
    async def run():
        sealed = await three_units()
        await skipping(sealed, lambda: sealed.unit(0, 121, 10))

    with pytest.raises(DefinitionError, match="a worker has committed up to"):
        asyncio.run(run())


def test_if_only_the_checkpoint_is_refused_the_error_says_that_the_link_holds():
    async def run():
        async def nothing():
            pass

        sealed = await three_units()
        with pytest.raises(Fatal, match=r"is in the log now, so it holds; .*: dynamodb:UpdateItem was refused"):
            await skipping(sealed, nothing, Refused())
        return await history(sealed.log, Shard("events", shard_id(0)))

    assert asyncio.run(run()).head == sequence(0, 130)


def test_an_unreadable_lease_row_is_reported_with_a_remedy():
    async def seize(_stream, shard):
        return decode({"leaseKey": {"S": shard}, "leaseCounter": {"S": "many"}})

    coordinator = SimpleNamespace(table=SimpleNamespace(name="flights"), seize=seize)
    with pytest.raises(DefinitionError, match=r"table flights: lease row 'shard-1' is not .*; repair it, or stop the workers"):
        asyncio.run(seize_lease(coordinator, "events", "shard-1"))


def test_what_a_sink_loads_into_a_table_is_not_taken_back():
    sink = "redshift: {staging: s3://lake/staging/, table: sales.events, database: dev, workgroup: analytics, iam_role: default}"
    text = PIPELINE.replace('s3: {url: "file:./lake", partition_by: [kind]}', sink)
    pipeline = check_content(text.encode(), "pipeline.yaml", Path(), {}).pipeline
    for call in (rewind(pipeline, "events", shard_id(0), 0, "", Path(), {}), preview_rewind(pipeline, "events", shard_id(0), 0, Path())):
        with pytest.raises(DefinitionError, match=r"`redshift` are loaded into the table sales.events, .*; nothing was changed"):
            asyncio.run(call)
