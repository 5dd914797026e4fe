"""A complete worker whose reference table changes while it runs: units before and after the change, and what the log records of both."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import boto3
import msgspec
import polars as pl

from stream import events
from stream.commit.manifest import Kind, decode
from stream.local.kinesis.server import running
from stream.pipeline.checks.lint import check
from stream.worker.assemble import WorkerOptions
from stream.worker.service import run_worker

PIPELINE = """
application: app
source:
  kinesis: {{stream: numbers, endpoint: "{url}"}}
  schema: {{n: int64}}
stages:
  - enrich: {{table: names.csv, on: n, take: [name], refresh: 1s}}
sinks: [files: {{url: "file:lake"}}]
state: file:state
flush: {{age: 100ms}}
metrics: {{port: 0}}
"""


def test_units_after_a_change_use_and_record_the_new_version_of_the_table(tmp_path: Path, aws_keys: None) -> None:
    table = tmp_path / "names.csv"
    table.write_text("n,name\n1,old\n")
    with running() as emulator:
        client = boto3.client("kinesis", endpoint_url=emulator.url, region_name="us-east-1")
        client.create_stream(StreamName="numbers", ShardCount=1)
        put = lambda: client.put_record(StreamName="numbers", Data=json.dumps({"n": 1}).encode(), PartitionKey="k")  # noqa: E731
        put()
        sealed = 0

        def listen(event: events.Event) -> None:
            nonlocal sealed
            if isinstance(event, events.UnitSealed):
                sealed += 1
                if sealed == 1:
                    # In one step: a reader must never see half of a table.
                    (tmp_path / "next.csv").write_text("n,name\n1,new\n")
                    (tmp_path / "next.csv").replace(table)
                else:
                    signal.raise_signal(signal.SIGTERM)
            if isinstance(event, events.ReferenceRefreshed) and event.changed:
                put()

        (tmp_path / "pipeline.yaml").write_text(PIPELINE.format(url=emulator.url))
        pipeline = check(tmp_path / "pipeline.yaml", {}).pipeline
        assert pipeline is not None
        asyncio.run(run_worker(pipeline, WorkerOptions(tmp_path, os.environ, 60.0, 1, (listen,))))
        client.close()

    state = tmp_path / "state" / "app"
    manifests = [decode(path.read_bytes(), path.name) for path in sorted((state / "commits").rglob("0*.json"))]
    units = [manifest for manifest in manifests if manifest.kind is Kind.UNIT]
    names, versions = [], []
    for unit in units:
        names += [pl.read_parquet(tmp_path / "lake" / file.key)["name"][0] for file in unit.files if file.sink == "s3"]
        tables = msgspec.json.decode((state / f"pipelines/{unit.pipeline}.tables.json").read_bytes())
        versions.append((state / "reference" / tables["names.csv"]).read_text())
    assert names == ["old", "new"]
    assert versions == ["n,name\n1,old\n", "n,name\n1,new\n"]
