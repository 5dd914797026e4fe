# ruff: noqa: S608 - the names of tables are our own
"""The complete service: records put into a stream are in a table, although a worker is killed."""

import json

import boto3
import pytest
from typer.testing import CliRunner

from stream.cli.main import app
from stream.local.process import helper
from tests.chaos.workers import Worker
from tests.forked import prepare as prepare_workers
from tests.redshift.conftest import KEYS

PIPELINE = """\
application: service
source:
  kinesis: {{stream: events}}
  schema: {{n: int64, word: string}}
sinks:
  - redshift:
      staging: s3://{bucket}/staging/
      table: {table}
      database: dev
      cluster: main
      db_user: loader
      iam_role: default
      every: 1s
  - s3: {{url: "s3://{bucket}/lake/"}}
flush: {{age: 150ms}}
rejects: {{min_records: 100000}}
metrics: {{port: 0}}
state: s3://{bucket}/state/
"""
RECORDS = 600


@pytest.fixture(scope="module")
def kinesis(s3):
    prepare_workers()
    with helper("stream.local.kinesis") as process:
        client = boto3.client("kinesis", endpoint_url=process.url)
        yield process.url, client
        client.close()


def put(client, first, count):
    entries = [
        {"Data": json.dumps({"n": n, "word": "bad\0" if n % 50 == 0 else f"w{n}"}).encode(), "PartitionKey": f"k{n}"}
        for n in range(first, first + count)
    ]
    assert client.put_records(StreamName="events", Records=entries)["FailedRecordCount"] == 0


def test_every_record_is_in_the_table_once(world, kinesis, s3, tmp_path):
    url, client = kinesis
    client.create_stream(StreamName="events", ShardCount=2)
    client.get_waiter("stream_exists").wait(StreamName="events")
    pipeline = tmp_path / "pipeline.yaml"
    pipeline.write_text(PIPELINE.format(bucket=world.bucket, table=world.table))
    environment = {**KEYS, **world.environment(), "AWS_ENDPOINT_URL_KINESIS": url, "AWS_ENDPOINT_URL_S3": s3.meta.endpoint_url}
    expected = [n for n in range(RECORDS) if n % 50]

    def loaded():
        there = world.query(f"SELECT to_regclass('{world.table}') IS NOT NULL")[0][0]
        return [row[0] for row in world.query(f'SELECT n FROM "{world.table}" ORDER BY n')] if there else []

    put(client, 0, RECORDS // 2)
    first = Worker(["--at", "UnitsLoaded:1", str(pipeline)], environment, tmp_path / "first.log")
    second = None
    try:
        assert first.exit() == -9, first.said()
        put(client, RECORDS // 2, RECORDS // 2)
        second = Worker([str(pipeline)], environment, tmp_path / "second.log")
        second.until(lambda: loaded() == expected)
        assert second.drain() == 0, second.said()
        assert "Traceback" not in second.said()
    finally:
        for worker in filter(None, (first, second)):
            worker.end()
    assert loaded() == expected
    said = [json.loads(line) for line in second.said().splitlines()]
    assert {line["reason"] for line in said if line["event"] == "records_rejected"} == {"nul_character"}


def test_a_finished_run_and_a_redrive_have_loaded_what_they_sealed(world, kinesis, s3, tmp_path, monkeypatch):
    """Nobody else loads what was sent through again, and whoever waits for a run takes its end for the rows' being there."""
    url, client = kinesis
    client.create_stream(StreamName="ending", ShardCount=2)
    client.get_waiter("stream_exists").wait(StreamName="ending")
    text = PIPELINE.format(bucket=world.bucket, table=world.table).replace("stream: events", "stream: ending").replace("1s", "60s")
    pipeline, fixed = tmp_path / "pipeline.yaml", tmp_path / "fixed.yaml"
    pipeline.write_text(text)
    fixed.write_text(text.replace("word: string", "word: string?"))
    environment = {**KEYS, **world.environment(), "AWS_ENDPOINT_URL_KINESIS": url, "AWS_ENDPOINT_URL_S3": s3.meta.endpoint_url}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    entries = [{"Data": json.dumps({"n": n} | ({"word": "w"} if n % 5 else {})).encode(), "PartitionKey": f"k{n}"} for n in range(100)]
    assert client.put_records(StreamName="ending", Records=entries)["FailedRecordCount"] == 0

    def loaded():
        return [row[0] for row in world.query(f'SELECT n FROM "{world.table}" ORDER BY n')]

    ran = CliRunner().invoke(app, ["run", "--once", str(pipeline)])
    assert ran.exit_code == 0, ran.output
    assert loaded() == [n for n in range(100) if n % 5]
    redriven = CliRunner().invoke(app, ["dlq", "redrive", str(pipeline), "--pipeline", str(fixed)])
    assert redriven.exit_code == 0, redriven.output
    assert loaded() == list(range(100))
    listed = json.loads(CliRunner().invoke(app, ["loads", "ls", str(pipeline), "--json"]).output)
    assert {(each["stream"], row["rows_waiting"]) for each in listed for row in each["shards"]} == {("ending", 0), ("dlq.ending", 0)}
