"""What the audit costs: the same pipeline with no ledger, with the ledger, and with the ledger and a span for each record sent on; and what
the OpenTelemetry SDK takes for the same spans.

``python benchmarks/audit.py [--shape flights] [--records 50000] [--shards 4] [--runs 5]``

The service has no switch for the ledger; "off" is this benchmark's own variant, in which segments are not made. Each variant runs in a
process of its own over the same records of a replay server; runs alternate, and what a small stream costs (start-up) is taken off. CPU
seconds are those of the worker alone, user and system: the collector's are not counted. Machines differ and are noisy: quote the ratios.

Spans go to a listener that reads and drops them, and in the last variant to rotel. A collector that decodes spans takes far more time over
one than the worker; while the worker waits for it, at the end of a stream that gives nothing any more, it goes on polling, which is not
what the audit costs.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Final

sys.path.append(str(Path(__file__).resolve().parents[1]))

from common import replay
from contestants import Job, Used, service
from replay import BENCH, SMALL, SMALL_RECORDS
from shapes import SHAPES

from stream.audit import spans
from stream.audit.export_options import Shape
from stream.audit.ledger import read_segment
from stream.audit.packing import Compression, compressed
from stream.cli.loading import settings_of_libraries
from stream.worker.opening.links import link_of
from tests.ports import free_port

EMPTY: Final = hashlib.sha256().hexdigest()
PATIENCE: Final = 120.0
CODECS: Final = (Compression.GZIP, Compression.ZSTD)
VARIANTS: Final = ("off", "ledger", "ledger+otlp", "with gzip", "to rotel")


def worker(variant: str, file: Path) -> None:
    """The worker process of one variant."""
    from stream.audit import ledger
    from stream.cli.run import run_pipeline
    from stream.contracts import OutputFile

    def no_segment(_unit: Any, batch: Any, _done: Any, _placed: Any, _paths: Any = ()) -> Any:
        return batch

    def no_file(batch: Any, stem: str) -> OutputFile:
        return OutputFile(ledger.NAME, f"{stem}.{EMPTY[:16]}.parquet", b"", batch.rows, EMPTY)

    if variant == "off":
        ledger.make_segment, ledger.encode_segment = no_segment, no_file
    run_pipeline(file, drain=60.0, threads=None)


class Draining(asyncio.Protocol):
    """One client whose requests are read, dropped and accepted."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport, self.head, self.left = transport, b"", 0

    def data_received(self, data: bytes) -> None:
        while data:
            if not self.left:
                self.head += data
                end = self.head.find(b"\r\n\r\n")
                if end < 0:
                    return
                data, fields = self.head[end + 4 :], self.head[:end].lower()
                self.head, self.left = b"", int(fields.split(b"content-length:")[1].split(b"\r\n")[0])
            taken = min(self.left, len(data))
            data, self.left = data[taken:], self.left - taken
            if not self.left:
                self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


async def drain() -> None:
    """The listener's process: prints its port, ends with its standard input."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Draining, "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await loop.run_in_executor(None, sys.stdin.read)


@contextmanager
def draining() -> Iterator[str]:
    """The listener; its address."""
    command = [sys.executable, str(Path(__file__).resolve()), "--drain"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        process.stdin.close()


@contextmanager
def collector(scratch: str) -> Iterator[str]:
    """rotel, throwing away what it took; its address."""
    import rotel

    program = Path(rotel.__file__).with_name("rotel-agent")
    with free_port() as port, free_port() as unused:
        command = [str(program), "start", "--exporter", "blackhole", "--otlp-http-endpoint", f"127.0.0.1:{port}"]
        command += ["--otlp-grpc-endpoint", f"127.0.0.1:{unused}", "--pid-file", f"{scratch}/rotel.pid"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            try:
                yield f"http://127.0.0.1:{port}"
            finally:
                process.terminate()


def run(variant: str, job: Job, endpoints: Mapping[str, str]) -> Used:
    """One run of one variant; every record exported, if the variant does that."""
    job.folder.mkdir()
    exporting = variant in endpoints
    codec = Compression.GZIP if variant == "with gzip" else Compression.ZSTD
    more = f"audit: {{otlp: {{endpoint: '{endpoints[variant]}', compression: {codec}}}}}\n" if exporting else ""

    def exported() -> None:
        deadline, never = time.monotonic() + PATIENCE, threading.Event()
        while exporting and accepted(job) < job.records:
            if time.monotonic() > deadline:
                sys.exit(f"of {job.records} records the collector has accepted {accepted(job)} spans after {PATIENCE:.0f} s")
            never.wait(0.02)

    # What `stream run` sets before it loads a library, this worker would set too late.
    variables = settings_of_libraries({}, len(os.sched_getaffinity(0)))
    return service(job, program=(str(Path(__file__).resolve()), "--worker", variant), more=more, settled=exported, variables=variables)


def accepted(job: Job) -> int:
    """Spans that the collector has accepted, as the cursors say."""
    found = 0
    for path in (job.folder / "state" / "bench" / "export" / job.stream).glob("*.json"):
        with suppress(OSError, ValueError):  # it is being replaced
            found += json.loads(path.read_bytes())["accepted"]
    return found


def segments(folder: Path) -> list[tuple[Any, Any, dict[tuple[str, str], str]]]:
    """The sealed units of a run."""
    found = []
    for path in sorted((folder / "state" / "bench" / "commits").rglob("0*.json")):
        link = link_of(path.name, path.read_bytes(), int(path.stem))
        if link.ledger is not None:
            segment = read_segment((folder / "state" / "bench" / "ledger" / "v1" / link.ledger.key).read_bytes())
            found.append((link, segment, {(file.sink, file.key): f"s3://lake/flights/{file.key}" for file in link.files}))
    return found


def encode(units: list[Any], codec: Compression) -> tuple[float, float, int, int, int]:
    """CPU seconds to encode and to compress, spans, bytes before and after."""
    coding = packing = 0.0
    items = raw = packed = 0
    for unit in units:
        begun = time.process_time()
        made = list(spans.requests(*unit, Shape()))
        between = time.process_time()
        packed += sum(len(compressed(request, codec)) for request in made)
        coding, packing = coding + between - begun, packing + time.process_time() - between
        items, raw = items + sum(request.items for request in made), raw + sum(request.size for request in made)
    return coding, packing, items, raw, packed


def sdk(units: list[Any], limit: int) -> tuple[float, int]:
    """CPU seconds of the SDK for the first ``limit`` record spans with the same attributes, encoded and compressed, nothing sent."""
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
    from opentelemetry.trace import SpanKind

    class Packing(SpanExporter):
        def export(self, done: Any) -> SpanExportResult:
            gzip.compress(encode_spans(done).SerializePartialToString(), compresslevel=1)
            return SpanExportResult.SUCCESS

    provider = TracerProvider()
    processor = BatchSpanProcessor(Packing(), max_queue_size=2 * limit, max_export_batch_size=512)
    provider.add_span_processor(processor)
    tracer = provider.get_tracer("audit")
    begun, count = time.process_time(), 0
    for link, segment, urls in units:
        objects = [urls.get((item.sink, item.key), item.key) for item in segment.header.objects]
        for row in segment.frame.head(limit - count).iter_rows(named=True):
            about = {"messaging.system": "aws.kinesis", "messaging.operation.name": "process", "messaging.operation.type": "process"}
            about |= {"messaging.message.id": row["seq"], "messaging.message.body.size": row["bytes"], "kst.outcome": row["outcome"]}
            if row["dest_0"] is not None:
                about |= {"kst.dest.uri": objects[row["dest_0"]], "kst.dest.row": row["row_0"], "kst.dest.rows": row["rows"]}
            start = row["arrival_ms"] * 1_000_000
            span = tracer.start_span(f"process {link.stream}", kind=SpanKind.CONSUMER, start_time=start, attributes=about)
            span.end(start + 1_000_000)
            count += 1
    processor.force_flush()
    seconds = time.process_time() - begun
    provider.shutdown()
    return seconds, count


def measure(options: argparse.Namespace, scratch: str) -> tuple[dict[str, list[tuple[float, float]]], float]:
    """CPU and wall seconds of each run, start-up taken off, by variant; and megabytes of payload."""
    figures: dict[str, list[tuple[float, float]]] = {variant: [] for variant in VARIANTS}
    shape = SHAPES[options.shape]
    with replay(shape, options.records, options.shards) as server, draining() as drain, collector(scratch) as rotel:
        endpoints = {"ledger+otlp": drain, "with gzip": drain, "to rotel": rotel}
        for number in range(options.runs):
            for variant in VARIANTS:
                name = f"{number}-{variant}"
                job = partial(Job, shape, server["url"])
                used = run(variant, job(BENCH, options.records * options.shards, Path(scratch, name)), endpoints)
                least = run(variant, job(SMALL, SMALL_RECORDS * options.shards, Path(scratch, f"{name}-small")), endpoints)
                figures[variant].append((used.cpu - least.cpu, used.wall - least.wall))
    return figures, server["payload"] * options.shards / 1e6


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="flights")
    parser.add_argument("--records", type=int, default=50_000, help="on each shard")
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--sdk-spans", type=int, default=20_000)
    parser.add_argument("--worker", metavar="VARIANT", help=argparse.SUPPRESS)
    parser.add_argument("--drain", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("file", nargs="?", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options.worker, options.file)
        return 0
    if options.drain:
        asyncio.run(drain())
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        figures, payload = measure(options, scratch)
        units = segments(Path(scratch, "0-ledger+otlp"))
        coded = {codec: min((encode(units, codec) for _ in range(3)), key=lambda each: each[0] + each[1]) for codec in CODECS}
        by_sdk = sdk(units, options.sdk_spans)
    return report(figures, payload, options, coded, by_sdk)


def report(
    figures: dict[str, list[tuple[float, float]]],
    payload: float,
    options: argparse.Namespace,
    coded: dict[Compression, tuple[float, float, int, int, int]],
    by_sdk: tuple[float, int],
) -> int:
    records = options.records * options.shards
    print(f"{records:,} records ({options.shape}), {payload:.0f} MB of payload, {options.runs} alternating runs")
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    base = median(cpu for cpu, _ in figures["off"])
    for variant, values in figures.items():
        cpu, wall = median(cpu for cpu, _ in values), median(wall for _, wall in values)
        spread = f"[{min(cpu for cpu, _ in values):.2f} .. {max(cpu for cpu, _ in values):.2f}]"
        print(f"{variant:12} {cpu:6.2f} CPU-s {spread:16} {cpu / base - 1:+7.1%}   {records / wall:10,.0f} records/s   wall {wall:.2f} s")
    seconds, count = by_sdk
    sdk_cost = seconds / count * records
    print(f"{'SDK spans':12} {sdk_cost:6.2f} CPU-s for the spans alone, from {count:,} of them: {(base + sdk_cost) / base - 1:+7.1%}")
    for codec, (coding, packing, items, raw, packed) in coded.items():
        print(f"encoding {items / coding / 1e6:.2f} M spans/CPU-s, with {codec} {items / (coding + packing) / 1e6:.2f} M;", end=" ")
        print(f"{raw / items:.0f} bytes a span, {packed / items:.1f} compressed; the SDK {count / seconds:,.0f} spans/CPU-s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
