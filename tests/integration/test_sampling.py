"""The live stream as a sample: read over HTTP from the emulator, with nothing written and no position moved."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from typer.testing import CliRunner

from stream.cli.main import app
from stream.clock import SystemClock
from stream.errors import DefinitionError, Fatal
from stream.local.kinesis.server import running
from stream.operations.records.sampling import read_sample
from stream.pipeline.model import Pipeline
from tests.unit.pipeline.definitions import least


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running() as emulator:
        yield emulator.url


@pytest.fixture
def client(url: str, aws_keys: None) -> Iterator[Any]:
    made = boto3.client("kinesis", endpoint_url=url, region_name="us-east-1")
    yield made
    made.close()


def filled(client: Any, stream: str, records: int, shards: int = 3) -> None:
    client.create_stream(StreamName=stream, ShardCount=shards)
    for at in range(records):
        client.put_record(StreamName=stream, Data=json.dumps({"carrier": "UA", "delay": at}).encode(), PartitionKey=f"k{at}")


def pipeline(url: str, stream: str) -> Pipeline:
    source = {**least()["source"], "kinesis": {"stream": stream, "endpoint": url, "region": "us-east-1"}}
    return Pipeline.model_validate(least(source=source))


def sample(url: str, stream: str, count: int, since: timedelta | None = None) -> list[int]:
    batch = asyncio.run(read_sample(pipeline(url, stream), Path(), count, since, SystemClock()))
    return sorted(json.loads(record)["delay"] for record in batch.frame["_data"])


def test_every_shard_contributes_its_share(client: Any, url: str) -> None:
    filled(client, "shares", 60)
    assert sample(url, "shares", 1000) == list(range(60))
    assert len(sample(url, "shares", 12)) == 12
    assert sample(url, "shares", 1000, timedelta(hours=1)) == list(range(60))


def test_an_empty_stream_and_a_missing_stream_are_errors(client: Any, url: str) -> None:
    filled(client, "empty", 0)
    with pytest.raises(DefinitionError, match="there is no record"):
        sample(url, "empty", 10)
    with pytest.raises(Fatal):
        sample(url, "nowhere", 10)


def test_the_preview_command_shows_live_records_and_writes_nothing(client: Any, url: str, tmp_path: Path) -> None:
    filled(client, "live", 5, 1)
    file = tmp_path / "p.yaml"
    file.write_text(
        f"application: a\nsource:\n  kinesis: {{stream: live, endpoint: '{url}', region: us-east-1}}\n"
        "  schema: {carrier: string, delay: int64}\nsinks: [files: {url: 'file:lake'}]\nstate: file:state\n"
    )
    result = CliRunner().invoke(app, ["preview", str(file), "--records", "3"])
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("3 records of live\ndecode  3 rows in, 3 out\n")
    assert [path.name for path in tmp_path.iterdir()] == ["p.yaml"]


def test_a_preview_of_unsealed_records_begins_where_a_worker_would(client: Any, url: str, tmp_path: Path) -> None:
    filled(client, "going", 6, 2)
    file = tmp_path / "p.yaml"
    file.write_text(
        f"application: a\nsource:\n  kinesis: {{stream: going, endpoint: '{url}', region: us-east-1}}\n"
        "  schema: {carrier: string, delay: int64}\nsinks: [files: {url: 'file:lake'}]\nstate: file:state\nmetrics: {port: 0}\n"
    )

    def shown() -> tuple[int, str]:
        result = CliRunner().invoke(app, ["preview", str(file), "--unsealed", "--show", "0"])
        return result.exit_code, (result.stdout or result.stderr).partition("\n")[0]

    assert shown() == (0, "6 records of going")
    assert CliRunner().invoke(app, ["run", "--once", str(file)]).exit_code == 0
    assert shown() == (2, "error: going: there is no record that is not sealed; ask for older ones, or give a file with --sample")
    for at in range(4):
        client.put_record(StreamName="going", Data=b"{}", PartitionKey=f"late{at}")
    assert shown() == (0, "4 records of going")
    mixed = CliRunner().invoke(app, ["preview", str(file), "--unsealed", "--since", "5m"])
    assert (mixed.exit_code, mixed.stderr) == (2, "error: --unsealed already names the records; omit --sample, --generate and --since\n")
