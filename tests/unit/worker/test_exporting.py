"""Against a real receiver over HTTP, and against a real collector."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from stream.audit.export import Compression, Exporter
from stream.audit.shape import Shape
from stream.clock import SystemClock
from stream.errors import DefinitionError
from stream.pipeline.model import Otlp
from stream.worker.exporting import LogUnits, export_range, open_sender
from tests.sealed import shard_id, three_units
from tests.unit.worker.rotel_agent import agent


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
def test_over_http(compression):
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


def test_a_header_without_its_secret_is_a_definition_error():
    with pytest.raises(DefinitionError, match="env:MISSING"):
        asyncio.run(export_to("http://127.0.0.1:9", "gzip", headers={"authorization": {"env": "MISSING"}}))


@pytest.mark.parametrize("compression", ["gzip", "none"])
def test_a_real_collector_takes_every_span(tmp_path, compression):
    with agent(tmp_path) as collector:
        (units, items), heard = asyncio.run(export_to(collector.http, compression))
        records = collector.drain()
    assert heard == []
    assert (units, items) == (5, 215)
    assert len(records) == records.total() == 170
