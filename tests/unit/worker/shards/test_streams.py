"""What is reported of shards that delay the end of a worker, and what one stream that cannot be read means for the others."""

import asyncio

import pytest

from stream import events
from stream.aws.errors import AccessRefused, StreamMissing
from stream.contracts import Shard, Start, StartKind
from stream.errors import Fatal, most_severe
from stream.worker.parts import StreamParts
from stream.worker.shards import supervisor
from stream.worker.shards.streams import MAX_SHOWN, PendingCalls, Streams
from tests.unit.lease.tables import settle
from tests.unit.worker.shards.test_supervisor import PARENT, Leases, Patient, Stream

MISSING = StreamMissing("kinesis:ListShards was refused: not found. Remedy: create it.", code="ResourceNotFoundException")
DENIED = AccessRefused("kinesis:GetRecords was refused. Remedy: allow it.", code="AccessDeniedException")


def again(shard, call="put file", detail="no answer"):
    return events.CallRepeated("s", shard, call, detail, 1.0)


def report(*happened, strict=False):
    pending = PendingCalls(strict=strict)
    for event in happened:
        pending(event)
    return str(pending)


def test_the_last_repeated_call_of_each_shard_is_reported():
    assert (
        report(again("b"), again("a"), again("a", "write manifest", "503"))
        == "  s/a waits for write manifest: 503\n  s/b waits for put file: no answer"
    )


def test_a_shard_that_continued_since_is_not_reported():
    for passed in (events.Checkpointed("s", "a", 1), events.ShardReleased("s", "a", "drain"), events.ShardEnded("s", "a", ())):
        assert report(again("a"), passed) == ""


def test_waiting_spans_are_reported_only_with_strict():
    refused = events.ExportHalted("s", "a", 403, "who are you", 60.0, blocking=True)
    for event, detail in ((again("a", "export spans"), "no answer"), (refused, "who are you")):
        assert report(event) == ""
        assert report(event, strict=True) == f"  s/a waits for export spans, for which checkpoints wait with `mode: strict`: {detail}"


def test_of_many_shards_some_are_listed_and_the_others_counted():
    lines = report(*(again(f"{number:03}") for number in range(MAX_SHOWN + 5))).splitlines()
    assert (len(lines), lines[-1]) == (MAX_SHOWN + 1, "  and 5 more shards")


class Denied(Stream):
    """A stream whose shards may not be listed, as often as ``denied`` says."""

    denied: int = 0

    async def shards(self):
        if self.denied:
            self.denied -= 1
            raise DENIED
        return await super().shards()


def two_streams(monkeypatch, left, right):
    """One worker of the streams ``s`` and ``t``, and its draining."""
    both = {"s": left, "t": right}
    monkeypatch.setattr(supervisor, "run_shard", lambda shard, start, parts: both[shard.stream].run_shard(shard, start, parts))
    monkeypatch.setattr(supervisor, "SYNC_SECONDS", 0.01)
    draining = asyncio.Event()
    for each in both.values():
        each.draining = draining
    parts = [StreamParts(name, Start(StartKind.TRIM_HORIZON), each) for name, each in both.items()]
    return Streams(parts, draining, left.reported.append, PendingCalls(strict=False)), draining


def play(test):
    return asyncio.run(asyncio.wait_for(test(), 120))


@pytest.mark.parametrize("leased", [False, True])
def test_a_stream_to_which_access_is_refused_before_anything_of_it_is_sealed_goes_on_by_itself(monkeypatch, leased):
    async def run():
        left, right = Stream({"0": [DENIED, DENIED, "work"]}, [Shard("s", "0")]), Stream({"9": ["work"]}, [Shard("t", "9")])
        streams, draining = two_streams(monkeypatch, left, right)
        if leased:
            left.leases, right.leases = Leases(draining, ["0"]), Leases(draining, ["9"])
        running = asyncio.ensure_future(streams.run(0.0))
        while len(left.order) < 3:
            await settle()
        assert not streams.halted
        assert left.clock.slept == [1, 2]
        assert left.leases is None or left.leases.did == [("refused", "0")] * 2
        running.cancel()
        await asyncio.wait([running])
        return [event.shard for event in left.reported if isinstance(event, events.ShardHalted)]

    assert play(run) == ["0", "0"]


def test_a_stream_whose_shards_may_not_be_listed_is_halted_as_a_whole_and_goes_on_by_itself(monkeypatch):
    async def run():
        left, right = Denied({"0": ["work"]}, [Shard("s", "0")]), Stream({"9": ["work"]}, [Shard("t", "9")])
        left.denied = 3
        streams, _ = two_streams(monkeypatch, left, right)
        running = asyncio.ensure_future(streams.run(0.0))
        seen = set()
        while not left.order:
            seen |= streams.halted.keys()
            await asyncio.sleep(0)  # noqa: TID251 - lets the worker go on
        assert (seen, dict(streams.halted)) == ({"s"}, {})
        running.cancel()
        await asyncio.wait([running])
        return [type(event) for event in left.reported if not event.shard and not isinstance(event, events.CallRepeated)]

    assert play(run) == [events.ShardHalted, events.StreamResumed]


def test_a_stream_whose_shards_may_not_be_listed_is_not_halted_where_others_read_it(monkeypatch):
    async def run():
        left, right = Denied({"0": ["work"]}, [Shard("s", "0")]), Stream({"9": ["work"]}, [Shard("t", "9")])
        left.denied = 3
        streams, draining = two_streams(monkeypatch, left, right)
        left.leases, right.leases = Leases(draining, ["0"]), Leases(draining, ["9"])
        left.leases.elsewhere = True
        running = asyncio.ensure_future(streams.run(0.0))
        while not left.order:
            await asyncio.sleep(0)  # noqa: TID251 - lets the worker go on
            assert not streams.halted
        running.cancel()
        await asyncio.wait([running])
        assert left.leases.did == [("refused", "0")] * 3
        return {type(event) for event in left.reported if not event.shard}

    assert play(run) == {events.CallRepeated}


class Deleted(Denied):
    """A stream that is missing when its shards are listed, as often as ``denied`` says, and from the moment at which a shard finds out."""

    async def shards(self):
        if self.denied:
            self.denied -= 1
            raise MISSING
        return self.listed

    async def run_shard(self, shard, start, parts):
        if self.fates[shard.shard_id][0] is MISSING:
            self.denied = 3
        return await super().run_shard(shard, start, parts)


@pytest.mark.parametrize("sealed", [0, 1])
@pytest.mark.parametrize("leased", [False, True])
def test_a_stream_that_is_deleted_halts_as_a_whole_and_is_read_once_it_is_there_again(monkeypatch, leased, sealed):
    """Even if other workers have its leases: none of them can read it. A shard that had ended is looked at again: it may be another one."""

    async def run():
        left = Deleted({"0": [("1",), ("1",)], "1": [MISSING, "work"]}, [PARENT, Shard("s", "1", ("0",))], sealed=sealed)
        streams, draining = two_streams(monkeypatch, left, Stream({"9": ["work"]}, [Shard("t", "9")]))
        if leased:
            left.leases = Leases(draining, ["0", "1"])
            left.leases.elsewhere = True
        running = asyncio.ensure_future(streams.run(0.0))
        seen = set()
        while len(left.order) < 4:
            seen |= streams.halted.keys()
            await asyncio.sleep(0)  # noqa: TID251 - lets the worker go on
            left.clock.seconds += 1
        assert (seen, dict(streams.halted)) == ({"s"}, {})
        assert sorted(left.order[2:]) == ["0", "1"]
        running.cancel()
        await asyncio.wait([running])
        told = [event for event in left.reported if isinstance(event, events.ShardHalted | events.StreamResumed)]
        assert "there is no such stream: kinesis:ListShards" in told[0].reason
        return [(type(event), event.stream, event.shard) for event in told]

    assert play(run) == [(events.ShardHalted, "s", ""), (events.StreamResumed, "s", "")]


def test_a_worker_whose_streams_are_all_deleted_ends_although_it_has_sealed_something(monkeypatch):
    async def run():
        left, right = Deleted({}, [], sealed=1), Deleted({}, [], sealed=1)
        left.denied = right.denied = 100
        streams, _ = two_streams(monkeypatch, left, right)
        with pytest.raises(ExceptionGroup) as ended:
            await streams.run(0.0)
        assert most_severe(ended.value) is MISSING

    play(run)


def test_a_worker_that_may_do_nothing_for_any_of_its_streams_ends_with_the_reason(monkeypatch):
    async def run():
        left, right = Stream({"0": [DENIED]}, [Shard("s", "0")], clock=Patient()), Denied({}, [])
        right.denied = 1
        streams, _ = two_streams(monkeypatch, left, right)
        with pytest.raises(ExceptionGroup) as ended:
            await streams.run(0.0)
        assert isinstance(most_severe(ended.value), AccessRefused)

    play(run)


def test_where_the_only_other_stream_is_gone_refused_access_is_not_waited_for(monkeypatch):
    async def run():
        left, right = Stream({"0": [DENIED]}, [Shard("s", "0")], clock=Patient()), Stream({"9": [Fatal("it is gone")]}, [Shard("t", "9")])
        streams, _ = two_streams(monkeypatch, left, right)
        with pytest.raises(ExceptionGroup) as ended:
            await streams.run(0.0)
        assert str(most_severe(ended.value)) == "it is gone"

    play(run)


def test_a_run_that_ends_gives_a_stream_up_that_it_may_not_read_and_finishes_the_other(monkeypatch):
    async def run():
        left, right = Stream({"0": [DENIED]}, [Shard("s", "0")], once=True), Stream({"9": [()]}, [Shard("t", "9")], once=True)
        streams, _ = two_streams(monkeypatch, left, right)
        await streams.run(0.0)
        return dict(streams.halted), right.order

    assert play(run) == ({"s": str(DENIED)}, ["9"])
