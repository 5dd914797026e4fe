"""The commands of docs/workers.md that take over the positions of another consumer."""

import json
import re

import boto3
import pytest

from stream.lease.positions import Fate
from tests.docs.commands import block, carried_out, local_aws
from tests.docs.generate import ROOT

SECTION = (ROOT / "docs" / "workers.md").read_text().partition("### Coming from another consumer\n")[2].partition("\n### ")[0]
PIPELINE = """
application: app
source: {kinesis: {stream: numbers}, schema: {n: int64}}
sinks: [s3: {url: "file:lake"}]
state: file:state
coordination: native
"""


@pytest.fixture
def aws(tmp_path):
    (tmp_path / "pipeline.yaml").write_text(PIPELINE)
    with local_aws(tmp_path, "numbers", 3) as local:
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
    (example,) = re.findall(r"\d{50,}", block(SECTION, "csv positions"))
    (tmp_path / "positions.csv").write_text(block(SECTION, "csv positions").replace(example, numbers[1]))
    said = [carried_out(line, typed="y\n").stdout for line in block(SECTION, "sh positions").splitlines()]
    # A position after a whole record is shown without the number that stands for all of its user records.
    assert "4294967295" not in said[2]
    assert ["2 row(s) were written" in said[0], "1 row(s) were written" in said[1]] == [True, True]
    listed = carried_out("stream leases ls pipeline.yaml --json").stdout
    rows = {view["shard"]: view["checkpoint"] for view in json.loads(listed)}
    assert list(rows.values()) == ["SHARD_END", numbers[1], numbers[2]]


def test_every_plan_for_a_shard_is_documented():
    reported = re.findall(r"^\| [^|]* \| `(\w+)`: ", SECTION, re.MULTILINE)
    assert set(reported) == {fate.value for fate in Fate}
