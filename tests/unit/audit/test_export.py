import asyncio
from collections import Counter
from datetime import timedelta
from email.utils import format_datetime

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse

from stream import events
from stream.audit.export import Answer, Compression, Cursor, Exporter, Sender, compress, rejected_items, wanted_pause
from stream.audit.spans import Request, Shape
from stream.contracts import Checkpoint, Shard
from stream.worker.exporting import ExportTask, LogUnits, WaitingCheckpoints, export_range
from tests.sealed import NOON, Sealed, StillClock, sequence, shard_id, three_units

OK = Answer(200)


def partial(rejected, why=""):
    return ExportTraceServiceResponse(partial_success={"rejected_spans": rejected, "error_message": why}).SerializeToString()


class Counting:
    """A collector that answers as told, then with 200, and counts every span that it accepted."""

    def __init__(self, answers=(), limit=None):
        self.answers = list(answers)
        self.limit = limit
        self.spans = Counter()
        self.calls = 0

    async def send(self, path, body, encoding):
        self.calls += 1
        if self.limit is not None and len(body) > self.limit:
            return Answer(413)
        answer = self.answers.pop(0) if self.answers else OK
        if answer.status == 200:
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                self.spans.update((span.trace_id, span.span_id) for scope in resource.scope_spans for span in scope.spans)
        return answer


def parts(sealed, collector, shape=None, once=False):
    heard = []
    areas = sealed.stores.areas(sealed.root.url, "events")
    units = LogUnits(sealed.log, "events", areas, sealed.stores.targets["ledger"])
    sender = Sender(collector, sealed.clock, heard.append, lambda: 1.0, Compression.NONE, once=once)
    return Exporter(units, sealed.stores.state, sender, shape or Shape(), sealed.clock, heard.append, "events"), units, heard


async def export_all(exporter, shards=(0, 1)):
    for shard in shards:
        cursor = await exporter.cursor(shard_id(shard))
        while (after := await exporter.step(shard_id(shard), cursor)) is not None:
            cursor = after


def exported(collector, shape=None, once=False):
    async def run():
        sealed = await three_units()
        exporter, _, heard = parts(sealed, collector, shape, once)
        before = sealed.clock.monotonic()
        await export_all(exporter)
        return sealed, exporter, heard, sealed.clock.monotonic() - before

    return asyncio.run(run())


EXTRA = 5 * 9  # spans of the units themselves: poll, 3 stages, 2 data files, rejects, ledger, checkpoint


def test_each_record_once():
    collector = Counting()
    _, exporter, _, waited = exported(collector)
    assert len(collector.spans) == 170 + EXTRA
    assert set(collector.spans.values()) == {1}
    assert waited == 0
    assert asyncio.run(exporter.cursor(shard_id(1))).ended
    assert asyncio.run(exporter.cursor(shard_id(0))) == Cursor(str(sequence(0, 120)), accepted=120 + 27)


@pytest.mark.parametrize("status", [429, 502, 503, 504, 0])
def test_what_is_tried_again_and_how_long_it_waits(status):
    collector = Counting([Answer(status)] * 4)
    _, _, heard, waited = exported(collector)
    assert waited == 1 + 2 + 4 + 8
    assert set(collector.spans.values()) == {1}
    assert len(collector.spans) == 170 + EXTRA
    assert sum(isinstance(event, events.CallRepeated) for event in heard) == 4


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 415, 500, 501])
def test_what_is_never_tried_again_is_parked(status):
    collector = Counting([Answer(status)])
    sealed, exporter, heard, waited = exported(collector)
    assert waited == 0
    assert collector.calls == 5
    assert asyncio.run(exporter.cursor(shard_id(0))).parked == 40 + 9
    assert [event.status for event in heard if isinstance(event, events.ExportRefused)] == [status]
    notes = [key for key in sealed.root._objects if "/parked/" in key]
    assert len(notes) == 1
    assert shard_id(0) in notes[0]


def test_a_partial_success_is_counted_and_not_repeated():
    collector = Counting([Answer(200, partial(7, "too old"))])
    _, exporter, heard, _ = exported(collector)
    cursor = asyncio.run(exporter.cursor(shard_id(0)))
    assert (cursor.rejected, cursor.accepted) == (7, 147 - 7)
    assert collector.calls == 5
    assert [event.detail for event in heard if isinstance(event, events.ExportRefused)] == ["too old"]


def test_a_request_that_is_too_large_is_halved():
    collector = Counting(limit=12_000)
    _, exporter, _, _ = exported(collector)
    assert len(collector.spans) == 170 + EXTRA
    assert set(collector.spans.values()) == {1}
    assert asyncio.run(exporter.cursor(shard_id(0))).parked == 0
    tiny = Counting(limit=10)
    _, exporter, _, _ = exported(tiny)
    assert asyncio.run(exporter.cursor(shard_id(0))) == Cursor(str(sequence(0, 120)), parked=147)


def test_retry_after_is_obeyed():
    _, _, _, waited = exported(Counting([Answer(429, retry_after="17"), Answer(503)]))
    assert waited == 17 + 2
    later = format_datetime(NOON + timedelta(seconds=90), usegmt=True)
    assert wanted_pause(later, NOON) == 90
    assert wanted_pause(format_datetime(NOON - timedelta(seconds=9), usegmt=True), NOON) == 0
    assert wanted_pause("soon", NOON) is None


def test_a_collector_that_was_down_for_hours_costs_lag_only():
    _, _, heard, waited = exported(Counting([Answer(0)] * 200))
    assert waited > 3 * 3600
    assert len([event for event in heard if isinstance(event, events.SpansExported)]) == 5
    assert max(event.seconds for event in heard if isinstance(event, events.ExportLagged)) > 3 * 3600


def test_best_effort_tries_once():
    collector = Counting([Answer(503)])
    _, exporter, _, waited = exported(collector, once=True)
    assert (waited, collector.calls) == (0, 5)
    assert asyncio.run(exporter.cursor(shard_id(0))).parked == 49


@pytest.mark.parametrize("lost", range(6))
def test_a_kill_anywhere_and_a_lost_cursor_change_nothing(lost):
    """Whatever request was the last before the process died, the set of spans is the same: equal ids, equal bytes."""

    async def run():
        sealed, collector = await three_units(), Counting()
        exporter, _, _ = parts(sealed, collector, Shape(request_bytes=8_000))

        class Killed(Exception):
            pass

        async def dying(path, body, encoding, send=collector.send):
            answer = await send(path, body, encoding)
            if collector.calls > lost * 2:
                raise Killed
            return answer

        exporter._sender._collector = type("Dying", (), {"send": staticmethod(dying)})()
        with pytest.raises(Killed):
            await export_all(exporter)
        again, _, _ = parts(sealed, collector, Shape(request_bytes=8_000))
        await export_all(again)
        await sealed.stores.state.put(f"export/events/{shard_id(0)}.json", b"{torn")
        await export_all(again)
        return collector

    collector = asyncio.run(run())
    assert len(collector.spans) == 170 + EXTRA
    assert max(collector.spans.values()) > 1


def test_a_range_is_exported_again():
    async def run():
        sealed, collector = await three_units(), Counting()
        exporter, units, _ = parts(sealed, collector)
        done = await export_range(exporter, units, [shard_id(0), shard_id(1)], sequence(0, 41), sequence(0, 81))
        return done, collector, await exporter.cursor(shard_id(0))

    (units, items), collector, cursor = asyncio.run(run())
    assert (units, items) == (3, 40 + 40 + 25 + 3 * 9)
    assert cursor == Cursor()
    assert len(collector.spans) == items


def test_the_task_follows_the_worker_and_checkpoints_wait_for_it():
    async def run():
        sealed, collector = await Sealed.open(), Counting([Answer(503)] * 3)
        exporter, _, heard = parts(sealed, collector)
        task = ExportTask(exporter, sealed.clock, heard.append, "events")
        stored = []

        class Checkpoints:
            async def advance(self, shard, checkpoint):
                stored.append((checkpoint.position, len(collector.spans)))

        waiting = WaitingCheckpoints(Checkpoints(), task)
        task(events.ShardStarted("events", shard_id(0), 0))
        running = asyncio.ensure_future(task.run())
        await sealed.unit(0, 1, 10)
        await waiting.advance(Shard("events", shard_id(0)), Checkpoint(sequence(0, 10), 0, 0))
        await sealed.unit(0, 11, 10)
        task(events.UnitSealed("events", shard_id(0), 0, 0, (), 0.0, 0.0, 0.0))
        await waiting.advance(Shard("events", shard_id(0)), Checkpoint(sequence(0, 20), 0, 0))
        running.cancel()
        await task.finish()
        return stored, collector

    stored, collector = asyncio.run(run())
    assert [position for position, _ in stored] == [sequence(0, 10), sequence(0, 20)]
    assert stored[0][1] >= 10
    assert stored[1][1] == len(collector.spans)


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b"", (0, "")),
        (partial(0, "careful"), (0, "careful")),
        (partial(3), (3, "")),
        (b"<html>", (0, "")),
        (b"\x0a\xff", (0, "")),
        (b"\xff\xff", (0, "")),
    ],
)
def test_answers_are_read_whatever_they_are(body, found):
    assert rejected_items(body) == found


@pytest.mark.parametrize("compression", list(Compression))
def test_compression(compression):
    import gzip

    import pyarrow as pa

    body = b"span" * 1000
    packed = compress(body, compression)
    if compression is Compression.GZIP:
        assert gzip.decompress(packed) == body
    elif compression is Compression.ZSTD:
        assert pa.Codec("zstd").decompress(packed, len(body), asbytes=True) == body
    else:
        assert packed == body


def test_a_single_item_that_is_too_large_is_given_up():
    heard = []
    sender = Sender(Counting(limit=0), StillClock(), heard.append, lambda: 0.0, Compression.NONE)
    from stream.audit.spans import _wrapped

    request = Request("/v1/traces", _wrapped((b"\x0a\x00", b"\x0a\x00"), b"\x12\x02\x2a\x00"), 1)
    assert asyncio.run(sender.deliver(request, "events", "s")).parked == 1
