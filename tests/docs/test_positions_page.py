"""The commands of docs/workers.md that take over the positions of another consumer."""

import json
import re
import shlex

import boto3
import pytest
from typer.testing import CliRunner

from stream.cli.main import app
from stream.lease.positions import Fate
from stream.local.aws import LocalClients
from stream.local.start import LocalAws
from tests.docs.generate import ROOT

SECTION = (ROOT / "docs" / "workers.md").read_text().partition("### Coming from another consumer\n")[2].partition("\n### ")[0]
PIPELINE = """
application: app
source: {kinesis: {stream: numbers}, schema: {n: int64}}
sinks: [s3: {url: "file:lake"}]
state: file:state
coordination: native
"""


def block(info):
    (found,) = re.findall(rf"^```{info}\n(.*?)^```", SECTION, re.DOTALL | re.MULTILINE)
    return found


@pytest.fixture
def aws(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pipeline.yaml").write_text(PIPELINE)
    with LocalAws() as local, LocalClients(local.environment()) as clients:
        for name, value in local.environment().items():
            monkeypatch.setenv(name, value)
        clients.create_stream("numbers", 3)
        yield local


def test_the_commands_in_the_section_import_positions(aws, tmp_path):
    kinesis, dynamo = boto3.client("kinesis"), boto3.client("dynamodb")
    numbers = []
    for shard in kinesis.list_shards(StreamName="numbers")["Shards"]:
        place = shard["HashKeyRange"]["StartingHashKey"]
        numbers.append(
            kinesis.put_record(StreamName="numbers", Data=b'{"n": 1}', PartitionKey="k", ExplicitHashKey=place)["SequenceNumber"]
        )
    keys = {"StreamID": "HASH", "ShardID": "RANGE"}
    dynamo.create_table(
        TableName="benthos-checkpoints",
        KeySchema=[{"AttributeName": name, "KeyType": kind} for name, kind in keys.items()],
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in keys],
        BillingMode="PAY_PER_REQUEST",
    )
    row = {"StreamID": "numbers", "ShardID": "shardId-000000000002", "SequenceNumber": numbers[2]}
    dynamo.put_item(TableName="benthos-checkpoints", Item={name: {"S": text} for name, text in row.items()})
    kinesis.close()
    dynamo.close()
    (example,) = re.findall(r"\d{50,}", block("csv positions"))
    (tmp_path / "positions.csv").write_text(block("csv positions").replace(example, numbers[1]))
    said = []
    for line in block("sh positions").splitlines():
        done = CliRunner().invoke(app, shlex.split(line)[1:], input="y\n")
        assert done.exit_code == 0, f"{line}: {done.output}"
        said.append(done.stdout)
    # A position after a whole record is shown without the number that stands for all of its user records.
    assert "4294967295" not in said[2]
    assert ["2 row(s) were written" in said[0], "1 row(s) were written" in said[1]] == [True, True]
    done = CliRunner().invoke(app, ["leases", "ls", "pipeline.yaml", "--json"])
    rows = {view["shard"]: view["checkpoint"] for view in json.loads(done.stdout)}
    assert list(rows.values()) == ["SHARD_END", numbers[1], numbers[2]]


def test_every_plan_for_a_shard_is_documented():
    reported = re.findall(r"^\| [^|]* \| `(\w+)`: ", SECTION, re.MULTILINE)
    assert set(reported) == {fate.value for fate in Fate}
