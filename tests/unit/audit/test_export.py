import asyncio
import gzip
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from email.utils import format_datetime
from random import Random

import pyarrow as pa
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse

from stream import events
from stream.audit.export import ENCODED_AT_ONCE, Cursor, Exporter, LedgerMissing, Refused, Sender
from stream.audit.export_options import Shape
from stream.audit.negotiation import ACCEPTED_AS_GZIP_ONLY, Negotiation
from stream.audit.otlp_responses import Answer, is_page, rejected_items, requested_pause
from stream.audit.packing import Compression, Request, compressed
from stream.contracts import Checkpoint, Shard
from stream.errors import Fatal, LeaseLost, Retryable
from stream.operations.records.span_export import export_range
from stream.simulation.virtual_time import leaping
from stream.worker.receivers import exporting
from stream.worker.receivers.exporting import ExportTask, WaitingCheckpoints
from stream.worker.receivers.log_units import LogUnits
from tests.sealed import NOON, Sealed, StillClock, sequence, shard_id, three_units
from tests.turns import Turns, turns
from tests.unit.lease.tables import settle

OK = Answer(200)


def partial(rejected, why=""):
    return ExportTraceServiceResponse(partial_success={"rejected_spans": rejected, "error_message": why}).SerializeToString()


class CountingCollector:
    """A collector that gives the scripted answers, then 200, and counts the spans that it accepted."""

    def __init__(self, answers=(), limit=None):
        self.answers = list(answers)
        self.limit = limit
        self.spans = Counter()
        self.names = Counter()
        self.calls = 0

    async def send(self, path, body, encoding):
        self.calls += 1
        if self.limit is not None and len(body) > self.limit:
            return Answer(413)
        answer = self.answers.pop(0) if self.answers else OK
        if answer.status == 200:
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                self.spans.update((span.trace_id, span.span_id) for scope in resource.scope_spans for span in scope.spans)
                self.names.update(span.name for scope in resource.scope_spans for span in scope.spans)
        return answer


def parts(sealed, collector, shape=None, once=False, compression=Compression.NONE):
    heard = []
    areas = sealed.stores.areas(sealed.root.url, "events")
    units = LogUnits(sealed.log, "events", areas, sealed.stores.targets["ledger"])
    sender = Sender(collector, sealed.clock, heard.append, lambda: 1.0, compression, once=once)
    return Exporter(units, sealed.stores.state, sender, shape or Shape(), sealed.clock, heard.append, "events"), units, heard


async def export_all(exporter, shards=(0, 1)):
    for shard in shards:
        cursor = await exporter.cursor(shard_id(shard))
        while (after := await exporter.step(shard_id(shard), cursor)) is not None:
            cursor = after


def exported(collector, shape=None, once=False, compression=Compression.NONE):
    async def run():
        sealed = await three_units()
        exporter, _, heard = parts(sealed, collector, shape, once, compression)
        before = sealed.clock.monotonic()
        await export_all(exporter)
        return sealed, exporter, heard, sealed.clock.monotonic() - before

    return asyncio.run(run())


EXTRA = 5 * 9  # spans of the units themselves: poll, 3 stages, 2 data files, rejects, ledger, checkpoint


def test_each_record_is_exported_once():
    collector = CountingCollector()
    _, exporter, _, waited = exported(collector)
    assert len(collector.spans) == 170 + EXTRA
    assert set(collector.spans.values()) == {1}
    assert waited == 0
    assert asyncio.run(exporter.cursor(shard_id(1))).ended
    assert asyncio.run(exporter.cursor(shard_id(0))) == Cursor(str(sequence(0, 120)), accepted=120 + 27)


@pytest.mark.parametrize("status", [429, 502, 503, 504, 0])
def test_retryable_answers_are_repeated_with_growing_pauses(status):
    collector = CountingCollector([Answer(status, detail="why")] * 4)
    _, _, heard, waited = exported(collector)
    assert waited == 1 + 2 + 4 + 8
    assert set(collector.spans.values()) == {1}
    assert len(collector.spans) == 170 + EXTRA
    reported = [event.detail for event in heard if isinstance(event, events.CallRepeated)]
    assert reported == [f"{status or 'no answer:'} why"] * 4


@pytest.mark.parametrize("status", [400, 422])
def test_an_invalid_request_is_parked_and_the_next_one_sent(status):
    collector = CountingCollector([Answer(status)])
    sealed, exporter, heard, waited = exported(collector)
    assert waited == 0
    assert collector.calls == 5
    assert asyncio.run(exporter.cursor(shard_id(0))).parked == 40 + 9
    assert [event.status for event in heard if isinstance(event, events.ExportRefused)] == [status]
    notes = [key for key in sealed.root._objects if "/parked/" in key]
    assert len(notes) == 1
    assert shard_id(0) in notes[0]


class WithoutZstd(CountingCollector):
    """A collector that supports only gzip."""

    def __init__(self, status, answers=()):
        super().__init__(answers)
        self.status = status
        self.encodings = []

    async def send(self, path, body, encoding):
        self.encodings.append(encoding)
        return await super().send(path, gzip.decompress(body), encoding) if encoding == "gzip" else Answer(self.status, detail="Huh?")


@pytest.mark.parametrize("once", [False, True])
@pytest.mark.parametrize("status", [301, 400, 401, 404, 415, 422, 500, 501])
def test_a_collector_without_zstd_gets_gzip_from_then_on(status, once):
    collector = WithoutZstd(status)
    _, _, heard, waited = exported(collector, once=once, compression=Compression.ZSTD)
    assert len(collector.spans) == 170 + EXTRA
    assert set(collector.spans.values()) == {1}
    assert collector.encodings == ["zstd", "gzip", "gzip", "gzip", "gzip", "gzip"]
    assert [event.detail for event in heard if isinstance(event, events.CallRepeated)] == [f"{status} Huh? to zstd: sent as gzip"]
    assert waited == 0


def test_requests_already_encoded_are_sent_as_they_are():
    collector = WithoutZstd(400)
    exported(collector, Shape(request_bytes=4096), compression=Compression.ZSTD)
    assert len(collector.spans) == 170 + EXTRA
    assert set(collector.spans.values()) == {1}
    first = ENCODED_AT_ONCE * ["zstd", "gzip"]
    assert collector.encodings[: len(first)] == first
    assert set(collector.encodings[len(first) :]) == {"gzip"}


def test_a_request_invalid_in_both_encodings_is_parked_and_does_not_disable_zstd():
    collector = WithoutZstd(400, [Answer(400)])
    _, exporter, heard, _ = exported(collector, compression=Compression.ZSTD)
    assert asyncio.run(exporter.cursor(shard_id(0))).parked == 40 + 9
    assert len([event for event in heard if isinstance(event, events.ExportRefused)]) == 1
    assert collector.encodings == ["zstd", "gzip", "zstd", "gzip", "gzip", "gzip", "gzip"]


def test_a_collector_that_took_zstd_before_gets_gzip_only_if_it_cannot_read_a_body():
    negotiation = Negotiation(Compression.ZSTD)
    negotiation.accepted(Compression.ZSTD, blamed=False)
    assert {status for status in range(200, 600) if negotiation.blames(Compression.ZSTD, status)} == {400, 415}
    assert negotiation.after_pause(Compression.ZSTD) is Compression.ZSTD
    negotiation.accepted(Compression.GZIP, blamed=False)
    assert negotiation.chosen is Compression.ZSTD
    negotiation.accepted(Compression.GZIP, blamed=True)
    assert negotiation.chosen is Compression.GZIP


def test_only_an_answer_that_is_final_and_not_about_size_is_blamed_on_zstd():
    negotiation = Negotiation(Compression.ZSTD)
    assert not any(negotiation.blames(Compression.ZSTD, status) for status in (0, 200, 202, 413, 429, 502, 503, 504))
    assert not any(negotiation.blames(used, 400) for used in (Compression.GZIP, Compression.NONE))


class ClosesOnZstd(WithoutZstd):
    """A collector behind something that closes the connection when it cannot read a body."""

    def __init__(self, down=0):
        super().__init__(0)
        self.down = down

    async def send(self, path, body, encoding):
        self.down -= 1
        if self.down >= 0:
            self.encodings.append(encoding)
            return Answer(0, detail="connection closed")
        return await super().send(path, body, encoding)


def test_a_collector_that_never_answers_zstd_gets_gzip_after_a_few_requests():
    collector = ClosesOnZstd()
    _, _, heard, _ = exported(collector, compression=Compression.ZSTD)
    assert len(collector.spans) == 170 + EXTRA
    assert set(collector.spans.values()) == {1}
    assert collector.encodings == ACCEPTED_AS_GZIP_ONLY * ["zstd", "gzip"] + 2 * ["gzip"]
    assert len([event for event in heard if isinstance(event, events.CallRepeated)]) == ACCEPTED_AS_GZIP_ONLY


class StartsLate(ClosesOnZstd):
    """A collector that reads zstd, too, and cannot be reached for the first requests."""

    async def send(self, path, body, encoding):
        if self.down > 0 or encoding == "gzip":
            return await super().send(path, body, encoding)
        self.encodings.append(encoding)
        return await CountingCollector.send(self, path, pa.input_stream(pa.BufferReader(body), compression="zstd").read(), encoding)


@pytest.mark.parametrize(("down", "first"), [(1, ["zstd", "gzip"]), (2, ["zstd", "gzip", "zstd"])])
def test_a_collector_that_was_down_at_first_still_gets_zstd(down, first):
    collector = StartsLate(down)
    exported(collector, compression=Compression.ZSTD)
    assert len(collector.spans) == 170 + EXTRA
    assert collector.encodings == first + 4 * ["zstd"]


def test_compressions_other_than_zstd_are_never_changed():
    for preferred in (Compression.GZIP, Compression.NONE):
        negotiation = Negotiation(preferred)
        for _ in range(2 * ACCEPTED_AS_GZIP_ONLY):
            assert negotiation.after_pause(preferred) is preferred
            negotiation.accepted(preferred, blamed=False)
        assert negotiation.chosen is preferred


@pytest.mark.parametrize("status", [301, 401, 403, 404, 405, 415, 500, 501])
def test_an_error_that_would_hit_every_request_parks_nothing(status):
    async def run():
        sealed, collector = await three_units(), CountingCollector([OK, Answer(status, detail="Nope")])
        exporter, _, _ = parts(sealed, collector)
        with pytest.raises(Refused, match=f"{status} Nope") as caught:
            await export_all(exporter)
        at = await exporter.cursor(shard_id(0))
        notes = [key for key in sealed.root._objects if "/parked/" in key]
        await export_all(exporter)
        return caught.value.status, at, notes, collector

    found, at, notes, collector = asyncio.run(run())
    assert (found, at.position, notes) == (status, str(sequence(0, 40)), [])
    assert len(collector.spans) == 170 + EXTRA
    assert set(collector.spans.values()) == {1}


@pytest.mark.parametrize("body", [b"<!doctype html><title>Sign in</title>", b"\n<html></html>"])
def test_a_web_page_is_not_an_accepted_export(body):
    async def run():
        sealed = await three_units()
        exporter, _, _ = parts(sealed, CountingCollector([Answer(200, body, detail="OK")]))
        with pytest.raises(Refused, match=r"answers 200 OK with a web page to /v1/traces: check audit.otlp.endpoint"):
            await export_all(exporter)
        return await exporter.cursor(shard_id(0))

    assert asyncio.run(run()) == Cursor()


def test_a_partial_success_is_counted_and_not_repeated():
    collector = CountingCollector([Answer(200, partial(7, "too old"))])
    _, exporter, heard, _ = exported(collector)
    cursor = asyncio.run(exporter.cursor(shard_id(0)))
    assert (cursor.rejected, cursor.accepted) == (7, 147 - 7)
    assert collector.calls == 5
    assert [event.detail for event in heard if isinstance(event, events.ExportRefused)] == ["too old"]


def test_no_valid_response_is_taken_for_a_web_page():
    """A partial success begins with a line feed and its length, which may be the character `<`."""
    assert not [length for length in range(300) if is_page(partial(1, "x" * length)) or is_page(partial(0, "x" * length))]
    answer = partial(1, "x" * 56)
    assert answer.startswith(b"\n<")
    _, exporter, _, _ = exported(CountingCollector([Answer(200, answer)]))
    cursor = asyncio.run(exporter.cursor(shard_id(0)))
    assert (cursor.rejected, cursor.accepted) == (1, 147 - 1)


def test_a_request_that_is_too_large_is_halved():
    collector = CountingCollector(limit=12_000)
    _, exporter, _, _ = exported(collector)
    assert len(collector.spans) == 170 + EXTRA
    assert set(collector.spans.values()) == {1}
    assert asyncio.run(exporter.cursor(shard_id(0))).parked == 0
    tiny = CountingCollector(limit=10)
    _, exporter, _, _ = exported(tiny)
    assert asyncio.run(exporter.cursor(shard_id(0))) == Cursor(str(sequence(0, 120)), parked=147)


def test_the_retry_after_header_is_respected():
    _, _, _, waited = exported(CountingCollector([Answer(429, retry_after="17"), Answer(503)]))
    assert waited == 17 + 2
    later = format_datetime(NOON + timedelta(seconds=90), usegmt=True)
    assert requested_pause(later, NOON) == 90
    assert requested_pause(format_datetime(NOON - timedelta(seconds=9), usegmt=True), NOON) == 0
    assert requested_pause("soon", NOON) is None
    assert requested_pause("\u00b2", NOON) is None


@pytest.mark.parametrize("retry_after", ["0", format_datetime(NOON - timedelta(seconds=9), usegmt=True)])
def test_a_retry_after_in_the_past_does_not_cause_a_busy_loop(retry_after):
    _, _, _, waited = exported(CountingCollector([Answer(503, retry_after=retry_after)] * 3))
    assert waited == 1 + 2 + 4


def test_a_collector_that_was_down_for_hours_costs_only_lag():
    _, _, heard, waited = exported(CountingCollector([Answer(0)] * 200))
    assert waited > 3 * 3600
    assert len([event for event in heard if isinstance(event, events.SpansExported)]) == 5
    assert max(event.seconds for event in heard if isinstance(event, events.ExportLagged)) > 3 * 3600


def test_best_effort_sends_each_request_once():
    collector = CountingCollector([Answer(503)])
    _, exporter, _, waited = exported(collector, once=True)
    assert (waited, collector.calls) == (0, 5)
    assert asyncio.run(exporter.cursor(shard_id(0))).parked == 49


@pytest.mark.parametrize("lost", range(6))
def test_a_kill_at_any_request_and_a_lost_cursor_change_no_span(lost):
    """Whichever request was the last before the process died, the set of spans is the same: equal ids, equal bytes."""

    async def run():
        sealed, collector = await three_units(), CountingCollector()
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


@pytest.mark.parametrize(("age", "passed_over"), [(timedelta(hours=23), False), (timedelta(days=1), True)])
def test_units_that_expired_before_the_first_export_are_skipped(age, passed_over):
    async def run():
        sealed, collector = await three_units(), CountingCollector()
        exporter, _, heard = parts(sealed, collector)
        ledgers = sorted([info.key async for info in sealed.stores.targets["ledger"].list("") if shard_id(0) in info.key])
        await sealed.stores.targets["ledger"].delete(ledgers[0])
        sealed.clock.time += age
        if not passed_over:
            with pytest.raises(LedgerMissing, match=r"the ledger of \S+ after 0 cannot be exported: it is missing"):
                await export_all(exporter)
        else:
            await export_all(exporter)
            # From then on one that is missing is no longer old, but gone.
            await sealed.stores.targets["ledger"].delete(ledgers[1])
            with pytest.raises(LedgerMissing):
                await exporter.step(shard_id(0), Cursor(str(sequence(0, 40)), accepted=1))
        return collector, heard

    collector, heard = asyncio.run(run())
    assert [event.items for event in heard if isinstance(event, events.ExportRefused)] == ([40] if passed_over else [])
    assert len(collector.spans) == (130 + EXTRA - 9 if passed_over else 0)


def test_a_range_can_be_exported_again():
    async def run():
        sealed, collector = await three_units(), CountingCollector()
        exporter, units, _ = parts(sealed, collector)
        done = await export_range(exporter, units, [shard_id(0), shard_id(1)], sequence(0, 41), sequence(0, 81))
        return done, collector, await exporter.cursor(shard_id(0))

    (units, items), collector, cursor = asyncio.run(run())
    assert (units, items) == (3, 40 + 40 + 25 + 3 * 9)
    assert cursor == Cursor()
    assert len(collector.spans) == items


def test_a_range_can_be_exported_although_earlier_segments_have_expired():
    async def run():
        sealed, collector = await three_units(), CountingCollector()
        exporter, units, _ = parts(sealed, collector)
        ledger = sealed.stores.targets["ledger"]
        segments = [info.key async for info in ledger.list(f"events/{shard_id(0)}/")]
        await ledger.delete(segments[0])
        return await export_range(exporter, units, [shard_id(0)], sequence(0, 41), sequence(0, 81))

    assert asyncio.run(run())[0] == 2


class SpanKeeper(CountingCollector):
    """Keeps what it was sent for each span. It refuses some requests for now, and loses some of its answers, as ``dice`` decides."""

    def __init__(self, dice):
        super().__init__()
        self.dice = dice
        self.contents = {}

    async def send(self, path, body, encoding):
        await turns(self.dice)
        if self.dice.random() < 0.15:
            return Answer(503)
        answer = await super().send(path, body, encoding)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            about = resource.resource.SerializeToString(deterministic=True)
            for span in (span for scope in resource.scope_spans for span in scope.spans):
                self.contents.setdefault((span.trace_id, span.span_id), set()).add(about + span.SerializeToString(deterministic=True))
        return Answer(0, detail="the answer was lost") if self.dice.random() < 0.15 else answer


@pytest.mark.parametrize("seed", range(8))
def test_beside_workers_that_export_the_same_spans_a_command_adds_only_equal_ones(seed):
    """Two workers that each believe that they have the shards, one of which dies, and two operators with ranges of their own."""

    async def run():
        dice, sealed = Random(seed), await three_units()
        sealed.stores = replace(sealed.stores, state=Turns(sealed.stores.state, dice))
        collector, shape = SpanKeeper(dice), Shape(request_bytes=8_000)

        async def work():
            await turns(dice)
            await export_all(parts(sealed, collector, shape)[0])

        async def command(first, last):
            await turns(dice)
            exporter, units, _ = parts(sealed, collector, shape)
            return await export_range(exporter, units, [shard_id(0), shard_id(1)], first, last)

        first = sequence(0, dice.randrange(60))
        dying, *others = [asyncio.ensure_future(each) for each in (work(), work(), command(0, None), command(first, first + 2**13))]
        await turns(dice, most=800)
        dying.cancel()
        await asyncio.gather(dying, return_exceptions=True)
        sent = await asyncio.gather(*others)
        await work()
        exporter, _, _ = parts(sealed, collector, shape)
        return collector, sent, [await exporter.cursor(shard_id(shard)) for shard in (0, 1)]

    collector, (_, everything, _), cursors = leaping(run)
    assert len(collector.contents) == 170 + EXTRA
    assert {len(each) for each in collector.contents.values()} == {1}
    assert everything == (5, 170 + EXTRA)
    assert (cursors[0].position, cursors[1].ended) == (str(sequence(0, 120)), True)
    assert max(collector.spans.values()) > 2


class Checkpoints:
    """Records what had reached the collector whenever a checkpoint advanced."""

    def __init__(self, collector):
        self.collector = collector
        self.stored = []

    async def read(self, shard):
        return None

    async def advance(self, shard, checkpoint):
        self.stored.append((checkpoint.position, len(self.collector.spans)))


async def task_of(sealed, collector, *, strict=True):
    exporter, _, heard = parts(sealed, collector)
    task = ExportTask(exporter, sealed.clock, heard.append, "events", strict=strict)
    return task, WaitingCheckpoints(Checkpoints(collector), task), heard, exporter


async def stop(running):
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


def test_the_task_follows_the_worker_and_checkpoints_wait_for_it():
    async def run():
        sealed, collector = await Sealed.open(), CountingCollector([Answer(503)] * 3)
        task, waiting, _, _ = await task_of(sealed, collector)
        task(events.ShardStarted("events", shard_id(0), 0))
        running = asyncio.ensure_future(task.run())
        await sealed.unit(0, 1, 10)
        await waiting.advance(Shard("events", shard_id(0)), Checkpoint(sequence(0, 10), 0, 0))
        await sealed.unit(0, 11, 10)
        task(events.UnitSealed("events", shard_id(0), 0, 0, (), 0.0, 0.0, 0.0))
        await waiting.advance(Shard("events", shard_id(0)), Checkpoint(sequence(0, 20), 0, 0))
        await stop(running)
        await task.finish()
        return waiting._checkpoints.stored, collector

    stored, collector = asyncio.run(run())
    assert [position for position, _ in stored] == [sequence(0, 10), sequence(0, 20)]
    assert stored[0][1] >= 10
    assert stored[1][1] == len(collector.spans)


class FailingCollector(CountingCollector):
    """A collector that raises an unexpected error ``times`` times."""

    def __init__(self, error, times):
        super().__init__()
        self.error = error
        self.times = times

    async def send(self, path, body, encoding):
        if self.times:
            self.times -= 1
            raise self.error
        return await super().send(path, body, encoding)


@pytest.mark.parametrize(
    "collector",
    [
        CountingCollector([Answer(401)] * 7),
        CountingCollector([Answer(404), Answer(503), Answer(500)]),
        FailingCollector(ZeroDivisionError("TAGGED"), 3),
        FailingCollector(Fatal("may not write"), 2),
        FailingCollector(Retryable("store is slow"), 2),
    ],
    ids=["token", "mixed", "unforeseen", "fatal", "retryable"],
)
def test_any_failure_of_the_export_raises_the_alarm_and_the_export_continues_once_it_is_repaired(collector):
    """In strict mode, a checkpoint waits meanwhile: it must be neither forgotten nor let through."""

    async def run():
        sealed = await three_units()
        task, waiting, heard, exporter = await task_of(sealed, collector)
        task(events.ShardStarted("events", shard_id(0), 0))
        running = asyncio.ensure_future(task.run())
        async with asyncio.timeout(120):
            await waiting.advance(Shard("events", shard_id(0)), Checkpoint(sequence(0, 120), 0, sequence(0, 80)))
        await stop(running)
        return waiting._checkpoints.stored, heard, await exporter.cursor(shard_id(0))

    stored, heard, cursor = asyncio.run(run())
    assert stored == [(sequence(0, 120), 120 + 27)]
    assert cursor == Cursor(str(sequence(0, 120)), accepted=120 + 27)
    halts = [event for event in heard if isinstance(event, events.ExportHalted)]
    resumes = [event for event in heard if isinstance(event, events.ExportResumed)]
    assert bool(halts) == bool(resumes) == (not isinstance(getattr(collector, "error", None), Retryable))
    assert all(event.blocking and "TAGGED" not in event.reason for event in halts)
    assert [event.wait for event in halts] == [10, 20, 40, 80, 160, 300, 300][: len(halts)]


def test_a_shard_that_cannot_be_exported_does_not_delay_the_others():
    async def run():
        sealed, collector = await three_units(), CountingCollector()
        ledgers = sealed.stores.targets["ledger"]
        victim = await anext(info.key async for info in ledgers.list(f"events/{shard_id(1)}/"))
        await ledgers.delete(victim)
        task, waiting, heard, _ = await task_of(sealed, collector, strict=False)

        sleeping = asyncio.Event()

        async def sleep(seconds):
            sleeping.set()
            await asyncio.Event().wait()

        sealed.clock.sleep = sleep
        for shard in (1, 0):
            task(events.ShardStarted("events", shard_id(shard), 0))
        running = asyncio.ensure_future(task.run())
        async with asyncio.timeout(120):
            await sleeping.wait()
            await waiting.advance(Shard("events", shard_id(0)), Checkpoint(sequence(0, 120), 0, 0))
        await stop(running)
        await task.finish()
        return heard, collector

    heard, collector = asyncio.run(run())
    (halt,) = [event for event in heard if isinstance(event, events.ExportHalted)]
    assert (halt.shard, halt.status, halt.blocking) == (shard_id(1), 0, False)
    assert "missing" in halt.reason
    assert len(collector.spans) == 120 + 27


def test_losing_the_lease_ends_the_wait():
    async def run():
        sealed, collector = await Sealed.open(), CountingCollector()
        task, waiting, _, _ = await task_of(sealed, collector)
        running = asyncio.ensure_future(task.run())
        where = Shard("events", shard_id(0))
        asking = asyncio.ensure_future(waiting.advance(where, Checkpoint(sequence(0, 10), 0, 0)))
        while shard_id(0) not in task._exports:
            await asyncio.wait([asking], timeout=0.01)
        task(events.ShardReleased("events", shard_id(0), "lease_lost"))
        try:
            async with asyncio.timeout(120):
                with pytest.raises(LeaseLost):
                    await asking
        finally:
            await stop(running)

    asyncio.run(run())


def test_lag_is_reported_while_the_collector_is_down():
    async def run():
        sealed = await three_units()
        collector = CountingCollector([Answer(401)])
        exporter, _, heard = parts(sealed, collector)
        with pytest.raises(Refused):
            await exporter.step(shard_id(0), Cursor())
        sealed.clock.time += timedelta(hours=2)
        exporter.report_lag()
        return heard

    assert [event.seconds > 7000 for event in asyncio.run(run()) if isinstance(event, events.ExportLagged)] == [False, True]


def test_an_export_continues_after_a_gap_and_reports_it():
    async def run():
        sealed, collector = await Sealed.open(), CountingCollector()
        await sealed.unit(0, 1, 10)
        await sealed.gap(0, 20)
        await sealed.unit(0, 21, 10)
        exporter, units, _ = parts(sealed, collector)
        await export_all(exporter, [0])
        again = CountingCollector()
        other, units, _ = parts(sealed, again)
        done = await export_range(other, units, [shard_id(0)], 0, None)
        return collector, await exporter.cursor(shard_id(0)), done, again

    collector, cursor, done, again = asyncio.run(run())
    assert cursor.position == str(sequence(0, 30))
    assert not cursor.ended
    assert len(collector.spans) == cursor.accepted == done[1]
    assert done[0] == 3
    assert again.spans == collector.spans
    assert collector.names["gap events"] == 1


@pytest.mark.parametrize("back", [0, 10])
def test_an_export_follows_a_rewound_shard(back):
    async def run():
        sealed, collector = await Sealed.open(), CountingCollector()
        await sealed.unit(0, 1, 10)
        await sealed.unit(0, 11, 10)
        exporter, _, _ = parts(sealed, collector)
        await export_all(exporter, [0])
        await sealed.rewind(0, back)
        halfway = await exporter.step(shard_id(0), await exporter.cursor(shard_id(0)))
        await sealed.unit(0, back + 1, 30)
        await sealed.end(0)
        await export_all(exporter, [0])
        again = CountingCollector()
        other, units, _ = parts(sealed, again)
        done = await export_range(other, units, [shard_id(0), f"{shard_id(0)}_r1"], 0, None)
        return halfway, await exporter.cursor(shard_id(0)), collector, done, again

    halfway, cursor, collector, done, again = asyncio.run(run())
    assert (halfway.generation, halfway.position, halfway.ended) == (1, str(sequence(0, back) if back else 0), False)
    assert (cursor.generation, cursor.position, cursor.ended) == (1, str(sequence(0, back + 30)), True)
    assert collector.names["process events"] == 20 + 30
    assert done == (3, cursor.accepted)
    assert again.spans == collector.spans


@pytest.mark.parametrize("older", [False, True], ids=["", "a cursor that takes the rewind for an end"])
def test_a_checkpoint_after_a_rewind_waits_for_the_collector_too(older):
    async def run():
        sealed, collector = await three_units(), CountingCollector()
        task, waiting, _, _ = await task_of(sealed, collector)
        task(events.ShardStarted("events", shard_id(0), 0))
        running = asyncio.ensure_future(task.run())
        where = Shard("events", shard_id(0))
        async with asyncio.timeout(120):
            await waiting.advance(where, Checkpoint(sequence(0, 120), 0, sequence(0, 80)))
            await sealed.rewind(0, 40)
            if older:
                await stop(running)
                await sealed.stores.state.put(f"export/events/{shard_id(0)}.json", b'{"position":"%d","ended":true}' % sequence(0, 120))
                waiting._task, _, _, _ = await task_of(sealed, collector)
                running = asyncio.ensure_future(waiting._task.run())
            await waiting.advance(where, Checkpoint(sequence(0, 40), 0, sequence(0, 40), generation=1))
            await sealed.unit(0, 41, 10)
            await waiting.advance(where, Checkpoint(sequence(0, 50), 0, sequence(0, 40), generation=1))
        await stop(running)
        return waiting._checkpoints.stored

    assert [spans for _, spans in asyncio.run(run())] == [120 + 27, 120 + 27, 130 + 35]


@pytest.mark.parametrize(("last", "stopped", "everything"), [(False, False, False), (True, False, True), (True, True, False)])
def test_the_last_worker_exports_everything_left_unless_it_is_stopped(monkeypatch, last, stopped, everything):
    monkeypatch.setattr(exporting, "FINISH_SECONDS", 0.0)

    async def run():
        sealed, collector, until = await three_units(), CountingCollector(), asyncio.Event()
        task, _, _, _ = await task_of(sealed, collector, strict=False)
        for shard in (0, 1):
            task(events.ShardStarted("events", shard_id(shard), 0))
        await settle()
        if stopped:
            until.set()
        await task.finish(until if last else None)
        return sum(collector.spans.values())

    assert (asyncio.run(run()) == 170 + EXTRA) is everything


def test_the_last_worker_does_not_wait_for_an_unreachable_collector(monkeypatch):
    monkeypatch.setattr(exporting, "PATIENT_SECONDS", 0.0)

    async def run():
        sealed, collector = await three_units(), CountingCollector([Answer(503)] * 1000)
        task, _, _, _ = await task_of(sealed, collector, strict=False)
        task(events.ShardStarted("events", shard_id(0), 0))
        await settle()
        await asyncio.wait_for(task.finish(asyncio.Event()), 120)
        return sum(collector.spans.values())

    assert asyncio.run(run()) == 0


@pytest.mark.parametrize("why", ["lease_lost", "handed_over"])
def test_shards_of_another_worker_are_not_exported(why):
    async def run():
        sealed, collector = await three_units(), CountingCollector()
        task, waiting, _, _ = await task_of(sealed, collector, strict=False)
        task(events.ShardStarted("events", shard_id(0), 0))
        running = asyncio.ensure_future(task.run())
        async with asyncio.timeout(120):
            await waiting.advance(Shard("events", shard_id(0)), Checkpoint(sequence(0, 120), 0, 0))
        task(events.ShardReleased("events", shard_id(0), why))
        await settle()
        await sealed.unit(0, 121, 10)
        await stop(running)
        await task.finish()
        return sum(collector.spans.values())

    assert asyncio.run(run()) == 120 + 27


def test_a_shard_exported_to_its_end_is_no_longer_followed():
    async def run():
        sealed, collector = await three_units(), CountingCollector()
        task, waiting, heard, _ = await task_of(sealed, collector, strict=False)
        task(events.ShardStarted("events", shard_id(1), 0))
        running = asyncio.ensure_future(task.run())
        async with asyncio.timeout(120):
            await waiting.advance(Shard("events", shard_id(1)), Checkpoint(None, 0, sequence(1, 50)))
        await settle()
        following = [each for each in asyncio.all_tasks() if each.get_coro().__name__ == "_follow"]
        await stop(running)
        return following, [event.seconds for event in heard if isinstance(event, events.ExportLagged)][-1]

    assert asyncio.run(run()) == ([], 0.0)


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
def test_rejected_items_are_read_from_any_answer(body, found):
    assert rejected_items(body) == found


@pytest.mark.parametrize("compression", list(Compression))
def test_a_request_decompresses_to_its_bytes(compression):
    import pyarrow as pa

    body = b"span" * 1000
    packed = compressed(Request("/v1/traces", 1, len(body), body), compression)
    if compression is Compression.GZIP:
        assert gzip.decompress(packed) == body
    elif compression is Compression.ZSTD:
        assert pa.Codec("zstd").decompress(packed, len(body), asbytes=True) == body
    else:
        assert packed == body


def test_a_single_item_that_is_too_large_is_parked():
    heard = []
    sender = Sender(CountingCollector(limit=0), StillClock(), heard.append, lambda: 0.0, Compression.NONE)
    from stream.audit.packing import _around

    head, tail = _around((b"\x0a\x00", b"\x0a\x00"), 4)
    body = head + b"\x12\x02\x2a\x00" + tail
    request = Request("/v1/traces", 1, len(body), body)
    assert asyncio.run(sender.deliver(request, "events", "s")).parked == 1
