"""The supervisor over an in-memory stream, with shard tasks scripted by each test."""

import asyncio
import errno
import os
from dataclasses import dataclass, field

import pytest

from stream import events
from stream.aws.errors import AccessRefused
from stream.commit.retry import FIRST_REFUSED_SECONDS
from stream.contracts import Shard, Start, StartKind
from stream.errors import Fatal, Halted, LeaseLost, Retryable
from stream.lease.paused import Pause, What
from stream.worker.parts import Stop
from stream.worker.shards import supervisor
from stream.worker.shards.supervisor import Supervisor
from tests.sealed import NOON
from tests.unit.lease.tables import settle

PARENT, LEFT, RIGHT = Shard("s", "0"), Shard("s", "1", ("0",)), Shard("s", "2", ("0",))
MERGED = Shard("s", "3", ("1", "2"))


PAUSE = Pause(what=What.READING, stream="s", by="ann@a", note="new disks", since=NOON)
PAUSED = {each: events.ShardPaused("s", each, "ann@a", "new disks", "", 0.0) for each in "0129"}


class Clock:
    def now(self):
        return NOON

    def __init__(self):
        self.slept = []
        self.seconds = 0.0

    def monotonic(self):
        return self.seconds

    async def sleep(self, seconds):
        self.slept.append(seconds)


class Patient(Clock):
    """A clock whose pauses never end."""

    async def sleep(self, seconds):
        self.slept.append(seconds)
        await asyncio.Event().wait()


@dataclass
class Stream:
    """Source, parts and shard tasks in one; ``fates`` maps shard ids to what their tasks do, one entry per start."""

    fates: dict
    listed: list
    draining: asyncio.Event = field(default_factory=asyncio.Event)
    clock: Clock = field(default_factory=Clock)
    reported: list = field(default_factory=list)
    order: list = field(default_factory=list)
    leases: None = None
    once: bool = False
    sealed: int = 0
    paused: dict = field(default_factory=dict)
    listeners: list = field(default_factory=list)

    @property
    def source(self):
        return self

    @property
    def committer(self):
        return self

    @property
    def emit(self):
        return self.reported.append

    @property
    def stop_listeners(self):
        return [self.listeners, *([self.leases.listeners] if self.leases else ())]

    def pause_of(self, shard):
        return self.paused.get(shard.shard_id)

    def pause(self, *shard_ids):
        self.paused |= dict.fromkeys(shard_ids, PAUSE)

    def tell(self):
        for listeners in self.stop_listeners:
            for listener in tuple(listeners):
                listener()

    @property
    def checkpoints(self):
        return self

    async def read(self, shard):
        return None

    async def shards(self):
        return self.listed

    async def run_shard(self, shard, start, parts):
        self.order.append(shard.shard_id)
        fate = self.fates[shard.shard_id].pop(0)
        if isinstance(fate, Exception):
            raise fate
        if fate == "hand over":
            self.leases.wanted.add(shard.shard_id)
            return Stop.HANDED_OVER
        if fate == "drain":
            self.draining.set()
            return Stop.DRAIN
        if fate == "work":
            await asyncio.Event().wait()
        if fate == "pause":
            self.pause(shard.shard_id)
            return Stop.PAUSED
        return fate


class Leases:
    """Leases of a worker whose leader assigns and withdraws shards, as ``wanted`` says."""

    def __init__(self, draining, mine):
        self.listeners = []
        self.mine = set(mine)
        self.wanted = set()
        self.taken_over = set()
        self.elsewhere = False
        self.did = []
        self._draining = draining

    def runnable(self, stream):
        return set(self.mine)

    def held(self, stream):
        return set(self.mine)

    def wanted_elsewhere(self, stream, shard_id):
        return shard_id in self.wanted

    def read_elsewhere(self, stream):
        return self.elsewhere

    def finished_elsewhere(self, stream, shard_id):
        return []

    def from_its_beginning(self, stream, shard_id):
        return False

    def refused(self, stream, shard_id):
        self.did.append(("refused", shard_id))

    def inherited(self, stream, shard_id):
        return shard_id in self.taken_over

    async def release(self, stream, shard_id, *, avoid=False):
        self.did.append(("release", shard_id))
        self.mine.discard(shard_id)
        if shard_id in self.wanted:
            # The leader thinks better of it.
            self.wanted.discard(shard_id)
            self.mine.add(shard_id)
        for listener in self.listeners:
            listener()

    async def done(self, stream, shard_id):
        self.did.append(("done", shard_id))

    async def stop_taking(self):
        self.did.append(("stop taking", ""))


def supervise(monkeypatch, fates, *shards):
    async def run():
        stream = Stream(fates, list(shards))
        monkeypatch.setattr(supervisor, "run_shard", stream.run_shard)
        watched = Supervisor("s", Start(StartKind.TRIM_HORIZON), stream)
        await watched.run()
        return stream, watched

    return asyncio.run(asyncio.wait_for(run(), 120))


def test_a_shard_that_was_handed_over_is_worked_on_again_when_it_comes_back(monkeypatch):
    async def run():
        stream = Stream({"0": ["hand over", "drain"]}, [PARENT])
        stream.leases = Leases(stream.draining, ["0"])
        monkeypatch.setattr(supervisor, "run_shard", stream.run_shard)
        await Supervisor("s", Start(StartKind.TRIM_HORIZON), stream).run()
        return stream

    stream = asyncio.run(asyncio.wait_for(run(), 120))
    assert stream.order == ["0", "0"]
    # Nobody is told that it goes before the leader is told that nothing more may come.
    assert stream.leases.did[0] == ("release", "0")
    assert stream.leases.did.index(("stop taking", "")) < stream.leases.did.index(("release", "0"), 1)


def test_a_shard_without_a_task_is_handed_over_at_once(monkeypatch):
    async def run():
        stream = Stream({"0": [Halted("bad"), "drain"], "1": ["drain"]}, [PARENT, LEFT])
        stream.leases = Leases(stream.draining, ["0"])
        monkeypatch.setattr(supervisor, "run_shard", stream.run_shard)
        watched = Supervisor("s", Start(StartKind.TRIM_HORIZON), stream)
        running = asyncio.ensure_future(watched.run())
        await settle()
        assert watched.halted
        stream.leases.wanted.add("0")
        watched.changed.set()
        await settle()
        stream.draining.set()
        watched.changed.set()
        await running
        return stream

    stream = asyncio.run(asyncio.wait_for(run(), 120))
    assert stream.leases.did[0] == ("release", "0")
    assert stream.order == ["0"]


def test_children_start_after_both_parents_ended(monkeypatch):
    fates = {"0": [("1", "2")], "1": [("3",)], "2": [("3",)], "3": ["drain"]}
    stream, watched = supervise(monkeypatch, fates, MERGED, RIGHT, LEFT, PARENT)
    assert stream.order == ["0", "1", "2", "3"]
    assert watched._ended == {"0", "1", "2"}


def test_a_fatal_error_ends_the_process_unchanged(monkeypatch):
    with pytest.raises(Fatal, match="no permission"):
        supervise(monkeypatch, {"0": [Fatal("no permission")]}, PARENT)


def test_a_halted_shard_is_parked_and_its_children_wait(monkeypatch):
    stream, watched = supervise(monkeypatch, {"0": [Halted("look here")]}, PARENT, LEFT)
    assert watched.halted == {"0": "look here"}
    assert stream.order == ["0"]
    assert stream.reported == [events.ShardHalted("s", "0", "look here")]


def test_a_halted_shard_does_not_stop_another(monkeypatch):
    other = Shard("s", "9")
    stream, watched = supervise(monkeypatch, {"0": [Halted("h")], "9": [Retryable("again"), "drain"]}, PARENT, other)
    assert stream.order == ["0", "9", "9"]
    assert stream.clock.slept == [supervisor.RESTART_SECONDS]
    assert set(watched.halted) == {"0"}


DENIED = AccessRefused("s3:PutObject was refused. Remedy: enable the key.", code="KMS.DisabledException")


def test_access_that_is_taken_away_halts_the_shard_which_is_tried_again_less_and_less(monkeypatch):
    class Hours(Clock):
        async def sleep(self, seconds):
            self.seconds += seconds
            await super().sleep(seconds)

    async def run():
        stream = Stream({"0": [DENIED] * 9 + ["work"]}, [PARENT], sealed=1, clock=Hours())
        monkeypatch.setattr(supervisor, "run_shard", stream.run_shard)
        watched = Supervisor("s", Start(StartKind.TRIM_HORIZON), stream)
        running = asyncio.ensure_future(watched.run())
        while len(stream.order) < 10:
            await settle()
        halted = dict(watched.halted)
        running.cancel()
        await asyncio.wait([running])
        return stream, halted

    stream, halted = asyncio.run(asyncio.wait_for(run(), 120))
    assert stream.clock.slept == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert halted == {}
    reasons = [event.reason for event in stream.reported]
    assert len(reasons) == 9
    assert all("Remedy: enable the key. The shard is tried again" in reason for reason in reasons)


@pytest.mark.parametrize("options", [{"sealed": 0}, {"sealed": 1, "once": True}], ids=["nothing sealed", "a run that ends"])
def test_access_refused_to_a_worker_that_may_be_set_up_wrongly_or_has_an_end_ends_it(monkeypatch, options):
    async def run():
        stream = Stream({"0": [DENIED]}, [PARENT], **options)
        monkeypatch.setattr(supervisor, "run_shard", stream.run_shard)
        await Supervisor("s", Start(StartKind.TRIM_HORIZON), stream).run()

    with pytest.raises(AccessRefused):
        asyncio.run(asyncio.wait_for(run(), 120))


@pytest.mark.parametrize("leased", [False, True])
def test_a_shard_that_waits_for_access_holds_up_no_drain_and_is_then_reported(monkeypatch, leased):
    async def run():
        stream = Stream({"0": [DENIED], "9": ["drain"]}, [PARENT, Shard("s", "9")], sealed=1, clock=Patient())
        stream.leases = Leases(stream.draining, ["0", "9"]) if leased else None
        monkeypatch.setattr(supervisor, "run_shard", stream.run_shard)
        watched = Supervisor("s", Start(StartKind.TRIM_HORIZON), stream)
        await watched.run()
        return watched

    assert set(asyncio.run(asyncio.wait_for(run(), 120)).halted) == {"0"}


@pytest.mark.parametrize(("sealed", "ends"), [(0, True), (1, False)])
def test_shards_that_may_not_be_listed_for_a_while_do_not_disturb_those_that_are_read(monkeypatch, sealed, ends):
    monkeypatch.setattr(supervisor, "SYNC_SECONDS", 0.01)

    class Secret(Stream):
        async def shards(self):
            if self.order:
                self.draining.set()
                raise DENIED
            return self.listed

    async def run():
        stream = Secret({"0": [("1",)]}, [PARENT], sealed=sealed)
        monkeypatch.setattr(supervisor, "run_shard", stream.run_shard)
        await Supervisor("s", Start(StartKind.TRIM_HORIZON), stream).run()
        return stream

    if ends:
        with pytest.raises(AccessRefused):
            asyncio.run(asyncio.wait_for(run(), 120))
    else:
        repeated = [event for event in asyncio.run(asyncio.wait_for(run(), 120)).reported if isinstance(event, events.CallRepeated)]
        assert [event.call for event in repeated] == ["list shards"]


class Closed(Stream):
    """A stream whose shards may not be listed, the first ``refusals`` times."""

    refusals = 2

    async def shards(self):
        self.refusals -= 1
        if self.refusals >= 0:
            raise DENIED
        return self.listed


@pytest.mark.parametrize("leased", [False, True])
def test_a_stream_that_may_not_be_listed_from_the_start_is_halted_as_a_whole_until_it_may(monkeypatch, leased):
    monkeypatch.setattr(supervisor, "SYNC_SECONDS", 0.01)
    monkeypatch.setattr(supervisor, "LISTING_SECONDS", 0.0)

    async def run():
        stream = Closed({"0": ["drain"]}, [PARENT])
        stream.leases = Leases(stream.draining, ["0"] if leased else []) if leased else None
        monkeypatch.setattr(supervisor, "run_shard", stream.run_shard)
        await Supervisor("s", Start(StartKind.TRIM_HORIZON), stream, lambda: True).run()
        return stream

    reported = asyncio.run(asyncio.wait_for(run(), 120)).reported
    told = [event for event in reported if isinstance(event, events.ShardHalted | events.StreamResumed)]
    assert [(type(event), event.stream, event.shard) for event in told] == [(events.ShardHalted, "s", ""), (events.StreamResumed, "s", "")]
    assert "cannot be listed: s3:PutObject was refused" in told[0].reason


def test_a_stream_that_may_not_be_listed_here_is_not_halted_if_other_workers_read_it(monkeypatch):
    monkeypatch.setattr(supervisor, "SYNC_SECONDS", 0.01)
    monkeypatch.setattr(supervisor, "LISTING_SECONDS", 0.0)

    class Watched(Closed):
        async def shards(self):
            if self.refusals == 1:
                self.leases.elsewhere = True
            if self.refusals == 0:
                self.draining.set()
            return await super().shards()

    async def run():
        stream = Watched({}, [])
        stream.leases = Leases(stream.draining, [])
        watched = Supervisor("s", Start(StartKind.TRIM_HORIZON), stream, lambda: True)
        await watched.run()
        return stream, watched

    stream, watched = asyncio.run(asyncio.wait_for(run(), 120))
    told = [type(event) for event in stream.reported if isinstance(event, events.ShardHalted | events.StreamResumed)]
    assert told == [events.ShardHalted, events.StreamResumed]
    assert watched.unlisted == ""


def test_an_unexpected_error_parks_only_its_shard(monkeypatch):
    stream, watched = supervise(monkeypatch, {"0": [KeyError("of a record")], "9": ["drain"]}, PARENT, Shard("s", "9"))
    assert "unexpected KeyError; please report it with this trace: test_supervisor.py:" in watched.halted["0"]
    assert "of a record" not in watched.halted["0"]
    assert stream.order == ["0", "9"]


def test_the_text_of_a_system_error_is_reported_without_its_file_name(monkeypatch):
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "kind=of a record")
    _, watched = supervise(monkeypatch, {"0": [full]}, PARENT)
    assert "unexpected OSError (No space left on device)" in watched.halted["0"]
    assert "of a record" not in watched.halted["0"]


def test_a_lost_lease_ends_the_shard_without_an_alarm(monkeypatch):
    stream, watched = supervise(monkeypatch, {"0": [LeaseLost("gone")], "9": ["drain"]}, PARENT, Shard("s", "9"))
    assert not watched.halted
    assert events.ShardReleased("s", "0", "lease_lost") in stream.reported


def test_a_lease_lost_just_before_its_shard_starts_may_come_back(monkeypatch):
    class Losing(Stream):
        async def shards(self):
            if not self.order:
                self.leases.mine.discard("0")
                self.leases.listeners[0]()
            return self.listed

    async def run():
        stream = Losing({"0": ["work", "drain"]}, [PARENT])
        stream.leases = Leases(stream.draining, ["0"])
        monkeypatch.setattr(supervisor, "run_shard", stream.run_shard)
        async with asyncio.TaskGroup() as group:
            group.create_task(Supervisor("s", Start(StartKind.TRIM_HORIZON), stream).run())
            await settle()
            assert events.ShardReleased("s", "0", "lease_lost") in stream.reported
            stream.leases.mine.add("0")
            stream.leases.listeners[0]()
        return stream.order

    assert asyncio.run(asyncio.wait_for(run(), 120)) == ["0", "0"]


@pytest.mark.parametrize("leased", [False, True])
def test_a_drain_does_not_wait_for_a_service_that_does_not_answer(monkeypatch, leased):
    class Silent(Stream):
        async def shards(self):
            await asyncio.Event().wait()

    async def run():
        stream = Silent({}, [PARENT])
        stream.leases = Leases(stream.draining, ["0"]) if leased else None
        watched = Supervisor("s", Start(StartKind.TRIM_HORIZON), stream)
        running = asyncio.ensure_future(watched.run())
        await settle()
        stream.draining.set()
        watched.changed.set()
        await running
        return stream.order

    assert asyncio.run(asyncio.wait_for(run(), 120)) == []


def test_a_leased_stream_is_listed_now_and_then_even_if_no_lease_arrives(monkeypatch):
    class Counted(Stream):
        looks = 0

        async def shards(self):
            Counted.looks += 1
            return self.listed

    async def run():
        stream = Counted({"0": ["work"]}, [PARENT])
        stream.leases = Leases(stream.draining, ["0"])
        monkeypatch.setattr(supervisor, "run_shard", stream.run_shard)
        watched = Supervisor("s", Start(StartKind.TRIM_HORIZON), stream)
        running, seen = asyncio.ensure_future(watched.run()), []
        for _ in range(3):
            await settle()
            seen.append(Counted.looks)
            watched.changed.set()
            await settle()
            seen.append(Counted.looks)
            stream.clock.seconds += supervisor.LISTING_SECONDS
            watched.changed.set()
        running.cancel()
        await asyncio.wait([running])
        return seen

    assert asyncio.run(asyncio.wait_for(run(), 120)) == [1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize(
    ("error", "waits", "halted"),
    [(Retryable("again"), supervisor.RESTART_SECONDS, set()), (DENIED, FIRST_REFUSED_SECONDS, {"0"})],
    ids=["retry", "access"],
)
def test_a_lease_lost_while_its_shard_waits_may_come_back(monkeypatch, error, waits, halted):
    async def run():
        stream = Stream({"0": [error, "drain"]}, [PARENT], sealed=1, clock=Patient())
        stream.leases = Leases(stream.draining, ["0"])
        monkeypatch.setattr(supervisor, "run_shard", stream.run_shard)
        watched = Supervisor("s", Start(StartKind.TRIM_HORIZON), stream)
        async with asyncio.TaskGroup() as group:
            group.create_task(watched.run())
            await settle()
            assert stream.clock.slept == [waits]
            assert set(watched.halted) == halted
            stream.leases.mine.discard("0")
            stream.leases.listeners[0]()
            await settle()
            assert not watched.halted
            assert not watched._active
            stream.leases.mine.add("0")
            stream.leases.listeners[0]()
        return stream

    stream = asyncio.run(asyncio.wait_for(run(), 120))
    assert stream.order == ["0", "0"]
    assert [event for event in stream.reported if isinstance(event, events.ShardReleased)] == [events.ShardReleased("s", "0", "lease_lost")]


def test_a_lease_lost_twice_is_released_twice(monkeypatch):
    """Also if the first error came before the loss of the lease was noticed."""

    class Torn(Stream):
        async def run_shard(self, shard, start, parts):
            self.order.append(shard.shard_id)
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if len(self.order) == 1:
                    raise Retryable("the store failed at the same moment") from None
                raise

    async def run():
        stream = Torn({}, [PARENT])
        stream.leases = Leases(stream.draining, ["0"])
        monkeypatch.setattr(supervisor, "run_shard", stream.run_shard)
        watched = Supervisor("s", Start(StartKind.TRIM_HORIZON), stream)
        running = asyncio.ensure_future(watched.run())
        for _ in range(2):
            await settle()
            assert watched._active == {"0"}
            stream.leases.mine.discard("0")
            stream.leases.listeners[0]()
            await settle()
            assert not watched._active
            stream.leases.mine.add("0")
            stream.leases.listeners[0]()
        running.cancel()
        return stream.order

    assert asyncio.run(asyncio.wait_for(run(), 120))[:2] == ["0", "0"]


@pytest.mark.parametrize(("error", "again"), [(Halted("bad"), True), (KeyError("oops"), False)])
def test_a_halted_shard_whose_lease_moved_is_reported_only_while_it_may_come_back(monkeypatch, error, again):
    async def run():
        stream = Stream({"0": [error, "work"]}, [PARENT])
        stream.leases = Leases(stream.draining, ["0"])
        monkeypatch.setattr(supervisor, "run_shard", stream.run_shard)
        watched = Supervisor("s", Start(StartKind.TRIM_HORIZON), stream)
        running = asyncio.ensure_future(watched.run())
        await settle()
        assert set(watched.halted) == {"0"}
        stream.leases.mine.discard("0")
        stream.leases.listeners[0]()
        await settle()
        still = set(watched.halted)
        stream.leases.mine.add("0")
        stream.leases.listeners[0]()
        await settle()
        running.cancel()
        return still, stream

    still, stream = asyncio.run(asyncio.wait_for(run(), 120))
    assert still == (set() if again else {"0"})
    assert stream.order == (["0", "0"] if again else ["0"])
    assert (events.ShardReleased("s", "0", "lease_lost") in stream.reported) is again


def paused(stream, monkeypatch, test):
    """Run ``test`` beside a supervisor of ``stream``, and then drain it."""

    async def run():
        monkeypatch.setattr(supervisor, "run_shard", stream.run_shard)
        watched = Supervisor("s", Start(StartKind.TRIM_HORIZON), stream)
        running = asyncio.ensure_future(watched.run())
        await settle()
        await test(watched)
        stream.draining.set()
        watched.changed.set()
        await running

    asyncio.run(asyncio.wait_for(run(), 120))


@pytest.mark.parametrize("leased", [False, True])
def test_a_paused_shard_is_not_started_and_its_lease_stays_until_it_is_resumed(monkeypatch, leased):
    stream = Stream({"0": ["drain"], "9": ["work"]}, [PARENT, Shard("s", "9")])
    stream.leases = Leases(stream.draining, ["0", "9"]) if leased else None
    stream.pause("0")

    async def test(watched):
        assert stream.order == ["9"]
        assert stream.reported == [PAUSED["0"]]
        stream.tell()
        await settle()
        assert stream.reported == [PAUSED["0"]], "told again although nothing has changed"
        assert not leased or stream.leases.did == []
        stream.paused.clear()
        stream.tell()
        await settle()
        assert stream.order == ["9", "0"]
        assert stream.reported == [PAUSED["0"], events.ShardResumed("s", "0")]
        watched._tasks["9"].cancel()

    paused(stream, monkeypatch, test)


@pytest.mark.parametrize("leased", [False, True])
def test_a_shard_that_stopped_for_a_pause_keeps_its_lease_and_is_started_again_when_it_is_resumed(monkeypatch, leased):
    stream = Stream({"0": ["pause", "drain"]}, [PARENT])
    stream.leases = Leases(stream.draining, ["0"]) if leased else None

    async def test(_watched):
        assert (stream.order, stream.reported) == (["0"], [PAUSED["0"]])
        assert not leased or stream.leases.did == []
        stream.paused.clear()
        stream.tell()
        await settle()
        assert stream.order == ["0", "0"]

    paused(stream, monkeypatch, test)


def test_a_pause_that_is_over_when_the_shard_has_stopped_for_it_starts_the_shard_again(monkeypatch):
    class Hasty(Stream):
        def pause(self, *shard_ids):
            pass

    stream, _ = Hasty({"0": ["pause", "drain"]}, [PARENT]), None

    async def test(_watched):
        assert stream.order == ["0", "0"]

    paused(stream, monkeypatch, test)


def test_the_children_of_a_paused_shard_wait(monkeypatch):
    stream = Stream({"0": [("1", "2")], "1": ["drain"]}, [PARENT, LEFT, RIGHT])
    stream.pause("0", "2")

    async def test(_watched):
        assert stream.order == []
        assert stream.reported == [PAUSED["0"]]
        del stream.paused["0"]
        stream.tell()
        await settle()
        assert stream.order == ["0", "1"]

    paused(stream, monkeypatch, test)


def test_a_paused_shard_whose_lease_is_lost_is_no_longer_shown_here(monkeypatch):
    stream = Stream({}, [PARENT])
    stream.leases = Leases(stream.draining, ["0"])
    stream.pause("0")

    async def test(_watched):
        stream.leases.mine.clear()
        stream.tell()
        await settle()
        assert stream.reported == [PAUSED["0"], events.ShardReleased("s", "0", "lease_lost")]
        assert stream.order == []

    paused(stream, monkeypatch, test)


def test_a_paused_shard_is_handed_over_when_a_leader_wants_another_worker_to_have_it(monkeypatch):
    stream = Stream({}, [PARENT])
    stream.leases = Leases(stream.draining, ["0"])
    stream.pause("0")

    async def test(_watched):
        stream.leases.wanted.add("0")
        stream.tell()
        await settle()
        assert stream.leases.did == [("release", "0")]

    paused(stream, monkeypatch, test)


def test_a_drain_releases_the_leases_of_paused_shards(monkeypatch):
    stream = Stream({}, [PARENT])
    stream.leases = Leases(stream.draining, ["0"])
    stream.pause("0")

    async def test(_watched):
        assert stream.leases.did == []

    paused(stream, monkeypatch, test)
    assert ("release", "0") in stream.leases.did


def test_while_shards_cannot_be_listed_none_is_reported_as_resumed(monkeypatch):
    class Failing(Stream):
        async def shards(self):
            if self.reported:
                raise Retryable("no answer")
            return self.listed

    stream = Failing({}, [PARENT])
    stream.pause("0")

    async def test(_watched):
        stream.tell()
        await settle()
        assert not [event for event in stream.reported if isinstance(event, events.ShardResumed)]

    paused(stream, monkeypatch, test)


def test_a_run_that_ends_leaves_paused_shards_and_says_which(monkeypatch):
    async def run():
        stream = Stream({"9": [("10",)]}, [PARENT, Shard("s", "9")], once=True)
        stream.pause("0")
        monkeypatch.setattr(supervisor, "run_shard", stream.run_shard)
        watched = Supervisor("s", Start(StartKind.TRIM_HORIZON), stream)
        await watched.run()
        return stream, watched

    stream, watched = asyncio.run(asyncio.wait_for(run(), 120))
    assert stream.order == ["9"]
    assert watched.finished
    assert watched.paused.shown == {"0": PAUSE}


def test_a_run_that_ends_and_is_paused_meanwhile_says_what_it_has_not_read(monkeypatch):
    async def run():
        stream = Stream({"0": ["pause"]}, [PARENT], once=True)
        monkeypatch.setattr(supervisor, "run_shard", stream.run_shard)
        watched = Supervisor("s", Start(StartKind.TRIM_HORIZON), stream)
        await watched.run()
        return stream, watched

    stream, watched = asyncio.run(asyncio.wait_for(run(), 120))
    assert stream.order == ["0"]
    assert watched.paused.shown == {"0": PAUSE}


def test_a_halted_shard_does_not_end_the_process_while_another_is_only_paused(monkeypatch):
    stream = Stream({"9": [Halted("look here")], "0": ["drain"]}, [PARENT, Shard("s", "9")])
    stream.pause("0")

    async def test(watched):
        assert watched.halted
        assert not watched.finished
        stream.paused.clear()
        stream.tell()
        await settle()
        assert stream.order == ["9", "0"]

    paused(stream, monkeypatch, test)


def test_a_shard_whose_lease_came_from_a_worker_without_access_ends_no_worker_and_others_are_told(monkeypatch):
    """It has sealed nothing, but that access is refused to the other one too says that neither is set up wrongly."""

    async def run():
        stream = Stream({"0": [DENIED], "9": ["drain"]}, [PARENT, Shard("s", "9")], clock=Patient())
        stream.leases = Leases(stream.draining, ["0", "9"])
        stream.leases.taken_over.add("0")
        monkeypatch.setattr(supervisor, "run_shard", stream.run_shard)
        watched = Supervisor("s", Start(StartKind.TRIM_HORIZON), stream)
        await watched.run()
        return watched, stream.leases

    watched, leases = asyncio.run(asyncio.wait_for(run(), 120))
    assert set(watched.halted) == {"0"}
    assert ("refused", "0") in leases.did


def test_shards_that_wait_for_a_listing_that_is_refused_are_reported_to_other_workers(monkeypatch):
    monkeypatch.setattr(supervisor, "SYNC_SECONDS", 0.01)

    class Secret(Stream):
        async def shards(self):
            self.draining.set()
            raise DENIED

    async def run():
        stream = Secret({}, [PARENT], sealed=1)
        stream.leases = Leases(stream.draining, ["0"])
        monkeypatch.setattr(supervisor, "run_shard", stream.run_shard)
        await Supervisor("s", Start(StartKind.TRIM_HORIZON), stream).run()
        return stream.leases

    assert ("refused", "0") in asyncio.run(asyncio.wait_for(run(), 120)).did
