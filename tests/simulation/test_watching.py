"""Watchers of one source that are killed, lose replies and get messages twice, late and in any order: each object is claimed once.

The production code runs unchanged over a queue and stores in memory, in a loop whose time leaps. A seed decides everything else.
"""

import asyncio
import itertools
import json
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from random import Random
from urllib.parse import quote_plus

import pytest

from stream import events
from stream.aws.errors import AccessRefused
from stream.errors import Retryable
from stream.simulation.virtual_time import LoopClock, leaping
from stream.source.notifications import read_notice
from stream.source.object_formats import Layout, ObjectCodec, ObjectFormat
from stream.storage.memory import MemoryStore
from stream.worker.objects import claimlog
from stream.worker.objects.claiming import WatchSettings
from stream.worker.objects.claimlog import ClaimLog, Pieces
from stream.worker.objects.watching import Turns, Watcher
from tests.contract.queue_fake import FakeQueue

BUCKET, PREFIX = "lake", "in/"
PLACE = (BUCKET, PREFIX)
QUIET = 7200.0
"""Seconds after which the last listing, and every hidden message, has had its turn."""


class Killed(BaseException):
    """The process is no more: nothing of it runs after this."""


class Steps:
    """Decides before and after every call whether the process dies there, or whether the reply is lost."""

    def __init__(self, dice, deaths, losses):
        self.dice, self.deaths, self.losses = dice, deaths, losses

    def step(self):
        if self.dice.random() < self.deaths:
            raise Killed

    def reply(self):
        self.step()
        if self.dice.random() < self.losses:
            raise Retryable("no reply came")


class Faulty:
    """A store or a queue, each of whose calls may be the last one of this process, or have no reply."""

    def __init__(self, inner, steps):
        self._inner, self._steps = inner, steps

    @property
    def url(self):
        return self._inner.url

    def list(self, prefix, after=""):
        self._steps.step()
        return self._inner.list(prefix, after)

    def __getattr__(self, name):
        call = getattr(self._inner, name)

        async def faulty(*args, **kwargs):
            self._steps.step()
            result = await call(*args, **kwargs)
            self._steps.reply()
            return result

        return faulty


class World:
    def __init__(self, seed, *, workers, deaths, losses=0.03, every=3600.0, shards=3, turns=lambda _: True, drains=0.0):
        self.dice = Random(seed)
        self.turns, self.drains = turns, drains
        self.workers, self.deaths, self.losses, self.every, self.shards = workers, deaths, losses, every, shards
        self.objects, self.state = MemoryStore(url=f"s3://{BUCKET}/{PREFIX}"), MemoryStore()
        self.queue = FakeQueue(self.dice)
        self.heard = []
        self.deaths_seen = 0
        self.clock = LoopClock()
        self.queue.on_delete = self.check_deleted
        self.early = []

    # --- who puts objects ---------------------------------------------------------------------------------------------------

    async def produce(self, count, *, notify):
        for number in range(count):
            if self.dice.random() < 0.4:
                await self.clock.sleep(self.dice.choice([0.1, 1.0, 30.0, 200.0]))
            key = f"a b+{number % 7}/ü-{number}.json"
            await self.objects.put(key, b"".join(b'{"id": %d}\n' % (number * 10 + line) for line in range(self.dice.randrange(1, 4))))
            for _ in range(notify(number)):
                await self.queue.send(self.message(key), after=self.dice.choice([0.0, 0.0, 5.0, 400.0]))
            if self.dice.random() < 0.1:
                await self.queue.send(self.dice.choice(BESIDE))

    def message(self, key):
        size, whole = len(self.objects._objects[key].body), PREFIX + key
        about = {"key": quote_plus(whole, safe=""), "size": size, "eTag": "e"}
        record = {"eventSource": "aws:s3", "eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": BUCKET}, "object": about}}
        plain = json.dumps({"Records": [record]})
        bus = {"source": "aws.s3", "detail-type": "Object Created", "detail": {"bucket": {"name": BUCKET}, "object": {"key": whole}}}
        return self.dice.choice([plain, json.dumps({"Type": "Notification", "Message": plain}), json.dumps(bus)])

    # --- who claims them ----------------------------------------------------------------------------------------------------

    async def worker(self, number):
        """A process that is started again whenever it has died."""
        while True:
            steps = Steps(self.dice, self.deaths, self.losses)
            objects, state, queue = (Faulty(inner, steps) for inner in (self.objects, self.state, self.queue))

            @asynccontextmanager
            async def opened(queue=queue):
                yield queue

            log = ClaimLog(state, "watched", self.objects.url)
            settings = WatchSettings("watched", PLACE, self.every, 20.0, self.shards, f"worker-{number}", self.drains > 0)
            try:
                while True:
                    try:
                        await log.open(write_blocks=True)
                        break
                    except Retryable:
                        log = ClaimLog(state, "watched", self.objects.url)
                watcher = Watcher(settings, log, objects, opened, self.clock, self.heard.append, Turns(lambda: self.turns(number)))
                async with asyncio.TaskGroup() as group:
                    running = group.create_task(watcher.run())
                    while self.drains and not running.done():
                        await self.clock.sleep(30.0)
                        if self.dice.random() < self.drains:
                            await watcher.finish()
                            running.cancel()
            except (Killed, BaseExceptionGroup):
                self.deaths_seen += 1
                await self.clock.sleep(self.dice.choice([0.0, 1.0, 90.0]))

    async def live(self, count, notify):
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(self.worker(number)) for number in range(self.workers)]
            await self.produce(count, notify=notify)
            self.deaths = self.losses = self.drains = 0.0
            await self.clock.sleep(QUIET)
            for task in running:
                task.cancel()

    # --- what came of it ----------------------------------------------------------------------------------------------------

    def claims(self):
        found = {key: item.body for key, item in self.state._objects.items() if key.startswith("claims/watched/")}
        return [json.loads(found[key]) for key in sorted(found)]

    def check_deleted(self, body):
        """Called when a message is deleted: its objects must be claimed by then."""
        claimed = {item["key"] for claim in self.claims() for item in claim["objects"]}
        named = {each.key for each in read_notice(body, *PLACE).named}
        self.early += sorted((named & self.objects._objects.keys()) - claimed)

    async def read_all(self):
        """Every record, as the shards give them, through a log that was opened afresh."""
        log = ClaimLog(self.state, "watched", self.objects.url)
        await log.open(write_blocks=False)
        pieces = Pieces(log, self.objects, Layout(ObjectFormat.NDJSON, ObjectCodec.NONE, False, '"', None, ","), self.shards)
        found = []
        for shard in range(1, pieces.shards() + 1):
            piece = 1
            while some := await pieces.pieces(shard, piece):
                found += [(shard, piece + at, each.item.key) for at, each in enumerate(some)]
                piece += len(some)
        return found, log


NOT_JSON = "what is this"
BESIDE = [
    NOT_JSON,
    json.dumps({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": BUCKET}),
    json.dumps({"Records": [{"eventSource": "aws:s3", "eventName": "ObjectRemoved:Delete", "s3": {}}]}),
    json.dumps({"source": "aws.s3", "detail-type": "Object Created", "detail": {"bucket": {"name": "other"}, "object": {"key": "in/x"}}}),
]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(claimlog, "FAN", 4)


def check(world):
    async def body():
        claims = world.claims()
        keys = [item["key"] for claim in claims for item in claim["objects"]]
        assert sorted(keys) == sorted(world.objects._objects), "an object is claimed twice, or not at all"
        assert world.early == [], "a message was deleted before its object was claimed"
        assert {text for text in world.queue.bodies if text != NOT_JSON} == set(), "a message stays although its object is claimed"
        for earlier, later in itertools.pairwise(claims):
            ends = [end for _, end in earlier["appended"]] + [0] * (len(later["appended"]) - len(earlier["appended"]))
            assert ends == [begin for begin, _ in later["appended"]], "a shard has a hole or an overlap"
        found, log = await world.read_all()
        assert sorted(key for _, _, key in found) == sorted(keys), "a shard does not give what was appended to it"
        assert len({(shard, piece) for shard, piece, _ in found}) == len(found)
        assert len(log.claimed) == len(keys)
        assert not [event for event in world.heard if isinstance(event, events.QueueFailed)]

    return body()


def run_world(seed, world_of, count, notify):
    async def main():
        world = world_of()
        await world.live(count, lambda number: notify(world, number))
        await check(world)
        return world

    try:
        return leaping(main)
    except BaseException as error:
        error.add_note(f"seed {seed}")
        raise


@pytest.mark.parametrize("seed", range(40))
def test_each_object_is_claimed_once_whichever_worker_dies_and_however_often_it_is_announced(seed):
    workers = 1 + seed % 3
    world = run_world(
        seed,
        lambda: World(seed, workers=workers, deaths=0.02),
        40,
        # Of one object in ten nobody tells; listings find it.
        lambda world, _: world.dice.choice([0, 1, 1, 1, 1, 1, 1, 2, 3, 1]),
    )
    assert world.deaths_seen or seed % 5


@pytest.mark.parametrize("seed", range(8))
def test_without_listings_messages_alone_are_enough(seed):
    run_world(seed, lambda: World(seed, workers=2, deaths=0.01, every=10 * QUIET), 40, lambda *_: 1)


@pytest.mark.parametrize("seed", range(20))
def test_whatever_workers_believe_about_leases_each_object_is_claimed_once(seed):
    """Two at once believe that it is their turn to list, or nobody does for a while; and workers drain while messages wait."""
    views = Random(seed)

    def turns(_number):
        return views.random() < views.choice([0.0, 0.2, 0.9])

    run_world(
        seed,
        lambda: World(seed, workers=3, deaths=0.01, every=600.0, turns=turns, drains=0.1),
        40,
        lambda world, _: world.dice.choice([0, 1, 1, 2]),
    )


def test_the_worker_whose_turn_it_becomes_lists_at_once_and_the_others_do_not():
    async def main():
        turn = 0
        world = World(0, workers=2, deaths=0.0, losses=0.0, every=3600.0, turns=lambda number: number == turn)
        listed, inner = [], world.objects.list

        def counted(prefix, after=""):
            listed.append(world.clock.monotonic())
            return inner(prefix, after)

        world.objects.list = counted
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(world.worker(number)) for number in range(2)]
            await world.clock.sleep(1000.0)
            turn = 1
            await world.clock.sleep(1000.0)
            for task in tasks:
                task.cancel()
        return listed

    first, second = leaping(main)
    assert first < 1.0
    assert 1000.0 <= second < 1006.0


class Barred(MemoryStore):
    """A store whose objects may not be listed until ``until``; ``asked``: when somebody tried."""

    def __init__(self, url, clock, until):
        super().__init__(url=url)
        self.clock, self.until, self.asked = clock, until, []

    def list(self, prefix, after=""):
        self.asked.append(self.clock.monotonic())
        return super().list(prefix, after) if self.asked[-1] >= self.until else self._refuse()

    async def _refuse(self):
        raise AccessRefused("s3:ListBucket was refused. Remedy: allow it.", code="AccessDenied")
        yield


@pytest.mark.parametrize("others", [True, False], ids=["one that may list", "nobody who may"])
def test_a_worker_that_may_not_list_says_so_leaves_it_to_one_that_may_and_tries_again_every_minute(others):
    async def main():
        world = World(0, workers=1, deaths=0.0, losses=0.0, every=600.0)
        world.objects = Barred(world.objects.url, world.clock, until=1000.0)
        await world.objects.put("1.json", b"{}\n")
        told = []
        log = ClaimLog(world.state, "watched", world.objects.url)
        await log.open(write_blocks=True)
        # With others, it is this one's turn while it is not known to be barred.
        turns = Turns(lambda: not others or told[-1:] != [False], told.append)
        watcher = Watcher(
            WatchSettings("watched", PLACE, 600.0, 60.0, 2, "w"), log, world.objects, None, world.clock, world.heard.append, turns
        )
        running = asyncio.ensure_future(watcher.run())
        await world.clock.sleep(900.0)
        assert set(told) == {False}
        tried = [later - earlier for earlier, later in itertools.pairwise(world.objects.asked)]
        assert 12 <= len(tried) <= 30
        assert max(tried) <= 61.0
        kinds = [type(event) for event in world.heard]
        assert kinds.count(events.ShardHalted) == (1 if others else len(world.objects.asked))
        assert kinds.count(events.StreamResumed) == others
        await world.clock.sleep(200.0)
        assert told[-1] is True
        assert len(world.claims()) == 1
        watcher.drain()
        await running

    leaping(main)


def test_a_worker_that_drains_claims_what_its_messages_name_and_leaves_none_hidden():
    async def main():
        world = World(0, workers=1, deaths=0.0, losses=0.0, every=10 * QUIET)
        log = ClaimLog(world.state, "watched", world.objects.url)
        await log.open(write_blocks=True)

        @asynccontextmanager
        async def opened():
            yield world.queue

        settings = WatchSettings("watched", PLACE, world.every, 60.0, 2, "w")
        watcher = Watcher(settings, log, world.objects, opened, world.clock, world.heard.append)
        async with asyncio.TaskGroup() as group:
            running = group.create_task(watcher.run())
            await world.clock.sleep(100.0)
            for name in ("1.json", "2.json"):
                await world.objects.put(name, b"{}\n")
                await world.queue.send(world.message(name))
                await world.clock.sleep(1.0)
            # The first was claimed at once, the second waits for others to come.
            assert [len(claim["objects"]) for claim in world.claims()] == [1]
            begun = world.clock.monotonic()
            await watcher.finish()
            assert world.clock.monotonic() - begun < 1.0
            await running
        assert [len(claim["objects"]) for claim in world.claims()] == [1, 1]
        assert list(world.queue.bodies) == []

    leaping(main)


def test_thousands_at_once_make_few_claims():
    async def main():
        world = World(1, workers=1, deaths=0.0, losses=0.0, every=10 * QUIET)
        for number in range(3000):
            await world.objects.put(f"{number}.json", b"{}\n")
            await world.queue.send(world.message(f"{number}.json"))
        world.queue.on_delete = lambda _: None
        await world.live(0, lambda _: 0)
        await check(world)
        return world

    assert len(leaping(main).claims()) <= 5


def test_one_object_after_a_quiet_time_is_claimed_at_once_and_the_next_ones_wait_for_each_other():
    async def main():
        world = World(0, workers=1, deaths=0.0, losses=0.0, every=10 * QUIET)
        times = {}

        def claimed(event):
            if isinstance(event, events.ObjectsClaimed):
                times[event.number] = world.clock.monotonic(), event.objects

        world.heard = type("Heard", (), {"append": staticmethod(claimed), "__iter__": lambda _: iter(())})()
        async with asyncio.TaskGroup() as group:
            task = group.create_task(world.worker(0))
            await world.clock.sleep(1000.0)
            for at in range(10):
                await world.objects.put(f"{at}.json", b"{}\n")
                await world.queue.send(world.message(f"{at}.json"))
                await world.clock.sleep(1.0)
            await world.clock.sleep(100.0)
            task.cancel()
        return times

    times = leaping(main)
    assert [objects for _, objects in times.values()] == [1, 9]
    assert times[1][0] - 1000.0 < 0.5
    assert times[2][0] - times[1][0] <= 21.0


def test_missing_and_changed_objects_and_invalid_messages_are_distinguished(monkeypatch):
    async def main():
        world = World(0, workers=1, deaths=0.0, losses=0.0, every=10 * QUIET)
        await world.objects.put("kept.json", b"{}\n")
        await world.objects.put("empty.json", b"")
        bodies = [world.message(key) for key in ("kept.json", "empty.json")]
        await world.objects.put("gone.json", b"{}\n")
        bodies.append(world.message("gone.json"))
        await world.objects.delete("gone.json")
        for body in (*bodies, *BESIDE):
            await world.queue.send(body)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(world.worker(0))
            await world.clock.sleep(300.0)
            await world.objects.put("kept.json", b'{"other": 1}\n')
            again = world.message("kept.json")
            await world.queue.send(again)
            await world.clock.sleep(300.0)
            task.cancel()
        return world, again

    world, again = leaping(main)
    assert [item["key"] for claim in world.claims() for item in claim["objects"]] == ["kept.json"]
    skipped = {}
    for event in world.heard:
        if isinstance(event, events.ObjectsSkipped):
            skipped[event.why] = skipped.get(event.why, 0) + event.objects
    # The listing at the start was faster with the one that is kept.
    assert skipped == {"claimed": 1, "deleted": 1, "empty": 1, "test_event": 1, "other_event": 1, "other_place": 1}
    refused = {event.why: event.detail for event in world.heard if isinstance(event, events.ObjectRefused)}
    assert refused.keys() == {"changed", "unreadable"}
    assert "kept.json" in refused["changed"]
    # What a person has to look at stays in the queue.
    assert sorted(world.queue.bodies) == sorted([NOT_JSON, again])


def test_a_queue_that_is_gone_is_reported_once_and_objects_are_found_by_listing():
    from stream.aws.errors import AwsFatal

    async def main():
        world = World(0, workers=1, deaths=0.0, losses=0.0, every=600.0)
        broken = True
        receive = world.queue.receive

        async def gone(**kwargs):
            if broken:
                raise AwsFatal("sqs:ReceiveMessage on queue q was refused", code="QueueDoesNotExist")
            return await receive(**kwargs)

        world.queue.receive = gone
        async with asyncio.TaskGroup() as group:
            task = group.create_task(world.worker(0))
            await world.clock.sleep(100.0)
            await world.objects.put("1.json", b"{}\n")
            await world.clock.sleep(650.0)
            assert len(world.claims()) == 1
            broken = False
            await world.clock.sleep(100.0)
            task.cancel()
        return [event for event in world.heard if isinstance(event, events.QueueFailed | events.QueueAnswered)]

    said = leaping(main)
    assert [type(event) for event in said] == [events.QueueFailed, events.QueueAnswered]
    assert "was refused" in said[0].detail


def test_an_older_build_does_not_read_such_claims_in_its_own_way():
    """It takes `bounds` for required; with it, it would read the objects once more, as shards of its own."""
    import msgspec

    class Older(msgspec.Struct, frozen=True):
        objects: tuple
        bounds: tuple[tuple[int, int], ...]
        worker: str
        claimed_at: str
        url: str = ""

    async def main():
        world = World(0, workers=1, deaths=0.0, losses=0.0)
        await world.objects.put("1.json", b"{}\n")
        await world.live(0, lambda _: 0)
        return world.claims()

    claim = leaping(main)[0]
    with pytest.raises(msgspec.ValidationError, match="bounds"):
        msgspec.convert(claim, Older)
    assert datetime.fromisoformat(claim["claimed_at"])
    with suppress(KeyError):
        raise AssertionError(claim["bounds"])
