"""What came of the units of open shards, and of one that has ended; whole looks are in test_inspector.py and tests/integration."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime, timedelta

import msgspec

from stream.audit.export import Cursor
from stream.commit.log import CommitLog
from stream.contracts import Shard
from stream.operations.progress.completeness import Tail
from stream.operations.status.outcomes import RecentUnits, read_exported
from stream.storage.memory import MemoryStore
from stream.worker.halts.note import Halt
from stream.worker.halts.notes import export_key
from tests.sealed import Sealed, shard_id, three_units


async def tails_of(sealed: Sealed, log: CommitLog) -> Mapping[str, Tail]:
    """Where the chains of the two shards end; the second one has a link for its end."""
    found = {}
    for name in (shard_id(0), shard_id(1)):
        tail = Tail(Shard("events", name), 0)
        while (entry := await log.read(tail.shard, tail.position)) is not None:
            tail = Tail(tail.shard, entry.manifest.reach, entry.manifest)
            if entry.manifest.last is None:
                break
        found[name] = tail
    return found


async def opened() -> tuple[Sealed, CommitLog, Mapping[str, Tail]]:
    sealed = await three_units()
    log = CommitLog(sealed.stores.state, "flights", sealed.clock, "status")
    return sealed, log, await tails_of(sealed, log)


def test_units_of_a_shard_that_has_ended_count_too() -> None:
    async def body() -> None:
        sealed, log, tails = await opened()
        assert tails[shard_id(1)].ended
        found = await RecentUnits(log, "events", MemoryStore()).outcomes(tails, sealed.clock.now())
        assert (found.units, found.records, found.gaps) == (5, 170, ())
        later = await RecentUnits(log, "events", MemoryStore()).outcomes(tails, sealed.clock.now() + timedelta(hours=2))
        assert (later.units, later.records) == (0, 0)

    asyncio.run(body())


def test_spans_wait_since_the_first_unit_that_is_not_exported_was_sealed() -> None:
    async def body() -> None:
        sealed, log, tails = await opened()
        ended = {shard_id(1): tails[shard_id(1)]}
        first = await log.read(Shard("events", shard_id(1)), 0)
        assert first is not None
        waiting = await read_exported(log, "events", ended)
        assert (waiting.waiting, waiting.since) == (1, datetime.fromisoformat(first.manifest.sealed_at))
        halt = Halt("401", "w1", sealed.clock.now())
        await sealed.stores.state.put(export_key("events", shard_id(1)), msgspec.json.encode(halt))
        assert (await read_exported(log, "events", ended, blocking=True)).halted == ((shard_id(1), halt),)
        position = msgspec.json.encode(Cursor(position=str(ended[shard_id(1)].position)))
        await sealed.stores.state.put(f"export/events/{shard_id(1)}.json", position)
        # Nothing waits, so the note is out of date.
        done = await read_exported(log, "events", ended)
        assert (done.waiting, done.halted) == (0, ())

    asyncio.run(body())
