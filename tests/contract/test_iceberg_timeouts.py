"""A catalog that answers wrongly, late or not at all, over real HTTP."""

import asyncio
import json
import socket
import threading
from types import SimpleNamespace

import pytest
from aiohttp import web

from stream.aws.session import AwsSession
from stream.errors import Retryable
from stream.sink.iceberg import IcebergSinkConfig
from stream.sink.loads import Failure
from stream.worker.tables import iceberg_timeouts
from stream.worker.tables.iceberg_catalog import CatalogTable
from stream.worker.tables.iceberg_properties import catalog_properties
from stream.worker.tables.warehouse import LoadFailed


async def asked(answer):
    """The state of a table, asked of a catalog that gives its configuration and then answers as ``answer`` does."""
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


def answering(status, body):
    async def answer(_request, _end):
        return web.Response(status=status, text=body)

    return answer


async def never_answers(_request, end):
    await end.wait()
    return web.Response()


async def answers_one_byte(request, end):
    response = web.StreamResponse(headers={"Content-Length": "100"})
    await response.prepare(request)
    await response.write(b"{")
    await end.wait()
    return response


@pytest.mark.parametrize("answer", [never_answers, answers_one_byte])
def test_a_catalog_that_never_answers_times_out(monkeypatch, answer):
    monkeypatch.setattr(iceberg_timeouts, "READ_SECONDS", 0.2)
    with pytest.raises(Retryable, match=r"lake\.events: .*timed out"):
        asyncio.run(asked(answer))


@pytest.mark.parametrize(("status", "body"), [(200, "<html>"), (200, "{}"), (429, "{}"), (500, ""), (503, "<html>")])
def test_an_unusable_answer_is_retryable(status, body):
    with pytest.raises(Retryable, match=r"lake\.events"):
        asyncio.run(asked(answering(status, body)))


@pytest.mark.parametrize(("status", "kind"), [(401, "NotAuthorizedException"), (403, "ForbiddenException"), (400, "BadRequestException")])
def test_a_refusal_needs_a_person(status, kind):
    with pytest.raises(LoadFailed, match="why not") as found:
        asyncio.run(asked(answering(status, json.dumps({"error": {"message": "why not", "type": kind, "code": status}}))))
    assert found.value.failure is Failure.SETUP


def test_a_missing_table_is_none():
    body = json.dumps({"error": {"message": "none", "type": "NoSuchTableException", "code": 404}})
    assert asyncio.run(asked(answering(404, body))) is None


class Silent:
    """A server that accepts connections and never answers; it breaks them after ``seconds``, so that no test waits for ever."""

    def __init__(self, seconds):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(seconds)
        self._taken = []
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.over = threading.Event()
        self._last = threading.Timer(seconds, self._break)
        self._last.start()

    def until_asked(self):
        self._taken.append(self._listener.accept()[0])

    def _break(self):
        self.over.set()
        for each in (*self._taken, self._listener):
            each.close()

    def close(self):
        self._last.cancel()
        self._last.join()
        self._break()


@pytest.fixture
def silent():
    server = Silent(120.0)
    yield server
    server.close()


def glue_at(url, **more):
    async def properties():
        keys = {"client.region": "us-east-1", "client.access-key-id": "k", "client.secret-access-key": "s"}
        return {"type": "glue", "glue.endpoint": url, **keys, **more}

    return CatalogTable(SimpleNamespace(table="lake.events", catalog={"type": "glue"}), "file:///nowhere", properties)


def test_a_glue_that_never_answers_times_out(silent, monkeypatch):
    monkeypatch.setattr(iceberg_timeouts, "READ_SECONDS", 0.1)
    table = glue_at(silent.url, **{"glue.max-retries": "0"})
    with pytest.raises(Retryable, match=r"lake\.events: ReadTimeoutError"):
        asyncio.run(table.ask(table.found))
    assert not silent.over.is_set()


def test_retries_of_glue_are_limited_and_configurable():
    def attempts(**more):
        async def body():
            return await glue_at("http://127.0.0.1:1", **more).ask(lambda catalog: catalog.glue.meta.config.retries)

        return asyncio.run(body())["total_max_attempts"]

    assert attempts() == 3
    assert attempts(**{"glue.max-retries": "4"}) == 5


def test_shutdown_does_not_wait_for_an_answer_that_never_comes(silent):
    async def asks_and_is_cancelled():
        table = glue_at(silent.url)
        asking = asyncio.ensure_future(table.ask(table.found))
        await asyncio.to_thread(silent.until_asked)
        asking.cancel()
        await asyncio.wait([asking])

    asyncio.run(asks_and_is_cancelled())
    assert not silent.over.is_set()


@pytest.mark.parametrize(
    ("asked", "url"),
    [("FIPS", "https://s3-fips.us-east-1.amazonaws.com"), ("DUALSTACK", "https://s3.dualstack.us-east-1.amazonaws.com"), (None, None)],
)
def test_files_of_tables_use_the_same_s3_endpoint_as_everything_else(asked, url, aws_env, monkeypatch):
    if asked:
        monkeypatch.setenv(f"AWS_USE_{asked}_ENDPOINT", "true")
    config = IcebergSinkConfig.model_validate({"location": "s3://lake/events/", "table": "lake.events"})
    found = asyncio.run(catalog_properties(config, AwsSession(region="us-east-1"), None)())
    assert found.get("s3.endpoint") == url
