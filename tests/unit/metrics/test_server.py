import asyncio
import json
import re
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import aiohttp
import pytest
from prometheus_client import CollectorRegistry

from stream import events as ev
from stream.errors import Fatal
from stream.metrics.board import Board
from stream.metrics.recorder import Recorder
from stream.metrics.server import Health, MetricsServer
from tests.ports import free_port
from tests.unit.metrics.every_event import FixedClock


def ask(paths, *, health=None, registry=None, headers=None, board=None):
    async def run():
        async with (
            MetricsServer(registry or CollectorRegistry(), health or Health(), board or Board("app", FixedClock()), port=0) as server,
            aiohttp.ClientSession(headers=headers) as session,
        ):
            host, port = server.address
            answers = []
            for path in paths:
                async with session.get(f"http://{host}:{port}{path}") as answer:
                    answers.append((answer.status, answer.headers["Content-Type"], await answer.text()))
            return answers

    return asyncio.run(run())


@pytest.fixture
def registry():
    registry = CollectorRegistry()
    Recorder(registry, FixedClock())(ev.Checkpointed("events", "shardId-1", 1))
    return registry


def test_metrics_are_served_as_text(registry):
    ((status, kind, text),) = ask(["/metrics"], registry=registry)
    assert status == 200
    assert kind.startswith("text/plain")
    assert 'kst_checkpoints_total{stream="events"} 1.0' in text


def test_openmetrics_is_served_on_request(registry):
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    ((status, kind, text),) = ask(["/metrics"], registry=registry, headers=accept)
    assert status == 200
    assert kind.startswith("application/openmetrics-text")
    assert text.endswith("# EOF\n")


def test_metrics_are_served_while_the_threads_of_the_loop_wait_for_a_file_system(registry):
    hangs = threading.Event()

    async def run():
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        async with MetricsServer(registry, Health(), Board("app", FixedClock()), port=0) as server, aiohttp.ClientSession() as session:
            host, port = server.address
            waiting = asyncio.ensure_future(asyncio.to_thread(hangs.wait))
            for accept in ("text/plain", "application/openmetrics-text"):
                async with asyncio.timeout(60), session.get(f"http://{host}:{port}/metrics", headers={"Accept": accept}) as answer:
                    assert answer.status == 200
            assert not waiting.done()
            hangs.set()
            await waiting

    try:
        asyncio.run(run())
    finally:
        hangs.set()


@pytest.mark.parametrize(
    "accept", ["application/openmetrics-text; version=none", "text/plain; version=", ";;;,,,", "text/plain; escaping=x"]
)
def test_an_odd_accept_header_is_not_an_error(registry, accept):
    ((status, _, text),) = ask(["/metrics"], registry=registry, headers={"Accept": accept})
    assert status == 200
    assert "kst_checkpoints" in text


def test_a_starting_worker_is_alive_and_not_ready():
    (alive, ready) = ask(["/healthz", "/readyz"])
    assert (alive[0], ready[0]) == (200, 503)
    assert ready[2] == '{"ok":false,"obstacles":{"worker":"starting"}}'


def test_a_worker_without_obstacles_is_ready():
    health = Health()
    health.clear("worker")
    assert [answer[0] for answer in ask(["/healthz", "/readyz"], health=health)] == [200, 200]


def test_an_obstacle_blocks_until_it_is_cleared():
    health = Health()
    health.clear("worker")
    health.block("sink:s3", "bucket does not answer")
    ((status, _, text),) = ask(["/readyz"], health=health)
    assert status == 503
    assert "bucket does not answer" in text
    health.clear("sink:s3")
    assert health.ready


def test_a_fault_ends_liveness_and_readiness():
    health = Health()
    health.clear("worker")
    health.fault = "shard task died"
    answers = ask(["/healthz", "/readyz"], health=health)
    assert [answer[0] for answer in answers] == [503, 503]
    assert all("shard task died" in answer[2] for answer in answers)


def test_other_paths_and_methods_are_refused():
    async def run():
        async with (
            MetricsServer(CollectorRegistry(), Health(), Board("app", FixedClock()), port=0) as server,
            aiohttp.ClientSession() as session,
        ):
            host, port = server.address
            assert host == "127.0.0.1"
            async with session.get(f"http://{host}:{port}/else") as answer:
                first = answer.status
            async with session.post(f"http://{host}:{port}/") as answer:
                return first, answer.status

    assert asyncio.run(run()) == (404, 405)


def test_a_port_in_use_is_fatal_and_the_error_says_what_to_change():
    async def run(port):
        async with MetricsServer(CollectorRegistry(), Health(), Board("app", FixedClock()), port=port):
            raise AssertionError("it must not open")

    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(Fatal, match=r"metrics\.port"):
        asyncio.run(run(taken.getsockname()[1]))


def test_after_closing_the_port_is_free():
    async def run(port):
        async with MetricsServer(CollectorRegistry(), Health(), Board("app", FixedClock()), port=port) as server:
            assert server.address[1] == port
        with pytest.raises(RuntimeError, match="not open"):
            _ = server.address
        async with MetricsServer(CollectorRegistry(), Health(), Board("app", FixedClock()), port=port) as again:
            assert again.address[1] == port

    with free_port() as port:
        asyncio.run(run(port))


def test_what_the_worker_does_is_served_as_a_document_and_as_a_page_that_loads_nothing():
    board, health = Board("app", FixedClock()), Health()
    health.clear("worker")
    for event in (ev.WorkerStarted("events", "", "host/1-2", "1.0"), ev.ShardStarted("events", "shardId-1", 0)):
        board(event)
    board(ev.ShardHalted("events", "shardId-1", "events/shardId-1: <script>alert(1)</script>"))
    health.block("shard events/shardId-1", "<b>bad</b><script>alert(1)</script>")
    (status, kind, text), (page_status, page_kind, page) = ask(["/status", "/"], health=health, board=board)
    assert (status, kind) == (200, "application/json")
    document = json.loads(text)
    assert (document["worker"], document["shards"][0]["state"]) == ("host/1-2", "halted")
    assert document["obstacles"] == {"shard events/shardId-1": "<b>bad</b><script>alert(1)</script>"}
    assert (page_status, page_kind) == (200, "text/html; charset=utf-8")
    assert "needs attention" in page
    assert "&lt;script&gt;alert(1)" in page
    assert re.findall(r"<script|<b>bad|https?://|src=|@import|url\(", page) == []


def test_the_page_may_run_nothing():
    async def run():
        async with (
            MetricsServer(CollectorRegistry(), Health(), Board("app", FixedClock()), port=0) as server,
            aiohttp.ClientSession() as session,
        ):
            host, port = server.address
            async with session.get(f"http://{host}:{port}/") as answer:
                return answer.headers["Content-Security-Policy"]

    policy = asyncio.run(run())
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
