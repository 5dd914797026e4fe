"""moto's server carries out one request at a time, and waits for nobody meanwhile."""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import pytest

from stream.local.moto import OneAtATime
from tests.chaos.conftest import client
from tests.forked import PATIENCE

SQS = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/sqs/aws4_request, SignedHeaders=host, Signature=0"


def asked(body: bytes = b"", authorization: str = "") -> dict[str, Any]:
    """What a server passes on of a request."""
    return {"CONTENT_LENGTH": str(len(body)), "wsgi.input": io.BytesIO(body), "HTTP_AUTHORIZATION": authorization}


@pytest.fixture
def hasty() -> Iterator[None]:
    """Threads take turns after each step instead of every five milliseconds."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_what_a_request_has_found_is_so_until_it_has_written(hasty: None) -> None:
    written: list[int] = []

    def append(environ: dict[str, Any], _start: Any) -> list[bytes]:
        found = len(written)
        for _ in range(100):
            environ["wsgi.input"].read()
        written.append(found)
        return []

    one = OneAtATime(append)
    with ThreadPoolExecutor(8) as threads:
        for _ in threads.map(lambda _: [one(asked(b"x"), None) for _ in range(300)], range(8)):
            pass
    assert written == list(range(2400))


def test_a_request_to_sqs_may_wait_for_messages_without_holding_up_others() -> None:
    sent = threading.Event()

    def application(environ: dict[str, Any], _start: Any) -> list[bytes]:
        if environ["HTTP_AUTHORIZATION"]:
            assert sent.wait(PATIENCE)
            return [b"message"]
        sent.set()
        return []

    one = OneAtATime(application)
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(one, asked(authorization=SQS), None)
        one(asked(), None)
        assert waiting.result() == [b"message"]


def test_nobody_waits_for_a_client_that_has_sent_half_of_its_request(moto_url: str) -> None:
    """As a worker does that is frozen meanwhile. The other half is taken when it comes."""
    with closing(client("s3", moto_url)) as s3, closing(HTTPConnection(urlsplit(moto_url).netloc, timeout=PATIENCE)) as slow:
        s3.create_bucket(Bucket="half-a-request")
        slow.putrequest("PUT", "/half-a-request/slow")
        slow.putheader("Content-Length", "8")
        slow.endheaders(b"half")
        s3.put_object(Bucket="half-a-request", Key="other", Body=b"x")
        slow.send(b"more")
        assert slow.getresponse().status == 200
        assert s3.get_object(Bucket="half-a-request", Key="slow")["Body"].read() == b"halfmore"
