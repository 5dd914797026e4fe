"""Lambda's Runtime API on loopback, as documented for custom runtimes: what the AWS runtime interface client asks for its invocations.

https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from tests.forked import PATIENCE, Forked

ROOT = Path(__file__).parents[1]
PREFIX = "/2018-06-01/runtime/"


@dataclass(frozen=True)
class Answer:
    """What the runtime said of an invocation; ``ok``: a response and no error."""

    ok: bool
    body: Any


@dataclass
class RuntimeApi:
    """Hands out invocations one at a time, each with ``seconds`` to go, and keeps the answers by request id.

    ``ready`` is set once a runtime has asked for an invocation: its initialization is over then. A runtime that ends while it waits
    for an invocation takes the next one with it; so each has a Runtime API of its own.
    """

    seconds: float = 60.0
    invocations: queue.Queue[tuple[str, bytes] | None] = field(default_factory=queue.Queue)
    answers: queue.Queue[tuple[str, Answer]] = field(default_factory=queue.Queue)
    ready: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        api = self

        class Requests(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                assert self.path == f"{PREFIX}invocation/next"
                api.ready.set()
                item = api.invocations.get()
                if item is None:
                    self.close_connection = True
                    return
                name, body = item
                headers = {
                    "Lambda-Runtime-Aws-Request-Id": name,
                    "Lambda-Runtime-Deadline-Ms": str(int((time.time() + api.seconds) * 1000)),
                    "Lambda-Runtime-Invoked-Function-Arn": "arn:aws:lambda:us-east-1:123456789012:function:flights",
                    "Lambda-Runtime-Trace-Id": "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700;Parent=9a9197af755a6419;Sampled=1",
                }
                self._send(200, body, headers)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                place = self.path.removeprefix(PREFIX).split("/")
                self._send(202, b'{"status":"OK"}', {})
                name = place[1] if place[0] == "invocation" else "init"
                api.answers.put((name, Answer(place[-1] == "response", json.loads(body or b"null"))))

            def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
                self.send_response(status)
                for header, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
                    self.send_header(header, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                """A client that was killed leaves its connection as it is."""

        self._server = Server(("127.0.0.1", 0), Requests)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.invocations.put(None)
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self._server.server_port}"


def _client(arguments: Sequence[str]) -> None:
    from awslambdaric.__main__ import main

    main(list(arguments))


class Sandbox:
    """One execution environment: the unmodified client, in a process of its own. It writes its log to ``log``.

    The process is forked from one that has imported the service; with ``python``, Python is started, as Lambda starts it.
    """

    def __init__(
        self,
        api: RuntimeApi,
        task_root: Path,
        environment: Mapping[str, str],
        log: Path,
        handler: str = "stream.function.handler",
        *,
        python: bool = False,
    ) -> None:
        self.log = log
        self._api = api
        self._count = 0
        named = {
            "AWS_LAMBDA_RUNTIME_API": api.place,
            "AWS_LAMBDA_FUNCTION_NAME": "flights",
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1769",
            "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/flights",
            "AWS_LAMBDA_LOG_STREAM_NAME": f"2026/11/26/[$LATEST]{log.stem}",
            "LAMBDA_TASK_ROOT": str(task_root),
            "_HANDLER": handler,
        }
        env = {"PATH": os.environ["PATH"], **environment, **named}
        self.process: subprocess.Popen[bytes] | Forked
        with log.open("ab") as out, Path(os.devnull).open() as nothing:
            if python:
                command = [sys.executable, "-m", "awslambdaric", handler]
                self.process = subprocess.Popen(command, cwd=ROOT, env=env, stdin=nothing, stdout=out, stderr=subprocess.STDOUT)
            else:
                streams = (nothing.fileno(), out.fileno(), out.fileno())
                self.process = Forked(["awslambdaric", handler], streams, cwd=ROOT, env=env, target=_client)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def invoke(self, event: Any) -> Answer:
        """Invoke the function and wait for its answer."""
        name = self.begin(event)
        answered, answer = self._api.answers.get(timeout=PATIENCE)
        assert answered == name, f"{answered}: {answer}\n{self.said()}"
        return answer

    def begin(self, event: Any) -> str:
        """Invoke the function; returns the request id."""
        self._count += 1
        name = f"{self.log.stem}-{self._count}"
        self._api.invocations.put((name, json.dumps(event).encode()))
        return name

    def until(self, holds: Callable[[str], bool]) -> None:
        """Return once ``holds`` is true of what the function has written."""
        pause, end = threading.Event(), time.monotonic() + PATIENCE
        while not holds(self.said()):
            if time.monotonic() > end:
                self.process.send_signal(signal.SIGUSR1)  # It tells what it is waiting for, or ends if it has not yet come to that.
                pause.wait(3.0)
                raise AssertionError(f"the function is stuck (ended: {self.process.poll()}):\n{self.said()}")
            assert self.process.poll() is None, self.said()
            pause.wait(0.005)

    def kill(self) -> None:
        """End it as Lambda does when the time is over: without a signal that it could handle."""
        self.process.kill()
        self.process.wait(PATIENCE)

    def said(self) -> str:
        """The lines that it has written. A line of which only the beginning is there yet is left out."""
        written = self.log.read_bytes()
        return written[: written.rfind(b"\n") + 1].decode()
