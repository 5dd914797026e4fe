"""`stream leases ls`, `release` and `skip`, over a lease table that tests have filled, and a stream of known records."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import boto3
import pytest
from typer.testing import CliRunner

from stream.cli.main import app
from stream.lease.rows import SHARD_END, TRIM_HORIZON, ExtendedSequenceNumber, Lease, Progress, encode
from stream.local.kinesis.server import running
from tests.clocks import ShiftedClock

_NUMBERS = count(1)
MINUTES = 10
"""Between two records of a shard."""

PIPELINE = """
application: app
source:
  kinesis: {{stream: clicks, endpoint: "{kinesis}"}}
  decode: raw
sinks: [s3: {{url: "file:lake"}}]
state: file:state
metrics: {{port: 0}}
coordination: {{native: {{table: "{table}", endpoint: "{dynamo}", region: us-east-1}}}}
"""


def shard_id(shard: int) -> str:
    return f"shardId-{shard:012d}"


class Place:
    """A stream of five shards with three records each, ten minutes apart, and a pipeline with a lease table that is not there yet."""

    def __init__(self, kinesis: Any, dynamo: Any, clock: ShiftedClock) -> None:
        self.dynamo = dynamo
        self.table = f"listed-{next(_NUMBERS)}"
        self.numbers: dict[int, list[str]] = {}
        kinesis.create_stream(StreamName="clicks", ShardCount=5)
        for _ in range(3):
            for shard in range(5):
                put = kinesis.put_record(StreamName="clicks", Data=b"x", PartitionKey="k", ExplicitHashKey=str(shard * 2**128 // 5 + 9))
                assert put["ShardId"] == shard_id(shard)
                self.numbers.setdefault(shard, []).append(put["SequenceNumber"])
            clock.ahead += timedelta(minutes=MINUTES)

    def run(self, verb: str, *words: str, code: int = 0) -> str:
        done = CliRunner().invoke(app, ["leases", verb, "pipeline.yaml", *words])
        assert done.exit_code == code, done.output
        return done.output

    def fill(self, *leases: Lease) -> None:
        """Create the table, with these rows."""
        key = "leaseKey"
        schema, types = [{"AttributeName": key, "KeyType": "HASH"}], [{"AttributeName": key, "AttributeType": "S"}]
        self.dynamo.create_table(TableName=self.table, KeySchema=schema, AttributeDefinitions=types, BillingMode="PAY_PER_REQUEST")
        for lease in leases:
            self.dynamo.put_item(TableName=self.table, Item=encode(lease))

    def owner(self, shard: int) -> str | None:
        row = self.dynamo.get_item(TableName=self.table, Key={"leaseKey": {"S": shard_id(shard)}}, ConsistentRead=True)["Item"]
        return row.get("leaseOwner", {}).get("S")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, aws_keys: None, moto_url: str) -> Iterator[Place]:
    monkeypatch.chdir(tmp_path)
    clock = ShiftedClock()
    with running(clock=clock) as emulator:
        kinesis = boto3.client("kinesis", endpoint_url=emulator.url, region_name="us-east-1")
        dynamo = boto3.client("dynamodb", endpoint_url=moto_url, region_name="us-east-1")
        found = Place(kinesis, dynamo, clock)
        Path("pipeline.yaml").write_text(PIPELINE.format(kinesis=emulator.url, dynamo=moto_url, table=found.table))
        yield found
        kinesis.close()
        dynamo.close()


def at(text: str) -> ExtendedSequenceNumber:
    return ExtendedSequenceNumber(text)


def test_how_far_a_lease_is_behind_is_counted_from_its_own_position(place: Place) -> None:
    """Lag is the age of the record after the next one, as Kinesis counts it; none of a shard that has ended, or lacks the position."""
    first, second, last = place.numbers[2]
    ahead = Progress(int(last), 0, 0, at(first))
    place.fill(
        Lease(shard_id(0), at(TRIM_HORIZON)),
        Lease(shard_id(1), at(place.numbers[1][0])),
        Lease(shard_id(2), at(first), progress=ahead),
        Lease(shard_id(3), at(SHARD_END)),
        Lease(shard_id(4), at(place.numbers[0][0])),
        Lease(shard_id(9), at(second)),
    )
    listed = {lease["shard"]: lease["behind_seconds"] for lease in json.loads(place.run("ls", "--json"))}
    behind = {shard: None if seconds is None else seconds // (60 * MINUTES) for shard, seconds in listed.items()}
    assert behind == {shard_id(0): 2, shard_id(1): 1, shard_id(2): 0, shard_id(3): None, shard_id(4): None, shard_id(9): None}


def test_leases_of_other_streams_in_the_table_are_not_listed(place: Place) -> None:
    key = f"123456789012:others:1700000000:{shard_id(0)}"
    place.fill(Lease(shard_id(1), at(TRIM_HORIZON), owner="a"), Lease(key, at(TRIM_HORIZON), owner="b"))
    listed = json.loads(place.run("ls", "--json", "--no-lag"))
    assert [(lease["stream"], lease["shard"], lease["owner"]) for lease in listed] == [("clicks", shard_id(1), "a")]


def test_a_released_lease_is_free_at_once(place: Place) -> None:
    place.fill(*(Lease(shard_id(shard), at(TRIM_HORIZON), counter=5, owner="a-worker") for shard in range(2)))
    assert json.loads(place.run("release", shard_id(1), "--json")) == {"shard": shard_id(1), "owner": "a-worker"}
    assert [place.owner(shard) for shard in range(2)] == ["a-worker", None]


def test_a_lease_that_was_taken_to_skip_records_is_free_at_once_and_says_where_to_go_on(place: Place) -> None:
    place.fill(*(Lease(shard_id(shard), at(TRIM_HORIZON), counter=5, owner="a-worker") for shard in range(5)))
    second = place.numbers[1][1]
    assert json.loads(place.run("skip", shard_id(1), second, "--yes", "--json")) == {"shard": shard_id(1), "position": second}
    assert [place.owner(shard) for shard in range(5)] == ["a-worker", None, "a-worker", "a-worker", "a-worker"]
    assert {lease["shard"]: lease["position"] for lease in json.loads(place.run("ls", "--json"))}[shard_id(1)] == second


@pytest.mark.parametrize("command", [("ls",), ("release", shard_id(0))], ids=["ls", "release"])
def test_whoever_only_looks_or_releases_creates_no_table(place: Place, command: tuple[str, ...]) -> None:
    assert place.table in place.run(*command, code=2)
    assert place.table not in place.dynamo.list_tables()["TableNames"]
