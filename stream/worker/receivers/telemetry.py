"""Spans of the worker's own operations, passed to the OpenTelemetry SDK without ever blocking the worker."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

import stream
from stream import events
from stream.audit.operations import CLIENT, EventSpans, Operation, Operations
from stream.contracts import Emit
from stream.errors import DefinitionError
from stream.pipeline.audit import Telemetry
from stream.pipeline.resources.secrets import SecretReader, find_headers

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

SCOPE: Final = "stream.worker"

EXPORT_SECONDS: Final = 10.0
"""Seconds that one request may take, including retries."""

SHUTDOWN_SECONDS: Final = 3.0
"""Seconds that the last spans may take when the worker ends."""

Count: TypeAlias = Callable[[str, int], None]
"""Called with how many spans were ``exported``, ``failed`` (the collector refused them) or ``dropped`` (the queue was full)."""


class Log(Protocol):
    """Where events are written."""

    def writes(self, event: events.Event) -> bool:
        """Whether this event would be written."""
        ...

    def __call__(self, event: events.Event, context: Mapping[str, str]) -> None:
        """Write ``event`` with ``context``."""
        ...


class OperationTracker:
    """An ``Emit`` that tracks operations, adds their trace and span ids to the log, and passes on spans that have ended."""

    def __init__(self, operations: Operations, log: Log) -> None:
        self._operations = operations
        self._log = log
        self.sender: SpanQueue | None = None
        """The queue for ended spans; None while there is no collector."""

    def __call__(self, event: events.Event) -> None:
        """Update operations by ``event``, and log it."""
        if self.sender is None and isinstance(event, events.PageReceived) and not self._log.writes(event):
            # Pages are many and change nothing that operations remember.
            return
        spans: EventSpans = self._operations(event)
        self._log(event, {"trace_id": spans.trace, "span_id": spans.span})
        if self.sender is not None:
            self.sender.put(spans.ended)


class SpanQueue:
    """A bounded queue in front of the SDK's batch processor. ``put`` never waits: if the queue is full, spans are dropped and counted."""

    def __init__(self, processor: Any, build: Callable[[Operation], ReadableSpan], limit: int, count: Count) -> None:
        self._processor = processor
        self._build = build
        self._limit = limit
        self._count = count
        self._pending = 0
        self._lock = threading.Lock()

    def put(self, ended: Sequence[Operation]) -> None:
        """Queue the spans of ``ended``, as far as there is room."""
        with self._lock:
            room = max(0, self._limit - self._pending)
            taken = ended[:room]
            self._pending += len(taken)
        if len(taken) < len(ended):
            self._count("dropped", len(ended) - len(taken))
        for operation in taken:
            self._processor.on_end(self._build(operation))

    def settled(self, result: str, spans: int) -> None:
        """Note that ``spans`` spans have left the queue, with ``result``."""
        with self._lock:
            self._pending -= spans
        self._count(result, spans)


@asynccontextmanager
async def spans_to_collector(
    telemetry: Telemetry, names: tuple[str, str], env: Mapping[str, str], base: Path, managed: SecretReader, emit: Emit, count: Count
) -> AsyncIterator[SpanQueue]:
    """A queue whose spans go to the collector while the context is open; when it closes, the last spans get a few seconds.

    ``names``: application and worker.

    Raises:
        DefinitionError: the SDK is not installed, or a header's secret is missing.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http import Compression
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
    except ImportError as error:
        msg = "`telemetry` needs the OpenTelemetry SDK: install kinesis-stream[telemetry], or remove `telemetry` from the pipeline"
        raise DefinitionError(msg) from error

    class Counting(SpanExporter):
        """Passes spans on and counts what became of them."""

        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            result: SpanExportResult = SpanExportResult.FAILURE
            try:
                result = exporter.export(spans)
            finally:
                queue.settled("exported" if result is SpanExportResult.SUCCESS else "failed", len(spans))
            return result

        def shutdown(self) -> None:
            exporter.shutdown()

    headers = await find_headers(telemetry.headers, env, base, managed)
    url = f"{telemetry.endpoint.rstrip('/')}/v1/traces"
    exporter: Any = OTLPSpanExporter(endpoint=url, headers=headers, timeout=EXPORT_SECONDS, compression=Compression.Gzip)
    # One more than the limit, so that the SDK's own silent dropping never happens.
    processor: Any = BatchSpanProcessor(Counting(), max_queue_size=telemetry.queue + 1, max_export_batch_size=min(512, telemetry.queue))
    queue = SpanQueue(processor, _builder(*names), telemetry.queue, count)
    handler = _LogHandler(emit)
    logger = logging.getLogger("opentelemetry")
    propagated, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield queue
    finally:
        ending = threading.Thread(target=processor.shutdown, name="end-telemetry", daemon=True)
        ending.start()
        await asyncio.to_thread(ending.join, SHUTDOWN_SECONDS)
        if ending.is_alive():
            exporter.shutdown()  # makes it abandon the request in progress
            await asyncio.to_thread(ending.join, SHUTDOWN_SECONDS)
        logger.removeHandler(handler)
        logger.propagate = propagated


class _LogHandler(logging.Handler):
    """Turns the SDK's log messages into events; these contain the endpoint and the status, never a header."""

    def __init__(self, emit: Emit) -> None:
        super().__init__(logging.WARNING)
        self._emit = emit

    def emit(self, record: logging.LogRecord) -> None:
        self._emit(events.TelemetryFailed("", "", record.getMessage()[:300]))


def _builder(application: str, worker: str) -> Callable[[Operation], ReadableSpan]:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

    about = {"service.name": application, "service.namespace": "stream", "service.instance.id": worker}
    about["service.version"] = stream.__version__
    resource, scope = Resource(about), InstrumentationScope(SCOPE, stream.__version__)
    sampled = TraceFlags(TraceFlags.SAMPLED)

    def context(trace: bytes, span: bytes) -> SpanContext:
        return SpanContext(int.from_bytes(trace, "big"), int.from_bytes(span, "big"), is_remote=False, trace_flags=sampled)

    def build(done: Operation) -> ReadableSpan:
        error = {"error.type": done.error} if done.error else {}
        return ReadableSpan(
            name=done.name,
            context=context(done.trace, done.span),
            parent=context(done.trace, done.parent) if done.parent else None,
            resource=resource,
            attributes={"messaging.system": "aws.kinesis", **done.attributes, **error},
            kind=SpanKind.CLIENT if done.kind == CLIENT else SpanKind.INTERNAL,
            status=Status(StatusCode.ERROR if done.error else StatusCode.UNSET),
            start_time=done.start,
            end_time=done.end,
            instrumentation_scope=scope,
        )

    return build
