"""The estimate of requests and objects, compared with those of a real committer, counted."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from stream.batch import SeqRange
from stream.clock import SystemClock
from stream.commit.committer import Committer
from stream.commit.log import CommitLog
from stream.commit.places import Places
from stream.contracts import Shard
from stream.lease.checkpoints import StoredCheckpoints
from stream.pipeline.cost import LOG_PUTS, Outcome, Rate, estimate
from stream.pipeline.model import Pipeline
from stream.pipeline.resources.fetching import Fetched
from stream.storage.memory import MemoryStore
from stream.storage.open import open_store
from stream.storage.prefixed import PrefixedStore
from stream.worker.recipes.definitions import Definitions
from stream.worker.recipes.recipe import CutUnit, render, with_previous
from tests.frames import batch
from tests.unit.pipeline.definitions import least

SHARD = Shard("flights", "shardId-000000000000")


class Counting(MemoryStore):
    """A store that counts what S3 would bill as a PUT."""

    def __init__(self) -> None:
        super().__init__()
        self.puts: Counter[str] = Counter()

    async def create(self, key: str, body: bytes) -> str | None:
        self.puts[key] += 1
        return await super().create(key, body)

    async def replace(self, key: str, body: bytes, etag: str) -> str | None:
        self.puts[key] += 1
        return await super().replace(key, body, etag)

    async def put(self, key: str, body: bytes) -> None:
        self.puts[key] += 1
        await super().put(key, body)


def committed(records: list[bytes]) -> tuple[Counting, Counting, Pipeline]:
    pipeline = Pipeline.model_validate(least(sinks=[{"s3": {"url": "s3://lake/flights/", "partition_by": ["carrier"]}}]))
    state, lake = Counting(), Counting()

    async def run() -> None:
        clock = SystemClock()
        log = CommitLog(state, "flights", clock, "w")
        stores: Any = {"s3": lake, "rejects": PrefixedStore(state, "rejects/"), "ledger": PrefixedStore(state, "ledger/v1/")}
        recipe = await Definitions(state, None, {}, clock).record(pipeline, Fetched())  # type: ignore[arg-type]
        unit = render(recipe, CutUnit(SHARD, SeqRange(0, 10**20 + len(records)), (batch(records),), "age")).unit
        state.puts.clear()

        async def never(_: object) -> Any:
            raise AssertionError

        committer = Committer(log, Places(stores, open_store), StoredCheckpoints(state), clock, lambda _: None, "w")
        await committer.commit(SHARD, with_previous(unit, "", "w", clock.now()), never)

    asyncio.run(run())
    return state, lake, pipeline


def test_a_unit_makes_as_many_requests_and_objects_as_estimated() -> None:
    state, lake, pipeline = committed([b'{"carrier": "UA"}', b'{"carrier": "AA"}', b'{"carrier": "DL"}'])
    billed = estimate(pipeline, Rate(10, 20, 1), Outcome(1.0, 3.0))
    items = {item.what: item.quantity for item in billed.items}
    assert lake.puts.total() == round(items["S3 PUT of data files"] / billed.units) == 3
    assert state.puts.total() == round(items["S3 PUT of commit log and ledger"] / billed.units) == LOG_PUTS + 2
    assert len([key for key in state.puts if not key.startswith("checkpoints/")]) == round(billed.log_objects / billed.units)


def test_dead_letters_add_one_object() -> None:
    state, _, pipeline = committed([b'{"carrier": "UA"}', b"{"])
    billed = estimate(pipeline, Rate(10, 20, 1), Outcome(1.0, 1.0, 1.0))
    items = {item.what: item.quantity for item in billed.items}
    assert state.puts.total() == round(items["S3 PUT of commit log and ledger"] / billed.units) == LOG_PUTS + 3
