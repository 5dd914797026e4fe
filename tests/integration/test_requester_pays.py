"""A bucket whose requester pays: an S3 that refuses every request for its objects that does not say so."""

from __future__ import annotations

import gzip
import http.client
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import boto3
import duckdb
import pytest
from typer.testing import CliRunner

from stream.cli.main import app

PIPELINE = """
application: paid
source:
  s3: {url: "s3://theirs/in/", request_payer: requester}
  schema: {n: int64}
sinks: [s3: {url: "file:lake"}]
state: file:state
metrics: {port: 0}
"""
DENIED = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"


class Paid(BaseHTTPRequestHandler):
    """Passes requests on to ``upstream``, but those for ``theirs`` only if they say that the requester pays."""

    protocol_version = "HTTP/1.1"
    upstream: tuple[str, int]
    paid: set[str]

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.path.startswith("/theirs"):
            kind = "list" if "list-type" in self.path else "range" if "range" in self.headers else self.command
            signed = "x-amz-request-payer" in self.headers.get("authorization", "")
            if self.headers.get("x-amz-request-payer") != "requester" or not signed:
                self.reply(403, {}, DENIED)
                return
            self.paid.add(kind)
        there = http.client.HTTPConnection(*self.upstream, timeout=30)
        there.request(self.command, self.path, body, {name: value for name, value in self.headers.items() if name.lower() != "host"})
        found = there.getresponse()
        self.reply(found.status, dict(found.getheaders()), found.read())
        there.close()

    def reply(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        length = headers.get("Content-Length", str(len(body))) if self.command == "HEAD" else str(len(body))
        left_out = {"content-length", "connection", "transfer-encoding", "date", "server"}
        for name, value in headers.items():
            if name.lower() not in left_out:
                self.send_header(name, value)
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = answer  # noqa: N815 - the names are the library's

    def log_message(self, *_args: Any) -> None:
        """Keep quiet."""


@pytest.fixture
def paid(moto_url: str, aws_keys: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Paid]]:
    """The handler of an S3 in front of moto, with a bucket of somebody else; the working directory has the pipeline."""
    parts = urlsplit(moto_url)
    handler = type("Here", (Paid,), {"upstream": (parts.hostname, parts.port), "paid": set()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    serving = Thread(target=server.serve_forever)
    serving.start()
    client = boto3.client("s3", endpoint_url=moto_url, region_name="us-east-1")
    client.create_bucket(Bucket="theirs")
    for name, numbers in {"a": range(3), "b": range(3, 6)}.items():
        body = gzip.compress(b"".join(json.dumps({"n": n}).encode() + b"\n" for n in numbers))
        client.put_object(Bucket="theirs", Key=f"in/{name}.json.gz", Body=body)
    client.put_object(Bucket="theirs", Key="list.txt", Body=b"s3://theirs/in/b.json.gz\n")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", moto_url)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.chdir(tmp_path)
    Path("pipeline.yaml").write_text(PIPELINE)
    yield handler
    for key in ("in/a.json.gz", "in/b.json.gz", "list.txt"):
        client.delete_object(Bucket="theirs", Key=key)
    client.delete_bucket(Bucket="theirs")
    client.close()
    server.shutdown()
    serving.join()
    server.server_close()


def ask(*words: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, list(words), env={"COLUMNS": "300"})
    assert result.exit_code == code, result.output
    return result.output


def numbers() -> list[int]:
    return [n for (n,) in duckdb.read_parquet("lake/*.parquet").project("n").order("n").fetchall()]


def test_every_request_for_the_objects_says_that_we_pay(paid: type[Paid]) -> None:
    assert "s3://theirs/in/" in ask("doctor", "pipeline.yaml")
    ask("preview", "pipeline.yaml")
    ask("run", "pipeline.yaml")
    assert numbers() == list(range(6))
    assert paid.paid == {"list", "range"}
    ask("audit", "verify", "pipeline.yaml", "--source")


def test_a_manifest_in_that_bucket_is_paid_for_too(paid: type[Paid]) -> None:
    Path("pipeline.yaml").write_text(PIPELINE.replace("request_payer", "manifest: s3://theirs/list.txt, request_payer"))
    ask("run", "pipeline.yaml")
    assert numbers() == [3, 4, 5]


def test_without_the_option_nothing_is_read(paid: type[Paid]) -> None:
    Path("pipeline.yaml").write_text(PIPELINE.replace(", request_payer: requester", ""))
    said = ask("run", "pipeline.yaml", code=1)
    assert "AccessDenied" in said
    assert "allow it for the role in use, on that prefix; if its owner has whoever requests pay" in said
    assert "set source.s3.request_payer: requester" in ask("doctor", "pipeline.yaml", code=1)
    assert not paid.paid


def test_the_option_is_not_advised_where_it_is_set_or_unknown(paid: type[Paid]) -> None:
    Path("pipeline.yaml").write_text(PIPELINE.replace("file:lake", "s3://theirs/out/"))
    said = ask("run", "pipeline.yaml", code=1)
    assert "allow it for the role in use, on that prefix" in said
    assert "request_payer" not in said


def test_what_is_not_on_s3_costs_nothing(paid: type[Paid]) -> None:
    Path("pipeline.yaml").write_text(PIPELINE.replace("s3://theirs/in/", "file:in"))
    assert "nobody pays for requests to file:in" in ask("check", "pipeline.yaml", code=1)
