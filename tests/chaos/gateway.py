"""A proxy in front of S3 or DynamoDB that answers chosen requests as the service itself would if something were wrong."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.serving import serving

_KEPT_BACK = {"transfer-encoding", "connection", "content-length", "date", "server"}


@dataclass(frozen=True)
class Asked:
    """One request. ``key``: without the bucket; ``condition``: ``If-Match`` or ``If-None-Match`` of a write, or nothing.

    ``operation``: of DynamoDB, or nothing.
    """

    method: str
    key: str
    condition: str
    body: bytes
    operation: str = ""

    @property
    def seals(self) -> bool:
        """Whether it makes an intent a sealed manifest."""
        return self.method == "PUT" and "/commits/" in self.key and self.condition == "If-Match"


@dataclass(frozen=True)
class Answer:
    """An error in place of the service's answer, in the form of S3 or of DynamoDB. ``carried_out``: the request is passed on all the same.

    Without a ``code``, the connection breaks off in place of an answer.
    """

    status: int = 0
    code: str = ""
    said: str = "why not"
    carried_out: bool = False


LOST = Answer(carried_out=True)
"""The request is carried out, and its reply is lost."""

Rule = Callable[[Asked], Answer | None]


@dataclass
class Gateway:
    """``rules`` are asked in turn; the first that gives an answer decides. ``met``: the requests that met one, in order."""

    host: str
    port: int
    rules: list[Rule] = field(default_factory=list)
    met: list[Asked] = field(default_factory=list)
    seen: list[Asked] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, asked: Asked) -> Answer | None:
        with self.lock:
            self.seen.append(asked)
            found = next((answer for rule in self.rules if (answer := rule(asked)) is not None), None)
            if found is not None:
                self.met.append(asked)
            return found


@contextmanager
def gateway(target: str, rules: Sequence[Rule] = ()) -> Iterator[tuple[str, Gateway]]:
    """The URL of a proxy in front of ``target``, and its rules, until the context ends."""
    parts = urlsplit(target)
    made = Gateway(str(parts.hostname), int(parts.port or 80), list(rules))
    with serving(_handler(made)) as url:
        yield url, made


def _handler(made: Gateway) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            """Log nothing."""

        def _forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            key = unquote(urlsplit(self.path).path).lstrip("/").partition("/")[2]
            condition = next((name for name in ("If-Match", "If-None-Match") if self.command == "PUT" and name in self.headers), "")
            operation = self.headers.get("X-Amz-Target", "").rpartition(".")[2]
            answer = made.answer(Asked(self.command, key, condition, body, operation))
            if answer is None or answer.carried_out:
                status, headers, content = _passed_on(made, self.command, self.path, body, dict(self.headers))
                if answer is None:
                    _reply(self, status, headers, content)
                    return
            if not answer.code:
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
                return
            if operation:
                said = json.dumps({"__type": f"com.amazonaws.dynamodb.v20120810#{answer.code}", "message": answer.said}).encode()
                _reply(self, answer.status, [("Content-Type", "application/x-amz-json-1.0")], said)
                return
            text = f"<Error><Code>{answer.code}</Code><Message>{answer.said}</Message></Error>".encode()
            _reply(self, answer.status, [("Content-Type", "application/xml")], text)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _forward  # noqa: N815 - names of the library

    return Handler


def _reply(handler: BaseHTTPRequestHandler, status: int, headers: Sequence[tuple[str, str]], content: bytes) -> None:
    handler.send_response(status)
    given = {name.lower(): value for name, value in headers}
    for name, value in headers:
        if name.lower() not in _KEPT_BACK:
            handler.send_header(name, value)
    bare = handler.command == "HEAD" or status in {204, 304}
    if not bare or "content-length" in given:
        handler.send_header("Content-Length", given["content-length"] if bare else str(len(content)))
    handler.end_headers()
    if not bare:
        handler.wfile.write(content)


def _passed_on(made: Gateway, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, list[tuple[str, str]], bytes]:
    connection = HTTPConnection(made.host, made.port, timeout=60)
    try:
        connection.request(method, path, body, headers)
        reply = connection.getresponse()
        return reply.status, reply.getheaders(), reply.read()
    finally:
        connection.close()
