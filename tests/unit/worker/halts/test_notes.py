"""Notes of halts: written once a shard halts, kept while it does not move, gone once it does, and free of writes for everybody else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from stream import events
from stream.errors import Fatal
from stream.storage.memory import MemoryStore
from stream.worker.halts.note import WHOLE_STREAM, Halt
from stream.worker.halts.notes import HaltNotes, halt_key, read_halted_exports, read_halts

STREAM, SHARD = "numbers", "shardId-000000000000"
WHERE = STREAM, SHARD


class Hand:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.moment = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self.moment

    def monotonic(self) -> float:
        return self.moment.timestamp()

    async def sleep(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)


class Watched(MemoryStore):
    """A store that counts what changes it."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[str] = []

    async def put(self, key: str, body: bytes) -> None:
        self.written.append(f"put {key}")
        await super().put(key, body)

    async def delete(self, key: str) -> None:
        self.written.append(f"delete {key}")
        await super().delete(key)


def page(records: int = 0, behind_ms: int = 0) -> events.Event:
    return events.PageReceived(*WHERE, records, records, records, behind_ms, 0.1)


def sealed(last: int) -> events.Event:
    return events.UnitSealed(*WHERE, 0, last, (), 0.0, 0.0, 0.1)


def started(position: int) -> events.Event:
    return events.ShardStarted(*WHERE, position)


def halted(reason: str = "bad", shard: str = SHARD) -> events.Event:
    return events.ShardHalted(STREAM, shard, reason)


def worker(
    store: MemoryStore,
    clock: Hand,
    *happened: events.Event,
    name: str = "w1",
    emit: Callable[[events.Event], None] = print,
    exports: bool = False,
) -> None:
    """What a worker notes of what happens in it, until it ends in good order. Each event is dealt with before the next."""

    async def run() -> None:
        notes = HaltNotes(store, name, clock, emit, exports=exports)
        running = asyncio.ensure_future(notes.run())
        for event in happened:
            notes(event)
            await notes.finish()
        running.cancel()

    asyncio.run(run())


def notes_in(store: MemoryStore) -> dict[str, Halt]:
    return dict(asyncio.run(read_halts(store, STREAM)))


def test_a_halt_is_noted_with_its_reason_its_worker_its_time_and_its_position() -> None:
    store, clock = MemoryStore(), Hand()
    worker(store, clock, started(0), page(5), sealed(70), page(5), halted("most are bad"))
    assert notes_in(store) == {SHARD: Halt("most are bad", "w1", clock.moment, "70")}


def test_who_halts_again_at_the_same_place_has_been_halted_since_the_first_time() -> None:
    store, clock = MemoryStore(), Hand()
    worker(store, clock, started(70), page(5), halted())
    first = clock.moment
    clock.moment += timedelta(minutes=5)
    worker(store, clock, started(70), page(5), halted("worse"), name="w2")
    assert notes_in(store) == {SHARD: Halt("worse", "w2", first, "70")}
    clock.moment += timedelta(minutes=5)
    worker(store, clock, started(70), page(5), sealed(80), page(5), halted("again"), name="w2")
    assert notes_in(store) == {SHARD: Halt("again", "w2", clock.moment, "80")}


@pytest.mark.parametrize(
    "happened",
    [
        pytest.param((started(71),), id="an operator has passed over what it halted at"),
        pytest.param((started(70), page(5), sealed(75)), id="it is sealed now"),
        pytest.param((started(70), page()), id="nothing is left there"),
        pytest.param((started(70), page(5), events.ShardEnded(*WHERE, ())), id="it has ended"),
    ],
)
def test_a_shard_that_continues_has_no_note(happened: tuple[events.Event, ...]) -> None:
    store, clock = MemoryStore(), Hand()
    worker(store, clock, started(70), page(5), halted())
    worker(store, clock, *happened, name="w2")
    assert notes_in(store) == {}


@pytest.mark.parametrize(
    "happened",
    [
        pytest.param((started(70),), id="it has only been started"),
        pytest.param((started(70), page(5), page()), id="what was received may make it halt again"),
        pytest.param((started(70), page(0, behind_ms=1000)), id="it is not at its tip yet"),
        pytest.param((started(70), events.ShardReleased(*WHERE, "drain")), id="it was given up"),
    ],
)
def test_a_shard_that_may_halt_again_keeps_its_note(happened: tuple[events.Event, ...]) -> None:
    store, clock = MemoryStore(), Hand()
    worker(store, clock, started(70), page(5), halted())
    worker(store, clock, *happened, name="w2")
    assert set(notes_in(store)) == {SHARD}


def test_who_halts_before_it_starts_is_over_it_when_it_starts() -> None:
    store, clock = MemoryStore(), Hand()
    worker(store, clock, halted("the log cannot be read"))
    assert notes_in(store) == {SHARD: Halt("the log cannot be read", "w1", clock.moment)}
    worker(store, clock, started(0))
    assert notes_in(store) == {}


def test_a_stream_that_cannot_be_read_is_noted_as_a_whole_until_one_of_its_shards_starts() -> None:
    store, clock = MemoryStore(), Hand()
    worker(store, clock, halted("no such stream", shard=""))
    assert notes_in(store) == {WHOLE_STREAM: Halt("no such stream", "w1", clock.moment)}
    worker(store, clock, started(0))
    assert notes_in(store) == {}


DESCRIBED = events.StreamDescribed(STREAM, "", 86_400.0, 1)


def test_a_stream_that_is_wrong_only_in_this_deployment_is_not_noted_where_others_look() -> None:
    store = Watched()
    worker(store, Hand(), events.ShardHalted(STREAM, "", "the log is of another stream", shared=False))
    assert (store.written, notes_in(store)) == ([], {})


def test_a_note_that_another_worker_made_of_a_stream_is_removed_by_the_one_that_goes_on_reading_it() -> None:
    store, clock = MemoryStore(), Hand()
    asyncio.run(store.put(halt_key(*WHERE), msgspec.json.encode(Halt("bad", "w2", clock.moment, "70"))))

    async def run() -> None:
        right, wrong = HaltNotes(store, "w1", clock, print), HaltNotes(store, "w2", clock, print)
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(each.run()) for each in (right, wrong)]
            for notes, event in ((right, DESCRIBED), (right, started(70)), (wrong, halted("no such stream", shard=""))):
                notes(event)
                await notes.finish()
            assert set(await read_halts(store, STREAM)) == {SHARD, WHOLE_STREAM}
            # The wrong one sees its stream described elsewhere, and reads nothing.
            wrong(DESCRIBED)
            await wrong.finish()
            assert set(await read_halts(store, STREAM)) == {SHARD, WHOLE_STREAM}
            right(DESCRIBED)
            await right.finish()
            assert set(await read_halts(store, STREAM)) == {SHARD}
            for each in running:
                each.cancel()

    asyncio.run(run())


def test_who_may_describe_a_stream_and_reads_nothing_of_it_leaves_the_note_of_another_worker() -> None:
    store, clock = MemoryStore(), Hand()
    worker(store, clock, halted("not listed", shard=""))
    worker(store, clock, DESCRIBED, name="w2")
    assert set(notes_in(store)) == {WHOLE_STREAM}


def test_who_has_halted_a_stream_keeps_its_note_until_it_goes_on() -> None:
    """Its shards cannot be listed, although it may be described; some of them were read before."""
    store, clock = MemoryStore(), Hand()
    worker(store, clock, started(70), halted("not listed", shard=""), DESCRIBED)
    assert set(notes_in(store)) == {WHOLE_STREAM}
    worker(store, clock, started(70), halted("not listed", shard=""), events.StreamResumed(STREAM, ""), DESCRIBED)
    assert notes_in(store) == {}


def test_shards_that_do_not_halt_cost_no_write() -> None:
    store = Watched()
    worker(store, Hand(), started(0), page(5), sealed(5), page(), sealed(9), events.ShardReleased(*WHERE, "drain"))
    assert store.written == []


def test_a_note_that_cannot_be_read_says_so_and_is_replaced() -> None:
    store, clock = MemoryStore(), Hand()
    asyncio.run(store.put(halt_key(*WHERE), b"{"))
    assert "cannot be read" in notes_in(store)[SHARD].reason
    worker(store, clock, halted())
    assert notes_in(store)[SHARD].reason == "bad"


def test_a_store_that_refuses_is_reported_and_the_worker_continues() -> None:
    class Refusing(MemoryStore):
        async def put(self, key: str, body: bytes) -> None:
            msg = f"no permission to write {key}"
            raise Fatal(msg)

    heard: list[events.Event] = []
    worker(Refusing(), Hand(), halted(), started(0), emit=heard.append)
    (failed,) = heard
    assert isinstance(failed, events.NotificationFailed)
    assert (failed.channel, "no permission" in failed.detail) == ("state", True)


def exports_in(store: MemoryStore) -> dict[str, Halt]:
    return dict(asyncio.run(read_halted_exports(store, STREAM)))


def export_halted(reason: str) -> events.Event:
    return events.ExportHalted(*WHERE, 401, reason, 10.0, blocking=False)


@pytest.mark.parametrize("after", [events.ExportResumed(*WHERE), events.SpansExported(*WHERE, 5, 0, 0)])
def test_a_halted_export_is_noted_beside_the_cursor_until_something_is_exported(after: events.Event) -> None:
    store, clock = MemoryStore(), Hand()
    first = clock.moment
    worker(store, clock, started(0), sealed(70), export_halted("401"))
    clock.moment += timedelta(minutes=5)
    # The next worker has the same problem, and then somebody solves it. That the shard goes on says nothing of its export.
    worker(store, clock, started(70), export_halted("401 again"), sealed(80), page(), name="w2", exports=True)
    assert (exports_in(store), notes_in(store)) == ({SHARD: Halt("401 again", "w2", first)}, {})
    worker(store, clock, started(80), after, name="w3", exports=True)
    assert exports_in(store) == {}


def test_who_exports_without_trouble_writes_nothing() -> None:
    store, clock = Watched(), Hand()
    worker(store, clock, started(0), sealed(70), events.SpansExported(*WHERE, 5, 0, 0), exports=True)
    assert store.written == []
