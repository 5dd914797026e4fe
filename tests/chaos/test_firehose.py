"""The Firehose function under the AWS runtime interface client, unmodified, and a Runtime API on loopback; compared with the service."""

from __future__ import annotations

import base64
import gzip
import json
from collections import defaultdict
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from stream.cli.main import app
from stream.local.flights import flights_table, produce
from stream.local.kinesis.server import running
from tests.chaos.conftest import KEYS, client
from tests.chaos.truth import read_stream
from tests.runtime_api import Answer, RuntimeApi, Sandbox
from tests.transformations import asked, asked_about, delivered

HANDLER = "stream.firehose.handler"
FLIGHTS = 2500
PIPELINE = """\
application: orders
source:
  kinesis: {stream: s}
  schema: {n: int64, word: string?}
stages:
  - filter: n > 0
sinks:
  - s3: {url: "s3://lake/orders/", lineage: false, partition_by: {half: n % 2}}
state: s3://state/
"""


def reported(folder: Path, event: Any, pipeline: str = PIPELINE, **environment: str) -> tuple[Answer, str]:
    """The answer to ``event``, and what the function has logged."""
    (folder / "pipeline.yaml").write_text(pipeline)
    with RuntimeApi() as api, Sandbox(api, folder, KEYS | environment, folder / "function.log", HANDLER) as sandbox:
        return sandbox.invoke(event), sandbox.said()


def lines(said: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in said.splitlines() if line.startswith("{")]


def by_partition(found: list[tuple[str, bytes, Mapping[str, str]]]) -> dict[str, list[bytes]]:
    """The lines that Firehose writes with a prefix such as ``departure_month=!{partitionKeyFromLambda:departure_month}/``."""
    made = defaultdict(list)
    for result, data, keys in found:
        if result == "Ok":
            made["/".join(f"{name}={value}" for name, value in keys.items())] += data.splitlines(keepends=True)
    return {name: sorted(rows) for name, rows in made.items()}


def test_the_flights_become_the_same_rows_as_in_the_service(tmp_path, monkeypatch):
    """Byte for byte, lineage included, and in the same partitions; and the same number of records is left out and refused."""
    text = (files("stream.data") / "flights.yaml").read_text().replace("format: parquet", "format: ndjson")
    environment = {
        "MASK_KEY": "a key of this test",
        "LAKE": f"file:{tmp_path}/lake",
        "STATE": f"file:{tmp_path}/state",
        "METRICS_PORT": "0",
    }
    with running() as server:
        for name, value in (KEYS | environment | {"AWS_ENDPOINT_URL_KINESIS": server.url}).items():
            monkeypatch.setenv(name, value)
        kinesis = client("kinesis", server.url)
        kinesis.create_stream(StreamName="flights", ShardCount=2)
        made = produce(server.url, "us-east-1", "flights", flights_table().head(FLIGHTS), 3, lambda _: None)
        (tmp_path / "service.yaml").write_text(text)
        ran = CliRunner().invoke(app, ["run", "--once", str(tmp_path / "service.yaml")])
        assert ran.exit_code == 0, ran.output
        event = asked_about("flights", read_stream(kinesis, "flights"), kinesis)
        kinesis.close()
    written = defaultdict(list)
    for path in (tmp_path / "lake").rglob("*.ndjson.gz"):
        written[path.parent.name] += gzip.decompress(path.read_bytes()).splitlines(keepends=True)
    answer, said = reported(tmp_path, event, text, **environment)
    assert answer.ok, answer.body
    found = delivered(event, answer.body)
    assert len(found) == made.records == FLIGHTS + made.broken
    assert by_partition(found) == {name: sorted(rows) for name, rows in written.items()}
    results = [result for result, _, _ in found]
    assert results.count("ProcessingFailed") == made.broken > 0
    assert results.count("Dropped") == flights_table().head(FLIGHTS)["dep_time"].null_count() > 0
    (transformed,) = [line for line in lines(said) if line.get("event") == "records_transformed"]
    assert transformed["outcomes"] == {
        "dead_lettered": made.broken,
        "filtered": results.count("Dropped"),
        "written": results.count("Ok"),
    }


def test_what_failed_and_why_is_logged_and_counted_without_any_of_its_content(tmp_path):
    event = asked([b'{"n": 1, "word": "visible"}', b'{"n": "secret"}', b"secret", b'{"n": 0}'])
    answer, said = reported(tmp_path, event)
    assert [(result, keys) for result, _, keys in delivered(event, answer.body)] == [
        ("Ok", {"half": "1"}),
        ("ProcessingFailed", {}),
        ("ProcessingFailed", {}),
        ("Dropped", {}),
    ]
    (metrics,) = [line for line in lines(said) if "_aws" in line]
    assert (metrics["stream"], metrics["application"], metrics["records"], metrics["dead_letters"]) == ("orders-out", "orders", 4, 2)
    refused = {(line["stage"], line["reason"], line["records"]) for line in lines(said) if line.get("event") == "records_rejected"}
    assert refused == {("decode", "wrong_type:n", 1), ("decode", "json_syntax", 1)}
    assert "secret" not in said
    assert "visible" not in said


def test_one_environment_answers_many_events(tmp_path):
    (tmp_path / "pipeline.yaml").write_text(PIPELINE)
    with RuntimeApi() as api, Sandbox(api, tmp_path, KEYS, tmp_path / "function.log", HANDLER, python=True) as sandbox:
        for first in (1, 10, 1):
            event = asked([json.dumps({"n": first + at}).encode() for at in range(5)], stream="" if first == 10 else "s")
            rows = [json.loads(data) for _, data, _ in delivered(event, sandbox.invoke(event).body)]
            assert [row["n"] for row in rows] == list(range(first, first + 5))


def test_an_answer_of_the_largest_size_goes_through_the_runtime_client(tmp_path):
    """Two and a half megabytes that a stage makes larger than Lambda accepts: what fits is answered, the rest is given back."""
    grown = PIPELINE.replace("  - filter: n > 0\n", '  - filter: n > 0\n  - derive: {again: "concat(word, word)"}\n')
    event = asked([json.dumps({"n": 1, "word": "w" * 500}).encode() for _ in range(5000)])
    answer, said = reported(tmp_path, event, grown)
    found = delivered(event, answer.body)
    assert {result for result, _, _ in found} == {"Ok", "ProcessingFailed"}
    (transformed,) = [line for line in lines(said) if line.get("event") == "records_transformed"]
    assert len(json.dumps(answer.body)) <= transformed["answer_bytes"] <= 6_000_000
    (refused,) = [line for line in lines(said) if line.get("event") == "records_rejected"]
    assert (refused["stage"], refused["reason"]) == ("s3", "answer_too_large")


@pytest.mark.parametrize(
    ("event", "pipeline", "words"),
    [
        ({"Records": []}, PIPELINE, "does not come from a Firehose stream with a data transformation"),
        (asked([b"{}"], stream="other"), PIPELINE, "reads the stream other, and the pipeline reads s;"),
        (asked([b"{}"]), PIPELINE.replace("- filter: n > 0", "- dedupe: n"), "finds duplicates among the records that commit together"),
        (asked([b"{}"]), PIPELINE.replace("filter", "fliter"), "did you mean `filter`?"),
    ],
)
def test_what_cannot_be_answered_is_an_error_in_words(tmp_path, event, pipeline, words):
    answer, said = reported(tmp_path, event, pipeline)
    assert not answer.ok
    assert answer.body["errorType"] == "DefinitionError"
    assert words in answer.body["errorMessage"]
    # The client adds one line of ours to the error's words, and no more.
    assert said.count('File "') == 1


def test_the_other_handler_names_this_one(tmp_path):
    (tmp_path / "pipeline.yaml").write_text(PIPELINE)
    with RuntimeApi() as api, Sandbox(api, tmp_path, KEYS, tmp_path / "function.log") as sandbox:
        assert "stream.firehose.handler" in sandbox.invoke(asked([b"{}"])).body["errorMessage"]


def test_tables_and_secrets_on_aws_are_read_as_in_the_service(tmp_path, make_world):
    world = make_world(1, s3=True)
    world.s3.put_object(Bucket=world.bucket, Key="names.csv", Body=b"n,name\n1,one\n2,two\n")
    stages = (
        f"  - lookup: {{table: s3://{world.bucket}/names.csv, on: n, take: name}}\n"
        "  - mask: {columns: word, method: keyed_hash, key: {secrets_manager: orders/mask}}\n"
    )
    environment = dict(world.environment) | {"AWS_ENDPOINT_URL_SECRETS_MANAGER": world.environment["AWS_ENDPOINT_URL_S3"]}
    secrets = client("secretsmanager", world.environment["AWS_ENDPOINT_URL_S3"])
    secrets.create_secret(Name="orders/mask", SecretString="key")
    secrets.close()
    event = asked([b'{"n": 2, "word": "w"}'])
    answer, _ = reported(tmp_path, event, PIPELINE.replace("  - filter: n > 0\n", stages), **environment)
    assert answer.ok, answer.body
    ((_, data, _),) = delivered(event, answer.body)
    assert json.loads(data)["name"] == "two"
    assert len(json.loads(data)["word"]) == 32
    world.s3.delete_object(Bucket=world.bucket, Key="names.csv")
    answer, _ = reported(tmp_path, event, PIPELINE.replace("  - filter: n > 0\n", stages), **environment)
    assert f"there is no object s3://{world.bucket}/names.csv" in answer.body["errorMessage"]


def test_the_mask_is_that_of_the_service_and_the_original_stays_with_firehose(tmp_path):
    masked = PIPELINE.replace("  - filter: n > 0\n", "  - mask: {columns: word, method: redact}\n")
    event = asked([b'{"n": 1, "word": "private"}'])
    answer, said = reported(tmp_path, event, masked)
    ((_, data, _),) = delivered(event, answer.body)
    assert b"private" not in data
    assert "private" not in json.dumps(answer.body)
    assert base64.b64decode(event["records"][0]["data"]) not in said.encode()
