"""Where pauses are recorded: two operators at once, lost replies, commands that die half-way."""

import asyncio
import functools

import pytest

from stream.errors import Retryable
from stream.lease.paused import Pause, Target, What, paused, resumed
from stream.lease.pauses import CHANGES, NEWEST, PauseRecord, PausesUnreadable
from stream.storage.memory import MemoryStore
from tests.sealed import NOON


def pause(part=""):
    return Pause(what=What.READING, stream="s", part=part, by="ann@a", note="new disks", since=NOON)


def pausing(part=""):
    return lambda newest: paused(newest, [pause(part)], "ann@a", "new disks", NOON)


def resuming(part=""):
    return lambda newest: resumed(newest, [Target(What.READING, "s", part)], "bob@b", "", NOON)


def run(test):
    @functools.wraps(test)
    def wrapper(*arguments, **options):
        asyncio.run(test(*arguments, **options))

    return wrapper


class Hindered(MemoryStore):
    """A store whose next write fails: ``lost`` after it has happened, ``refused`` before; or ``meanwhile`` does something first."""

    def __init__(self):
        super().__init__()
        self.fate = ""
        self.meanwhile = None

    async def create(self, key, body):
        return await self._written(key, super().create(key, body))

    async def replace(self, key, body, etag):
        return await self._written(key, super().replace(key, body, etag))

    async def _written(self, key, write):
        fate, self.fate = (self.fate, "") if key == NEWEST else ("", self.fate)
        other, self.meanwhile = (self.meanwhile, None) if key == NEWEST else (None, self.meanwhile)
        if other is not None:
            await other()
        if fate == "refused":
            write.close()
            raise Retryable("no answer")
        done = await write
        if fate == "lost":
            raise Retryable("no answer")
        return done


@run
async def test_what_is_recorded_is_read_and_every_change_is_kept():
    record = PauseRecord(MemoryStore())
    assert await record.newest() is None
    await record.change(pausing())
    await record.change(pausing("0"))
    assert await record.change(pausing("0")) is None
    newest = await record.change(resuming())
    assert newest == await record.newest()
    assert newest.pauses == (pause("0"),)
    assert [(change.number, change.action, change.by) for change in await record.history()] == [
        (1, "pause", "ann@a"),
        (2, "pause", "ann@a"),
        (3, "resume", "bob@b"),
    ]


@run
async def test_of_two_operators_at_once_both_get_what_they_asked_for():
    store = Hindered()
    record = PauseRecord(store)
    await record.change(pausing())
    store.meanwhile = lambda: PauseRecord(store).change(pausing("0"))
    await record.change(pausing("1"))
    assert (await record.newest()).pauses == (pause(), pause("0"), pause("1"))
    assert [change.number for change in await record.history()] == [1, 2, 3]


@run
async def test_of_two_that_pause_for_the_first_time_both_get_what_they_asked_for():
    store = Hindered()
    store.meanwhile = lambda: PauseRecord(store).change(pausing("0"))
    await PauseRecord(store).change(pausing("1"))
    assert (await PauseRecord(store).newest()).pauses == (pause("0"), pause("1"))


@pytest.mark.parametrize("fate", ["lost", "refused"])
@run
async def test_a_reply_that_is_lost_does_no_harm(fate):
    store = Hindered()
    record = PauseRecord(store)
    await record.change(pausing())
    store.fate = fate
    change = await record.change(pausing("0"))
    assert change == await record.newest()
    assert [each.number for each in await record.history()] == [1, 2]


@run
async def test_a_command_that_died_before_it_kept_its_change_leaves_no_hole():
    store = MemoryStore()
    record = PauseRecord(store)
    await record.change(pausing())
    await store.delete(f"{CHANGES}000001.json")
    assert [each.number for each in await record.history()] == [1]
    await record.change(resuming())
    assert [each.number for each in await record.history()] == [1, 2]
    assert [info.key async for info in store.list(CHANGES)] == [f"{CHANGES}000001.json", f"{CHANGES}000002.json"]


@run
async def test_deleting_the_object_ends_all_pauses_and_the_history_continues():
    store = MemoryStore()
    record = PauseRecord(store)
    await record.change(pausing())
    await store.delete(NEWEST)
    assert (await record.in_force(NOON)).all == ()
    change = await record.change(pausing("0"))
    assert (change.number, change.pauses) == (2, (pause("0"),))
    assert [each.number for each in await record.history()] == [1, 2]


@pytest.mark.parametrize("body", [b"{broken", b"{}", b"[]"])
@run
async def test_an_object_that_cannot_be_read_is_reported(body):
    store = MemoryStore()
    await store.put(NEWEST, body)
    with pytest.raises(PausesUnreadable, match=r"pauses/newest\.json .* delete it"):
        await PauseRecord(store).newest()


@run
async def test_a_time_without_a_zone_is_refused():
    store = MemoryStore()
    record = PauseRecord(store)
    await record.change(pausing())
    stored = await store.get(NEWEST)
    await store.put(NEWEST, stored.body.replace(b"12:00:00Z", b"12:00:00"))
    with pytest.raises(PausesUnreadable):
        await record.newest()


@run
async def test_what_a_newer_build_adds_is_passed_over():
    store = MemoryStore()
    record = PauseRecord(store)
    change = await record.change(pausing())
    stored = await store.get(NEWEST)
    await store.put(NEWEST, stored.body.replace(b'{"', b'{"new":1,"', 1))
    assert await record.newest() == change
