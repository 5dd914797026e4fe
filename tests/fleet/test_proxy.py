"""Each fault does what its name says, to the reply and to what arrives at the service."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import orjson
import pytest

from stream.local.process import helper
from tests.fleet.proxy import FAULTS, fate, service_of
from tests.forked import PATIENCE

KINESIS = {"X-Amz-Target": "Kinesis_20131202.GetRecords"}
ANSWER = b'{"answer": "' + b"x" * 1000 + b'"}'


class _Upstream(BaseHTTPRequestHandler):
    """Keeps what arrived."""

    arrived: ClassVar[list[tuple[str, str, bytes]]] = []
    may_answer = threading.Event()
    answered = threading.Event()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.arrived.append((self.command, self.path, body))
        assert self.may_answer.wait(PATIENCE)
        self.answered.set()
        self.send_response(200)
        self.send_header("Content-Length", str(len(ANSWER)))
        self.send_header("ETag", '"tag"')
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(ANSWER)

    do_PUT = do_GET = do_HEAD = do_POST  # noqa: N815 - the base class's names

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        return


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Upstream) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        upstream = f"http://127.0.0.1:{server.server_port}"
        with helper("tests.fleet.proxy", ["--seed", "1", *(f"{name}={upstream}" for name in ("kinesis", "dynamodb", "s3"))]) as process:
            yield process.url
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def nothing_yet() -> Iterator[None]:
    _Upstream.arrived.clear()
    _Upstream.answered.clear()
    _Upstream.may_answer.set()
    yield
    _Upstream.may_answer.set()


def ask(url: str, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[HTTPResponse, bytes]:
    line = HTTPConnection(url.removeprefix("http://"), timeout=120)
    try:
        line.request(method, path, body, headers)
        reply = line.getresponse()
        return reply, reply.read()
    finally:
        line.close()


def set_rates(url: str, **rates: Any) -> None:
    ask(url, "POST", "/_faults", orjson.dumps(rates))


def test_without_faults_requests_and_answers_pass_unchanged(url):
    set_rates(url)
    reply, body = ask(url, "PUT", "/bucket/key%3D1/%20x?list-type=2", b"data", **{"If-None-Match": "*"})
    assert (reply.status, body, reply.headers["ETag"]) == (200, ANSWER, '"tag"')
    reply, body = ask(url, "HEAD", "/bucket/key")
    assert (reply.status, body, reply.headers["Content-Length"]) == (200, b"", str(len(ANSWER)))
    assert _Upstream.arrived == [("PUT", "/bucket/key%3D1/%20x?list-type=2", b"data"), ("HEAD", "/bucket/key", b"")]


@pytest.mark.parametrize(("fault", "arrives"), [("drop", 0), ("reset", 0), ("lost", 1), ("truncate", 1)])
def test_a_broken_connection_hides_whether_the_request_was_applied(url, fault, arrives):
    set_rates(url, kinesis={fault: 1.0})
    with pytest.raises((HTTPException, OSError)):
        ask(url, "POST", "/", b"{}", **KINESIS)
    assert len(_Upstream.arrived) == arrives


def test_a_late_request_arrives_after_its_client_has_given_up(url):
    set_rates(url, s3={"late": 1.0})
    # However late the client learns of it: the service has not answered yet.
    _Upstream.may_answer.clear()
    with pytest.raises((HTTPException, OSError)):
        ask(url, "PUT", "/bucket/key", b"data")
    assert not _Upstream.answered.is_set()
    _Upstream.may_answer.set()
    assert _Upstream.answered.wait(PATIENCE)
    assert _Upstream.arrived == [("PUT", "/bucket/key", b"data")]


@pytest.mark.parametrize(("fault", "status", "says"), [("error", 500, b"InternalFailure"), ("throttle", 400, b"ProvisionedThroughput")])
def test_refusals_look_like_those_of_the_service(url, fault, status, says):
    set_rates(url, kinesis={fault: 1.0})
    reply, body = ask(url, "POST", "/", b"{}", **KINESIS)
    assert reply.status == status
    assert says in body
    assert _Upstream.arrived == []


def test_dynamodb_throttles_with_both_of_its_errors(url):
    set_rates(url, dynamodb={"throttle": 1.0})
    said = {ask(url, "POST", "/", b"{}", **{"X-Amz-Target": "DynamoDB_20120810.UpdateItem"})[1] for _ in range(40)}
    codes = {orjson.loads(body)["__type"].rpartition("#")[2] for body in said}
    assert codes == {"ProvisionedThroughputExceededException", "ThrottlingException"}
    assert _Upstream.arrived == []


def test_faults_of_one_service_affect_no_other_and_are_counted(url):
    set_rates(url, dynamodb={"error": 1.0})
    before = orjson.loads(ask(url, "GET", "/_faults")[1])
    assert ask(url, "POST", "/", b"{}", **KINESIS)[0].status == 200
    assert ask(url, "POST", "/", b"{}", **{"X-Amz-Target": "DynamoDB_20120810.Scan"})[0].status == 500
    after = orjson.loads(ask(url, "GET", "/_faults")[1])
    assert after["kinesis.passed"] == before.get("kinesis.passed", 0) + 1
    assert after["dynamodb.error"] == before.get("dynamodb.error", 0) + 1


def test_a_fault_is_determined_by_seed_service_and_number():
    rates = dict.fromkeys(FAULTS, 0.1)
    fates = [fate(3, "s3", number, rates) for number in range(2000)]
    assert fates == [fate(3, "s3", number, rates) for number in range(2000)]
    assert {name for name, _ in fates} == {*FAULTS, "passed"}
    assert fates != [fate(4, "s3", number, rates) for number in range(2000)]


def test_the_service_of_a_request_is_recognised():
    assert [service_of(target) for target in ("Kinesis_20131202.GetRecords", "DynamoDB_20120810.Scan", "")] == ["kinesis", "dynamodb", "s3"]
