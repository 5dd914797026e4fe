"""What the audit costs: the same pipeline with no ledger, with the ledger, with the ledger and a span for each record sent to rotel, and
what the OpenTelemetry SDK takes for the same spans.

The service has no switch for the ledger; "off" is this benchmark's own variant, in which segments are not made. Each variant runs in a
process of its own over the same records; runs alternate, and what a small stream costs (start-up) is taken off. CPU seconds are those
of the worker alone: rotel's are not counted. Machines differ and are noisy: quote the ratios.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
import platform
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.run import PIPELINE, SMALL, SMALL_ROWS, fill
from stream.audit import spans
from stream.audit.export import Compression, compress
from stream.audit.ledger import read_segment
from stream.local.aws import Errands
from stream.local.start import LocalAws
from stream.worker.auditing import link_of
from tests.unit.worker.rotel_agent import free_port

BENCH = "bench"
EMPTY = hashlib.sha256().hexdigest()
VARIANTS = ("off", "ledger", "ledger+otlp")


def worker(variant: str, file: Path) -> None:
    """The worker process of one variant."""
    from stream.audit import ledger
    from stream.cli.run import run_pipeline
    from stream.contracts import OutputFile

    def no_segment(_unit: Any, batch: Any, _done: Any, _placed: Any, stem: str, _paths: Any = ()) -> OutputFile:
        return OutputFile(ledger.NAME, f"{stem}.{EMPTY[:16]}.parquet", b"", batch.rows, EMPTY)

    if variant == "off":
        ledger.encode_segment = no_segment
    run_pipeline(file, drain=60.0, threads=None)


def run(variant: str, environment: dict[str, str], stream: str, records: int, folder: Path, collector: str) -> tuple[float, float]:
    """CPU seconds and wall seconds."""
    folder.mkdir()
    audit = f"audit: {{otlp: {{endpoint: '{collector}', mode: strict}}}}\n" if variant == "ledger+otlp" else ""
    (folder / "pipeline.yaml").write_text(PIPELINE + audit)
    command = [sys.executable, "-m", "benchmarks.audit", "--worker", variant, str(folder / "pipeline.yaml")]
    before, begun, done = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic(), 0
    with subprocess.Popen(command, env={**os.environ, **environment, "STREAM": stream}, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        for line in process.stderr:
            event = json.loads(line)
            if event["event"] == "unit_sealed":
                done += sum(event["outcomes"].values())
            if done >= records:
                break
        wall = time.monotonic() - begun
        process.send_signal(signal.SIGTERM)
        process.stderr.read()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


def segments(folder: Path) -> list[tuple[Any, Any, dict[tuple[str, str], str]]]:
    """The sealed units of a run."""
    found = []
    for path in sorted((folder / "state" / "bench" / "commits").rglob("0*.json")):
        link = link_of(path.name, path.read_bytes(), int(path.stem))
        if link.ledger is not None:
            segment = read_segment((folder / "state" / "bench" / "ledger" / "v1" / link.ledger.key).read_bytes())
            found.append((link, segment, {(file.sink, file.key): f"s3://lake/flights/{file.key}" for file in link.files}))
    return found


def encode(units: list[Any]) -> tuple[float, float, int, int, int]:
    """CPU seconds to encode and to compress with gzip, spans, bytes before and after."""
    coding = packing = 0.0
    items = raw = packed = 0
    for unit in units:
        begun = time.process_time()
        made = list(spans.requests(*unit, spans.Shape()))
        between = time.process_time()
        packed += sum(len(compress(request.body, Compression.GZIP)) for request in made)
        coding, packing = coding + between - begun, packing + time.process_time() - between
        items, raw = items + sum(request.items for request in made), raw + sum(len(request.body) for request in made)
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=336_776)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--sdk-spans", type=int, default=20_000)
    parser.add_argument("--worker", nargs=2, metavar=("VARIANT", "FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options.worker[0], Path(options.worker[1]))
        return 0
    import rotel

    program, port = Path(rotel.__file__).with_name("rotel-agent"), free_port()
    command = [str(program), "start", "--exporter", "blackhole", "--otlp-http-endpoint", f"127.0.0.1:{port}"]
    figures: dict[str, list[tuple[float, float]]] = {variant: [] for variant in VARIANTS}
    with LocalAws() as aws, tempfile.TemporaryDirectory() as scratch:
        environment = aws.environment()
        os.environ.update(environment)
        with Errands(environment) as errands:
            for stream in (BENCH, SMALL):
                errands.create_stream(stream, 4)
        payload = fill(environment, BENCH, options.rows) / 1e6
        fill(environment, SMALL, SMALL_ROWS)
        command += ["--otlp-grpc-endpoint", f"127.0.0.1:{free_port()}", "--pid-file", f"{scratch}/rotel.pid"]
        collecting = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            url = f"http://127.0.0.1:{port}"
            for number in range(options.runs):
                for variant in VARIANTS:
                    cpu, wall = run(variant, environment, BENCH, options.rows, Path(scratch, f"{number}-{variant}"), url)
                    idle, least = run(variant, environment, SMALL, SMALL_ROWS, Path(scratch, f"{number}-{variant}-small"), url)
                    figures[variant].append((cpu - idle, wall - least))
        finally:
            collecting.terminate()
            collecting.wait()
        units = segments(Path(scratch, "0-ledger+otlp"))
        coded = min((encode(units) for _ in range(3)), key=lambda each: each[0] + each[1])
        by_sdk = sdk(units, options.sdk_spans)
    return report(figures, payload, options, coded, by_sdk)


def report(
    figures: dict[str, list[tuple[float, float]]],
    payload: float,
    options: argparse.Namespace,
    coded: tuple[float, float, int, int, int],
    by_sdk: tuple[float, int],
) -> int:
    print(f"{options.rows:,} records, {payload:.0f} MB of payload, {options.runs} alternating runs")
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    base = median(cpu for cpu, _ in figures["off"])
    for variant, values in figures.items():
        cpu, wall = median(cpu for cpu, _ in values), median(wall for _, wall in values)
        spread = f"[{min(cpu for cpu, _ in values):.2f} .. {max(cpu for cpu, _ in values):.2f}]"
        print(
            f"{variant:12} {cpu:6.2f} CPU-s {spread:16} {cpu / base - 1:+7.1%}   {options.rows / wall:10,.0f} records/s   wall {wall:.2f} s"
        )
    seconds, count = by_sdk
    sdk_cost = seconds / count * options.rows
    print(f"{'SDK spans':12} {sdk_cost:6.2f} CPU-s for the spans alone, from {count:,} of them: {(base + sdk_cost) / base - 1:+7.1%}")
    coding, packing, items, raw, packed = coded
    print(f"encoding {items / coding / 1e6:.2f} M spans/CPU-s, with gzip {items / (coding + packing) / 1e6:.2f} M;", end=" ")
    print(f"{raw / items:.0f} bytes a span, {packed / items:.1f} compressed; the SDK {count / seconds:,.0f} spans/CPU-s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
