"""rotel receives every span of a run with kills and re-exports them: one id for each record read, and no other.

``make audit-check`` runs it over all 336,776 flights of the demo and shows the counts.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import grpc
import pytest
from typer.testing import CliRunner

from stream.audit.export_options import Shape
from stream.audit.ids import hex_ids
from stream.audit.ledger import read_segment
from stream.audit.spans import requests
from stream.cli.main import app
from stream.commit.manifest import decode
from stream.local.flights import flights_table
from stream.local.kinesis.server import running
from stream.worker.opening.links import link_of
from tests.chaos.workers import Worker
from tests.forked import prepare
from tests.unit.worker.receivers.rotel_agent import agent

RECORDS = int(os.environ.get("AUDIT_CHECK_RECORDS", "3000"))
KILLS = ("IntentCreated:1", "SpansExported:1", "FileWritten:2", "Checkpointed:1")
PIPELINE = """
application: flights
source:
  kinesis: {{stream: flights, endpoint: "{url}"}}
  schema: {{month: int64, dep_time: int64?, carrier: string, tailnum: string?}}
stages: [{{filter: dep_time IS NOT NULL}}]
sinks: [s3: {{url: "file:lake", partition_by: [month]}}]
state: file:state
flush: {{age: 2s, rows: {rows}}}
rejects: {{min_records: 10000000}}
metrics: {{port: 0}}
audit: {{otlp: {{endpoint: "{collector}", mode: strict}}}}
"""


class Run:
    """Flights in a stream, and workers on it."""

    def __init__(self, folder: Path, url: str, collector: str) -> None:
        self.folder = folder
        self.file = folder / "pipeline.yaml"
        self.file.write_text(PIPELINE.format(url=url, collector=collector, rows=max(200, RECORDS // 20)))
        self.environment = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}
        self.workers: list[Worker] = []

    def worker(self, *options: str) -> Worker:
        self.workers.append(Worker([*options, str(self.file)], self.environment, self.folder / f"worker-{len(self.workers)}.log"))
        return self.workers[-1]

    def manifests(self) -> list[tuple[str, bytes]]:
        folder = self.folder / "state" / "flights" / "commits" / "flights"
        return [(path.name, path.read_bytes()) for path in sorted(folder.rglob("0*.json"))]

    def sealed(self) -> int:
        found = [decode(body, name) for name, body in self.manifests()]
        return sum(manifest.records for manifest in found if manifest.sealed)

    def more_than(self, records: int) -> bool:
        return self.sealed() > records

    def units(self) -> Iterator[tuple[Any, Any]]:
        for name, body in self.manifests():
            link = link_of(name, body, int(name.removesuffix(".json")))
            if link.ledger is not None:
                yield link, read_segment((self.folder / "state" / "flights" / "ledger" / "v1" / link.ledger.key).read_bytes())

    def ids(self) -> set[tuple[bytes, bytes]]:
        """The ids that the records' spans must have, from the ledger."""
        found: set[tuple[bytes, bytes]] = set()
        for link, segment in self.units():
            names = hex_ids(segment.frame, link.stream, link.shard, link.application).values()
            found |= {(bytes.fromhex(trace), bytes.fromhex(span)) for trace, span in names}
        return found


class Flights:
    """A stream, and flights that ``put`` puts in as many parts as there are workers: each worker finds new ones."""

    def __init__(self, client: Any, url: str) -> None:
        self.client = client
        self.url = url
        client.create_stream(StreamName="flights", ShardCount=2)
        self.lines = flights_table().head(RECORDS).write_ndjson().encode().splitlines()
        self.lines[7::100] = [b"{broken" + str(n).encode() for n in range(len(self.lines[7::100]))]

    def put(self, share: int) -> None:
        lines = self.lines[share :: len(KILLS) + 1]
        for start in range(0, len(lines), 500):
            entries = [{"Data": line, "PartitionKey": str(start + n)} for n, line in enumerate(lines[start : start + 500])]
            assert self.client.put_records(StreamName="flights", Records=entries)["FailedRecordCount"] == 0


@pytest.fixture
def stream(aws_keys: None) -> Iterator[Flights]:
    prepare()
    with running() as found:
        client = boto3.client("kinesis", endpoint_url=found.url, region_name="us-east-1")
        yield Flights(client, found.url)
        client.close()


def test_rotel_receives_one_span_per_record_through_kills_and_repeated_exports(
    stream: Flights, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with agent(tmp_path) as collector:
        run = Run(tmp_path, stream.url, collector.http)
        try:
            for share, point in enumerate(KILLS):
                stream.put(share)
                assert run.worker("--at", point).exit() == -9
            stream.put(len(KILLS))
            last = run.worker()
            beside = CliRunner().invoke(app, ["audit", "export", str(run.file)])
            assert beside.exit_code == 0, beside.output
            while (before := run.sealed()) < RECORDS:
                last.until(functools.partial(run.more_than, before))
            assert last.drain() == 0, last.said()
        finally:
            for worker in run.workers:
                worker.end()
        again = CliRunner().invoke(app, ["audit", "export", str(run.file)])
        assert again.exit_code == 0, again.output
        received, expected = collector.drain(), run.ids()
    with capsys.disabled():
        shown = f"{len(received):,} different record spans came out of rotel, {received.total():,} in all; {RECORDS:,} records were read"
        if RECORDS > 100_000:
            print(f"\n{shown}\n{again.output}")  # noqa: T201 - the figures are what `make audit-check` is for
    assert len(expected) == RECORDS
    assert set(received) == expected
    assert received.total() > RECORDS


def test_rotel_accepts_the_same_requests_over_grpc(stream: Flights, tmp_path: Path) -> None:
    """The exporter sends over HTTP; the gRPC service accepts the same bytes."""
    with agent(tmp_path) as collector:
        run = Run(tmp_path, stream.url, collector.http)
        stream.put(0)
        worker = run.worker()
        try:
            worker.until(lambda: run.sealed() >= len(stream.lines[:: len(KILLS) + 1]))
            assert worker.drain() == 0, worker.said()
        finally:
            worker.end()
        with grpc.insecure_channel(collector.grpc) as channel:
            export = channel.unary_unary("/opentelemetry.proto.collector.trace.v1.TraceService/Export")
            for link, segment in run.units():
                for request in requests(link, segment, {}, Shape()):
                    assert export(bytes(request.body), timeout=60) == b""
        found, expected = collector.drain(), run.ids()
    assert set(found) == expected
    assert min(found.values()) >= 2, "what came over HTTP came over gRPC, too"
