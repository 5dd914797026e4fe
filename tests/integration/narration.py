"""An OTLP collector on loopback, and a complete worker in this process whose output is captured."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from stream import events
from stream.contracts import Clock
from stream.pipeline.checks.lint import check
from stream.worker.assemble import WorkerOptions
from stream.worker.service import run_worker


@dataclass
class Received:
    """What the collector received, decoded by OpenTelemetry's own classes. ``status`` is what it answers; only 200 keeps the body."""

    url: str = ""
    status: int = 200
    bodies: list[tuple[str, bytes]] = field(default_factory=list)
    refused: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def spans(self) -> list[Any]:
        with self.lock:
            requests = [ExportTraceServiceRequest.FromString(body) for path, body in self.bodies if path == "/v1/traces"]
        return [span for request in requests for each in request.resource_spans for scope in each.scope_spans for span in scope.spans]

    def of_scope(self, name: str) -> list[Any]:
        with self.lock:
            requests = [ExportTraceServiceRequest.FromString(body) for path, body in self.bodies if path == "/v1/traces"]
        scopes = [scope for request in requests for each in request.resource_spans for scope in each.scope_spans]
        return [span for scope in scopes if scope.scope.name == name for span in scope.spans]

    @property
    def logs(self) -> list[Any]:
        with self.lock:
            requests = [ExportLogsServiceRequest.FromString(body) for path, body in self.bodies if path == "/v1/logs"]
        scopes = [scope for request in requests for each in request.resource_logs for scope in each.scope_logs]
        return [record for scope in scopes for record in scope.log_records]


@contextmanager
def collector() -> Iterator[Received]:
    """A collector in a thread."""
    received = Received()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if encoding := self.headers.get("content-encoding"):
                body = pa.input_stream(pa.BufferReader(body), compression=encoding).read()
            with received.lock:
                status = received.status
                if status == 200:
                    received.bodies.append((self.path, body))
                else:
                    received.refused += 1
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    received.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield received
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def attributes(item: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in item.attributes}


def work(
    file: Path,
    until: Callable[[events.Event], bool],
    *,
    clock: Clock | None = None,
    env: Mapping[str, str] | None = None,
    meanwhile: Callable[[], None] = lambda: None,
) -> list[Any]:
    """Run the pipeline in ``file`` until ``until`` holds for an event and ``meanwhile``, in a thread, has returned; the events."""
    heard: list[events.Event] = []
    threads: list[threading.Thread] = []

    def stop() -> None:
        try:
            meanwhile()
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    def listen(event: events.Event) -> None:
        heard.append(event)
        if not threads and until(event):
            threads.append(threading.Thread(target=stop))
            threads[0].start()

    environment = {**os.environ, **(env or {})}
    result = check(file, environment)
    assert result.pipeline is not None, [finding.render() for finding in result.findings]
    options = WorkerOptions(file.parent, environment, 60.0, 1, (listen,), *([clock] if clock else []))
    asyncio.run(run_worker(result.pipeline, options))
    threads[0].join()
    return heard


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]
