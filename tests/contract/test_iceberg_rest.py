"""A catalog over REST that answers wrongly, late or not at all, over real HTTP."""

import asyncio
import json
from types import SimpleNamespace

import pytest
from aiohttp import web

from stream.errors import Retryable
from stream.sink.loads import Failure
from stream.worker import iceberg_rest
from stream.worker.iceberg_catalog import CatalogTable
from stream.worker.warehouse import LoadFailed


async def asked(answer):
    """What a table's state is by a catalog that gives its configuration and then does what ``answer`` does."""
    asked_last = asyncio.Event()

    async def serve(request):
        await request.read()
        if request.path.endswith("/v1/config"):
            return web.json_response({"defaults": {}, "overrides": {}})
        return await answer(request, asked_last)

    runner = web.ServerRunner(web.Server(serve))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()

    async def properties():
        return {"type": "rest", "uri": f"http://127.0.0.1:{runner.addresses[0][1]}"}

    try:
        table = CatalogTable(SimpleNamespace(table="lake.events", catalog={"type": "rest"}), "file:///nowhere", properties)
        return await table.ask(table.found)
    finally:
        asked_last.set()
        await runner.cleanup()


def saying(status, body):
    async def answer(_request, _end):
        return web.Response(status=status, text=body)

    return answer


async def nothing(_request, end):
    await end.wait()
    return web.Response()


async def a_byte(request, end):
    response = web.StreamResponse(headers={"Content-Length": "100"})
    await response.prepare(request)
    await response.write(b"{")
    await end.wait()
    return response


@pytest.mark.parametrize("answer", [nothing, a_byte])
def test_a_catalog_that_says_nothing_is_not_waited_for_for_ever(monkeypatch, answer):
    monkeypatch.setattr(iceberg_rest, "READ_SECONDS", 0.2)
    with pytest.raises(Retryable, match=r"lake\.events: .*timed out"):
        asyncio.run(asked(answer))


@pytest.mark.parametrize(("status", "body"), [(200, "<html>"), (200, "{}"), (429, "{}"), (500, ""), (503, "<html>")])
def test_an_answer_that_is_none_may_be_better_next_time(status, body):
    with pytest.raises(Retryable, match=r"lake\.events"):
        asyncio.run(asked(saying(status, body)))


@pytest.mark.parametrize(("status", "kind"), [(401, "NotAuthorizedException"), (403, "ForbiddenException"), (400, "BadRequestException")])
def test_a_refusal_needs_a_person(status, kind):
    with pytest.raises(LoadFailed, match="why not") as found:
        asyncio.run(asked(saying(status, json.dumps({"error": {"message": "why not", "type": kind, "code": status}}))))
    assert found.value.failure is Failure.SETUP


def test_a_table_that_is_not_there_is_none():
    body = json.dumps({"error": {"message": "none", "type": "NoSuchTableException", "code": 404}})
    assert asyncio.run(asked(saying(404, body))) is None
