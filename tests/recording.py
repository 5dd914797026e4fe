"""A proxy in front of local AWS that notes which IAM action each request needs, on which resource."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

ACCOUNT, REGION = "123456789012", "us-east-1"
"""Where local AWS says that it is."""

_S3 = {"GET": "s3:GetObject", "HEAD": "s3:GetObject", "PUT": "s3:PutObject", "DELETE": "s3:DeleteObject"}
"""By the Service Authorization Reference; a conditional PUT needs no more than PutObject."""


@dataclass(frozen=True, order=True)
class Asked:
    """One kind of request; ``prefix`` is what ``s3:prefix`` would be."""

    action: str
    resource: str
    prefix: str | None = field(default=None)


def asked(method: str, url: str, target: str, body: bytes, stream: str = "*") -> Asked:
    """What IAM would be asked for this request; ``stream`` is meant by shard iterators, which name none in the open."""
    parts = urlsplit(url)
    if target:
        service, action = target.partition("_")[0].lower(), target.partition(".")[2]
        named = json.loads(body)
        name = named.get("StreamName") or str(named.get("StreamARN", stream)).rpartition("/")[2]
        return Asked(f"{service}:{action}", f"arn:aws:{service}:{REGION}:{ACCOUNT}:stream/{name}")
    bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
    query = parse_qs(parts.query, keep_blank_values=True)
    if key:
        return Asked(_S3[method], f"arn:aws:s3:::{bucket}/{key}")
    assert method == "GET"
    assert "list-type" in query, f"what is {method} {url}?"
    return Asked("s3:ListBucket", f"arn:aws:s3:::{bucket}", query.get("prefix", [""])[0])


class Recorder:
    """Forwards to ``target``; ``seen`` is what was asked for so far."""

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        self.host, self.port = parts.hostname, parts.port
        self.seen: set[Asked] = set()
        self.lock = threading.Lock()

    def note(self, what: Asked) -> None:
        with self.lock:
            self.seen.add(what)


@contextmanager
def recording(target: str, stream: str = "*") -> Iterator[tuple[str, Recorder]]:
    """The URL of a proxy in front of ``target``, and what it records, until the context ends."""
    recorder = Recorder(target)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

        def _forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            recorder.note(asked(self.command, self.path, self.headers.get("X-Amz-Target", ""), body, stream))
            connection = HTTPConnection(recorder.host, recorder.port, timeout=60)
            try:
                connection.request(self.command, self.path, body, dict(self.headers))
                reply = connection.getresponse()
                content = reply.read()
                self.send_response(reply.status)
                for name, value in reply.getheaders():
                    if name.lower() not in {"transfer-encoding", "connection", "content-length", "date", "server"}:
                        self.send_header(name, value)
                bare = self.command == "HEAD" or reply.status in {204, 304}
                if not bare or reply.getheader("Content-Length"):
                    self.send_header("Content-Length", str(reply.getheader("Content-Length") if bare else len(content)))
                self.end_headers()
                self.wfile.write(content)
            finally:
                connection.close()

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _forward  # noqa: N815 - names of the library

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            """A worker that is killed leaves its connections without a word."""

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", recorder
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
