"""Exports to a real HTTP receiver, and to a real collector."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from stream.audit.export import Compression, Exporter
from stream.audit.export_options import Shape
from stream.audit.otlp_responses import is_page, rejected_items
from stream.aws.wire import open_wire
from stream.clock import SystemClock
from stream.errors import DefinitionError
from stream.operations.records.span_export import export_range
from stream.pipeline.audit import Otlp
from stream.worker.receivers.collector import TIMEOUTS, HttpCollector, open_sender
from stream.worker.receivers.log_units import LogUnits
from tests.sealed import shard_id, three_units
from tests.unit.worker.receivers.rotel_agent import agent


async def export_to(endpoint, compression, **options):
    sealed, heard = await three_units(), []
    areas = sealed.stores.areas(sealed.root.url, "events")
    units = LogUnits(sealed.log, "events", areas, sealed.stores.targets["ledger"])
    otlp = Otlp.model_validate({"endpoint": endpoint, "compression": compression, **options})
    async with AsyncExitStack() as stack:
        sender = await open_sender(otlp, {"TOKEN": "s3cret"}, Path(), SystemClock(), heard.append, stack)
        exporter = Exporter(units, sealed.stores.state, sender, Shape(), SystemClock(), heard.append, "events")
        return await export_range(exporter, units, [shard_id(0), shard_id(1)], 0, None), heard


@pytest.mark.parametrize("compression", [Compression.GZIP, Compression.NONE])
def test_requests_are_sent_over_http_with_headers_and_compression(compression):
    seen = []

    async def receive(request):
        body = await request.read()  # the server has undone the encoding
        seen.append((request.path, request.headers.get("authorization"), ExportTraceServiceRequest.FromString(body)))
        return web.Response(body=b"")

    async def run():
        app = web.Application(client_max_size=2**24)
        app.router.add_post("/{path:.*}", receive)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            port = site._server.sockets[0].getsockname()[1]
            return await export_to(f"http://127.0.0.1:{port}/base/", compression.value, headers={"authorization": {"env": "TOKEN"}})
        finally:
            await runner.cleanup()

    (units, items), heard = asyncio.run(run())
    assert (units, items, heard) == (5, 170 + 45, [])
    assert {(path, token) for path, token, _ in seen} == {("/base/v1/traces", "s3cret")}
    ids = [span.span_id for *_, message in seen for span in message.resource_spans[0].scope_spans[0].spans]
    assert len(ids) == len(set(ids)) == 215


REFUSED = ExportTraceServiceResponse(partial_success=ExportTracePartialSuccess(rejected_spans=7, error_message="too old"))


async def sent_to(*parts):
    """The answer of a collector that sends ``parts``, each one after the previous one has been read."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()

    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        for part in parts:
            writer.write(part)
            await writer.drain()
            # What was written is read before the next part comes, by a loop that has nothing else to do.
            for _ in range(20):
                turn = loop.create_future()
                loop.call_soon(turn.set_result, None)
                await turn
        writer.close()
        ended.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    endpoint = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, open_wire(endpoint, TIMEOUTS) as wire:
        answer = await HttpCollector(wire, endpoint, {}).send("/v1/traces", b"", "")
        await ended.wait()
        return answer


@pytest.mark.parametrize("cut", [1, 3])
def test_a_partial_success_that_arrives_in_parts_is_read_whole(cut):
    body = REFUSED.SerializeToString()
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    answer = asyncio.run(sent_to(head + body[:cut], body[cut:]))
    assert (answer.status, rejected_items(answer.body)) == (200, (7, "too old"))


def test_a_truncated_answer_counts_as_no_answer():
    answer = asyncio.run(sent_to(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n\n"))
    expected = "ConnectionResetError: the connection broke before the whole answer was there: closed"
    assert (answer.status, answer.detail.partition(" at ")[0]) == (0, expected)


def test_an_answer_without_a_length_is_read_until_the_connection_ends():
    body = REFUSED.SerializeToString()
    answer = asyncio.run(sent_to(b"HTTP/1.0 200 OK\r\n\r\n" + body[:3], body[3:]))
    assert (answer.status, rejected_items(answer.body)) == (200, (7, "too old"))


def test_only_the_beginning_of_a_long_answer_is_kept_and_a_requested_pause_is_passed_on():
    page = b"<html>" + b"x" * 100_000
    answer = asyncio.run(sent_to(b"HTTP/1.1 503 Full\r\nRetry-After: 7\r\nContent-Length: %d\r\n\r\n" % len(page), page))
    assert (answer.status, answer.retry_after, answer.detail) == (503, "7", "Service Unavailable")
    assert (len(answer.body), is_page(answer.body)) == (65_536, True)


def test_a_collector_that_speaks_only_http_2_is_reported():
    answer = asyncio.run(sent_to(b"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x05\x00\x00\x40\x00"))
    assert answer.status == 0
    assert answer.detail.startswith("OSError: the answer is no HTTP: it begins with ")


def test_an_unreachable_collector_is_reported_with_the_reason():
    async def run():
        async with open_wire("http://127.0.0.1:1", TIMEOUTS) as wire:
            return await HttpCollector(wire, "http://127.0.0.1:1", {}).send("/v1/traces", b"", "")

    detail = asyncio.run(run()).detail
    assert detail.startswith("ConnectionRefusedError: ")
    assert "Connect call failed" in detail
    assert detail.endswith(" at http://127.0.0.1:1")


def test_a_header_without_its_secret_is_a_definition_error():
    with pytest.raises(DefinitionError, match="env:MISSING"):
        asyncio.run(export_to("http://127.0.0.1:9", "gzip", headers={"authorization": {"env": "MISSING"}}))


@pytest.mark.parametrize("compression", ["gzip", "none"])
def test_a_real_collector_accepts_every_span(tmp_path, compression):
    with agent(tmp_path) as collector:
        (units, items), heard = asyncio.run(export_to(collector.http, compression))
        records = collector.drain()
    assert heard == []
    assert (units, items) == (5, 215)
    assert len(records) == records.total() == 170
