"""What a worker exports: spans of records and of its own operations, log lines and metrics; and what it never exports."""

from __future__ import annotations

import json
import socket
import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from stream import events
from stream.cli.main import app
from stream.clock import SystemClock
from stream.local.kinesis.server import running
from tests.integration.narration import Received, attributes, collector, lines, work
from tests.ports import free_port

PIPELINE = """
application: app
source:
  kinesis: {{stream: {stream}, endpoint: "{kinesis}"}}
  schema: {{n: int64, kind: string, note: string?, at: timestamp?}}
  unknown: {unknown}
stages:
  - filter: n % 5 <> 0
  - derive: {{twice: n * 2, day: "strftime(at, '%Y')"}}
  - mask: {{columns: note, method: keyed_hash, key: {{env: MASK_KEY}}}}
sinks: [s3: {{url: "file:lake", partition_by: [kind]}}]
state: file:state
flush: {{age: 50ms}}
rejects: {{min_records: 1000000}}
metrics: {{port: {port}}}
{more}
"""
ENV = {"MASK_KEY": "TAGGED-mask-key-0123456789", "TOKEN": "TAGGED-token"}


class ImpatientClock(SystemClock):
    """The machine's clock, except that no sleep lasts long."""

    async def sleep(self, seconds: float) -> None:
        await super().sleep(min(seconds, 0.05))


class Stage:
    def __init__(self, client: Any, url: str, folder: Path) -> None:
        self.client = client
        self.url = url
        self.folder = folder
        self.streams = 0
        self.stream = ""

    def fresh(self) -> None:
        self.streams += 1
        self.stream = f"s{self.streams}"
        self.client.create_stream(StreamName=self.stream, ShardCount=1)

    def put(self, payloads: list[bytes], key: str = "k") -> None:
        entries = [{"Data": data, "PartitionKey": key} for data in payloads]
        for start in range(0, len(entries), 500):
            assert self.client.put_records(StreamName=self.stream, Records=entries[start : start + 500])["FailedRecordCount"] == 0

    def pipeline(self, more: str = "", unknown: str = "ignore", port: int = 0) -> Path:
        folder = self.folder / self.stream
        folder.mkdir(exist_ok=True)
        file = folder / "pipeline.yaml"
        text = PIPELINE.format(stream=self.stream, kinesis=self.url, more=more, unknown=unknown, port=port)
        file.write_text(text)
        return file


@pytest.fixture(scope="module")
def emulator() -> Iterator[Any]:
    with running() as found:
        yield found


@pytest.fixture
def stage(emulator: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, aws_keys: None) -> Iterator[Stage]:
    for name, value in ENV.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("kinesis", endpoint_url=emulator.url, region_name="us-east-1")
    for name in client.list_streams()["StreamNames"]:
        client.delete_stream(StreamName=name)
    found = Stage(client, emulator.url, tmp_path)
    found.fresh()
    yield found
    client.close()


@pytest.fixture
def received() -> Iterator[Received]:
    with collector() as found:
        yield found


class Sealed:
    """A condition that holds once ``count`` records are committed."""

    def __init__(self, records: int) -> None:
        self.left = records

    def __call__(self, event: events.Event) -> bool:
        if isinstance(event, events.UnitSealed):
            self.left -= sum(count for _, count in event.outcomes)
        return self.left <= 0


def valid_records(count: int) -> list[bytes]:
    return [json.dumps({"n": n, "kind": "ab"[n % 2]}).encode() for n in range(count)]


def record_span_ids(received: Received) -> set[tuple[bytes, bytes]]:
    """Ids of the records' spans, as a set: if a drain interrupts an export, a unit is sent again with the same ids."""
    return {(span.trace_id, span.span_id) for span in received.spans if span.name.startswith("process ")}


def export_to(received: Received, mode: str = "ledger", more: str = "") -> str:
    return f"audit: {{otlp: {{endpoint: '{received.url}', headers: {{authorization: {{env: TOKEN}}}}, mode: {mode}, {more}}}}}\n"


def telemetry_to(url: str) -> str:
    return f"telemetry: {{endpoint: '{url}', headers: {{authorization: {{env: TOKEN}}}}}}\n"


def test_operations_have_spans_and_log_lines_refer_to_them(stage: Stage, received: Received, capfd: pytest.CaptureFixture[str]) -> None:
    stage.put([*valid_records(50), b"{broken"])
    work(stage.pipeline(export_to(received) + telemetry_to(received.url)), Sealed(51))
    spans = received.of_scope("stream.worker")
    names = Counter(span.name for span in spans)
    stream = stage.stream
    assert names.keys() >= {
        f"get_records {stream}",
        f"commit {stream}",
        "transform decode",
        "transform 1:filter",
        "write s3",
        "write ledger",
        f"seal {stream}",
        f"checkpoint {stream}",
        f"take shard {stream}",
        f"recover shard {stream}",
        f"hold shard {stream}",
    }
    by_id = {(span.trace_id, span.span_id): span for span in spans}
    assert len(by_id) == len(spans)
    for span in spans:
        assert span.start_time_unix_nano <= span.end_time_unix_nano
        assert not span.parent_span_id or (span.trace_id, span.parent_span_id) in by_id
    commit = next(span for span in spans if span.name == f"commit {stream}")
    assert {span.name for span in spans if span.parent_span_id == commit.span_id} >= {"transform decode", "write s3", f"seal {stream}"}
    units = {span.trace_id for span in received.of_scope("stream.audit") if span.name == f"poll {stream}"}
    assert {span.trace_id for span in spans if span.name == f"commit {stream}"} == units
    reported = lines(capfd.readouterr().err)
    assert all(len(line["trace_id"]) == 32 and len(line["span_id"]) == 16 for line in reported)
    sealed = [line for line in reported if line["event"] == "unit_sealed"]
    assert {bytes.fromhex(line["trace_id"]) for line in sealed} == units
    assert all((bytes.fromhex(line["trace_id"]), bytes.fromhex(line["span_id"])) in by_id for line in sealed)


def test_an_unreachable_telemetry_collector_delays_nothing(stage: Stage, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        stage.put(valid_records(20))
        heard = work(stage.pipeline(telemetry_to(f"http://127.0.0.1:{taken.getsockname()[1]}")), Sealed(20))
    assert any(isinstance(event, events.Checkpointed) for event in heard)
    assert all("event" in line for line in lines(capfd.readouterr().err))


@pytest.mark.parametrize("status", [401, 404, 500])
def test_in_strict_mode_a_worker_waits_for_a_refusing_collector_and_then_continues(stage: Stage, received: Received, status: int) -> None:
    received.status = status
    stage.put(valid_records(60))
    mended = threading.Event()
    seen: list[tuple[int, bool]] = []

    def mend() -> None:
        checkpoints = (stage.folder / stage.stream / "state").rglob("checkpoints/**/*.json")
        seen.append((received.refused, any(True for _ in checkpoints)))
        received.status = 200
        mended.set()

    def until(event: events.Event) -> bool:
        # Each attempt is made with zstd and with gzip.
        if isinstance(event, events.ExportHalted) and event.status == status and received.refused >= 6 and not mended.is_set():
            mend()
        return mended.is_set() and isinstance(event, events.Checkpointed)

    heard = work(stage.pipeline(export_to(received, "strict")), until, clock=ImpatientClock())
    assert seen == [(received.refused, False)]
    assert sum(isinstance(event, events.ExportHalted) for event in heard) >= 3
    assert all(event.blocking for event in heard if isinstance(event, events.ExportHalted))
    assert any(isinstance(event, events.ExportResumed) for event in heard)
    assert len(record_span_ids(received)) == 60


def test_a_refusing_collector_does_not_delay_commits_unless_strict(stage: Stage, received: Received) -> None:
    received.status = 403
    stage.put(valid_records(30))
    halted = threading.Event()
    sealed = Sealed(30)

    def until(event: events.Event) -> bool:
        if isinstance(event, events.ExportHalted):
            halted.set()
        sealed(event)
        return sealed.left <= 0 and halted.is_set()

    heard = work(stage.pipeline(export_to(received)), until, clock=ImpatientClock())
    assert any(isinstance(event, events.Checkpointed) for event in heard)
    assert received.spans == []
    received.status = 200
    work(
        stage.pipeline(export_to(received)),
        lambda event: isinstance(event, events.SpansExported) and event.accepted > 0,
        clock=ImpatientClock(),
    )
    assert len(record_span_ids(received)) == 30


def test_trace_with_show_prints_the_record_after_every_stage(stage: Stage) -> None:
    stage.put([b'{"n": 7, "kind": "a", "note": "hello"}', b'{"n": 10, "kind": "b"}', b"{broken"])
    file = stage.pipeline()
    work(file, Sealed(3))
    run = CliRunner()
    shown = run.invoke(app, ["trace", str(file), "message", "n=7", "--show", "--json"])
    assert shown.exit_code == 0, shown.output
    (fate,) = json.loads(shown.stdout)
    assert [step["step"] for step in fate["steps"]] == ["source", "decode", "1:filter", "2:derive", "3:mask"]
    assert "hello" in fate["steps"][0]["rows"][0]["_data"]
    assert fate["steps"][3]["rows"][0]["twice"] == 14
    assert fate["steps"][4]["rows"][0]["note"] != "hello"
    by_row = run.invoke(app, ["trace", str(file), "--object", fate["places"][0]["url"], "--row", "0", "--show", "--json"])
    assert json.loads(by_row.stdout) == [fate]
    ended = run.invoke(app, ["trace", str(file), "outcome=filtered", "--show"])
    assert "1:filter filtered: filtered" in ended.stdout
    stage.client.delete_stream(StreamName=stage.stream)
    gone = run.invoke(app, ["trace", str(file), "n=7", "--show"])
    assert gone.exit_code == 2
    assert "Traceback" not in gone.output


TAG = "TAGGED"
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=12).map(lambda text: f"{text}{TAG}{text}")
SCALARS = TEXTS | st.integers(-(2**70), 2**70) | st.floats() | st.booleans() | st.none()
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXTS, inner, max_size=2), max_leaves=4)
OBJECTS = st.fixed_dictionaries(
    {},
    optional={
        "n": st.integers(0, 99) | VALUES,
        "kind": TEXTS | VALUES,
        "note": TEXTS,
        "at": st.just("2026-01-01T00:00:00Z") | VALUES,
        "traceparent": TEXTS | st.just(f"00-{'1' * 32}-{'2' * 16}-{TAG}"),
        f"{TAG}-field": VALUES,
    },
)
PAYLOADS = OBJECTS.map(lambda value: json.dumps(value).encode()) | TEXTS.map(str.encode) | TEXTS.map(lambda text: b"\xff{" + text.encode())
TAGGED_EVERYWHERE = [
    b'{"n": 1, "kind": "a", "note": "TAGGED"}',
    b'{"n": 2, "kind": "TAGGED"}',
    b'{"n": "TAGGED", "kind": "a"}',
    b'{"n": 3, "kind": "a", "at": "TAGGED"}',
    b'{"n": 4, "kind": "a", "TAGGED": 1}',
    b"TAGGED",
    b'{"n": 5, "kind": "TAGGED"}',
]


@pytest.mark.parametrize("unknown", ["ignore", "reject"])
@given(payloads=st.lists(PAYLOADS, min_size=5, max_size=40), key=TEXTS.filter(lambda text: len(text) <= 200))
@settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_record_content_and_no_secret_leaves_in_spans_logs_or_metrics(
    stage: Stage, capfd: pytest.CaptureFixture[str], unknown: str, payloads: list[bytes], key: str
) -> None:
    """Payloads, partition keys, object keys made of payloads, secrets of stages and of headers: in spans, log records, lines, metrics."""
    stage.fresh()
    scraped = []
    with collector() as received, free_port() as port:
        more = export_to(received, "strict", "signal: both, destinations: digest") + telemetry_to(received.url)
        stage.put([*TAGGED_EVERYWHERE, *payloads], key)

        def scrape() -> None:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as reply:
                scraped.append(reply.read())

        file = stage.pipeline(more, unknown, port)
        work(file, Sealed(len(TAGGED_EVERYWHERE) + len(payloads)), clock=ImpatientClock(), meanwhile=scrape)
    reported = capfd.readouterr()
    assert len(record_span_ids(received)) == len(TAGGED_EVERYWHERE) + len(payloads) == len({record.span_id for record in received.logs})
    assert received.of_scope("stream.worker")
    assert b"kst_records_total" in scraped[0]
    assert reported.err
    for path, body in received.bodies:
        assert TAG.encode() not in body, path
    assert TAG not in reported.err + reported.out
    assert TAG.encode() not in scraped[0]


def test_spans_name_files_by_digest_if_configured(stage: Stage, received: Received) -> None:
    stage.put(valid_records(4))
    work(stage.pipeline(export_to(received, "strict", "destinations: digest")), Sealed(4), clock=ImpatientClock())
    records = [attributes(span) for span in received.spans if span.name.startswith("process ")]
    places = {each["kst.dest.uri"] for each in records if "kst.dest.uri" in each}
    assert places
    assert all(place.startswith("sha256:") and len(place) == 71 for place in places)
