"""`stream leases import` from another consumer of a stream, which a worker then continues exactly where it stopped."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import boto3
import polars as pl
import pytest
from typer.testing import CliRunner

from stream import events
from stream.cli.main import app
from stream.commit.identity import identity_key
from stream.errors import DefinitionError, OtherStream
from stream.local.kinesis.server import running
from stream.local.kpl import UserRecord, aggregate
from stream.operations.changes.position_import import plan_import, write_import
from stream.pipeline.checks.lint import check
from stream.worker.assemble import WorkerOptions
from stream.worker.service import run_worker
from tests.clocks import ShiftedClock

_NUMBERS = count(1)
HALF = 2**127
LOWER, UPPER = "shardId-000000000000", "shardId-000000000001"

PIPELINE = """
application: app
source:
  kinesis: {{stream: numbers, endpoint: "{kinesis}", start: {start}, on_expired: gap}}
  schema: {{n: int64}}
sinks: [s3: {{url: "file:lake"}}]
state: file:state
flush: {{age: 100ms}}
metrics: {{port: 0}}
coordination: {coordination}
"""


@dataclass
class Move:
    """A stream, another consumer of it, and the pipeline that takes over."""

    kinesis: Any
    dynamo: Any
    clock: ShiftedClock
    folder: Path
    endpoints: tuple[str, str]
    table: str

    def write(self, start: str = "trim_horizon", coordination: str = "") -> None:
        kinesis, dynamo = self.endpoints
        native = f'{{native: {{table: "leases-{self.table}", endpoint: "{dynamo}", region: us-east-1}}}}'
        (self.folder / "pipeline.yaml").write_text(PIPELINE.format(kinesis=kinesis, start=start, coordination=coordination or native))

    def put(self, numbers: range, low: bool) -> None:
        place = "0" if low else str(2**128 - 1)
        for n in numbers:
            self.kinesis.put_record(StreamName="numbers", Data=body(n), PartitionKey="k", ExplicitHashKey=place)

    def consume(self, shard: str, records: int) -> tuple[list[int], str]:
        """Read that many records, as a plain consumer does; the sequence number of the last."""
        at = self.kinesis.get_shard_iterator(StreamName="numbers", ShardId=shard, ShardIteratorType="TRIM_HORIZON")
        read = self.kinesis.get_records(ShardIterator=at["ShardIterator"], Limit=records)["Records"]
        assert len(read) == records
        return [json.loads(each["Data"])["n"] for each in read], read[-1]["SequenceNumber"]

    def run(self, *words: str, code: int = 0) -> str:
        done = CliRunner().invoke(app, list(words))
        assert done.exit_code == code, f"{words}: {done.output}"
        return " ".join(done.output.split())

    def work(self, records: int) -> None:
        """Run a worker until it has written that many records, then stop it by a signal."""
        written = 0

        def listen(event: events.Event) -> None:
            nonlocal written
            if isinstance(event, events.UnitSealed):
                before, written = written, written + dict(event.outcomes).get("written", 0)
                if before < records <= written:
                    signal.raise_signal(signal.SIGTERM)

        pipeline = check(self.folder / "pipeline.yaml", {}).pipeline
        assert pipeline is not None
        options = WorkerOptions(self.folder, os.environ, 20.0, 1, (listen,), self.clock)
        asyncio.run(asyncio.wait_for(run_worker(pipeline, options), 120))

    def take_over(self, source: str, *options: str, code: int = 0) -> str:
        return self.run("leases", "import", "pipeline.yaml", "--from", source, *options, code=code)

    def written(self) -> list[int]:
        return sorted(n for file in (self.folder / "lake").rglob("*.parquet") for n in pl.read_parquet(file)["n"])

    def rows(self) -> dict[str, dict[str, Any]]:
        items = self.dynamo.scan(TableName=f"leases-{self.table}")["Items"]
        return {item["leaseKey"]["S"]: item for item in items}


def body(n: int) -> bytes:
    return json.dumps({"n": n}).encode()


@pytest.fixture
def move(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, aws_keys: None, moto_url: str) -> Iterator[Move]:
    monkeypatch.chdir(tmp_path)
    clock = ShiftedClock()
    with running(clock=clock) as emulator:
        kinesis = boto3.client("kinesis", endpoint_url=emulator.url, region_name="us-east-1")
        dynamo = boto3.client("dynamodb", endpoint_url=moto_url, region_name="us-east-1")
        kinesis.create_stream(StreamName="numbers", ShardCount=2)
        found = Move(kinesis, dynamo, clock, tmp_path, (emulator.url, moto_url), f"positions-{next(_NUMBERS)}")
        found.write()
        yield found
        kinesis.close()
        dynamo.close()


def create(dynamo: Any, table: str, *keys: str) -> None:
    dynamo.create_table(
        TableName=table,
        KeySchema=[{"AttributeName": key, "KeyType": kind} for key, kind in zip(keys, ("HASH", "RANGE"), strict=False)],
        AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"} for key in keys],
        BillingMode="PAY_PER_REQUEST",
    )


def test_a_worker_writes_exactly_what_the_other_consumer_has_not_read(move: Move) -> None:
    move.put(range(10), low=True)
    move.put(range(10, 20), low=False)
    first, last = move.consume(LOWER, 4), move.consume(UPPER, 7)
    create(move.dynamo, move.table, "StreamID", "ShardID")
    for shard, (_, sequence) in {LOWER: first, UPPER: last}.items():
        row = {"StreamID": {"S": "numbers"}, "ShardID": {"S": shard}, "SequenceNumber": {"S": sequence}}
        move.dynamo.put_item(TableName=move.table, Item=row)
    # Both sides go on while nobody reads: one shard is split.
    move.kinesis.split_shard(StreamName="numbers", ShardToSplit=UPPER, NewStartingHashKey=str(HALF + HALF // 2))
    move.put(range(20, 30), low=False)
    before = move.dynamo.scan(TableName=move.table)["Items"]

    said = move.take_over(f"dynamodb:{move.table}", "--yes")
    assert "2 row(s) were written" in said
    assert "Begin with `stream run`, with or without --once" in said
    assert "positions of Redpanda Connect" in said
    assert set(move.rows()) == {LOWER, UPPER}
    assert move.dynamo.scan(TableName=move.table)["Items"] == before
    assert "0 row(s) were written" in move.take_over(f"dynamodb:{move.table}", "--yes")

    move.work(19)
    assert move.written() == sorted(set(range(30)) - set(first[0]) - set(last[0]))
    (report,) = [json.loads(move.run("audit", "verify", "pipeline.yaml", "--json"))]
    assert report["verdict"] == "ok"
    outcomes: Counter[str] = Counter()
    for shard in report["shards"]:
        outcomes.update(shard["outcomes"])
    assert outcomes == {"written": 19, "foreign": 2}
    assert "its row is there already" in move.take_over(f"dynamodb:{move.table}", "--yes")


def test_reading_continues_after_the_given_user_record_of_an_aggregate_or_after_all(move: Move) -> None:
    users = [UserRecord("k", "0", body(n)) for n in range(6)]
    others = [UserRecord("k", str(2**128 - 1), body(n)) for n in range(6, 12)]
    for place, some in (("0", users), (str(2**128 - 1), others)):
        move.kinesis.put_record(StreamName="numbers", Data=aggregate(some), PartitionKey="k", ExplicitHashKey=place)
    move.put(range(12, 15), low=True)
    move.put(range(15, 18), low=False)
    first, last = (move.kinesis.get_records(ShardIterator=at, Limit=1)["Records"][0]["SequenceNumber"] for at in iterators(move))
    Path("positions.csv").write_text(f"shard,sequence,subsequence\n{LOWER},{first},2\n{UPPER},{last},-1\n")
    assert f"{first}:2" in move.take_over("positions.csv", "--yes")
    move.work(9)
    assert move.written() == [3, 4, 5, *range(12, 18)]
    move.run("audit", "verify", "pipeline.yaml")


def iterators(move: Move) -> Iterator[str]:
    for shard in (LOWER, UPPER):
        yield move.kinesis.get_shard_iterator(StreamName="numbers", ShardId=shard, ShardIteratorType="TRIM_HORIZON")["ShardIterator"]


@pytest.mark.parametrize("start", ["trim_horizon", "latest"])
def test_finished_parents_are_not_read_again_and_children_continue_where_they_were(move: Move, start: str) -> None:
    """Whatever the start position is, shards that were not read at all are read from their first record."""
    move.write(start)
    move.put(range(5), low=True)
    move.kinesis.split_shard(StreamName="numbers", ShardToSplit=LOWER, NewStartingHashKey=str(HALF // 2))
    move.put(range(5, 10), low=True)
    move.kinesis.put_record(StreamName="numbers", Data=body(10), PartitionKey="k", ExplicitHashKey=str(HALF - 1))
    move.put(range(11, 12), low=False)
    done, sequence = move.consume("shardId-000000000002", 2)
    Path("positions.csv").write_text(f"shard,sequence\nshardId-000000000002,{sequence}\n{LOWER},SHARD_END\n{UPPER},TRIM_HORIZON\n")
    move.take_over("positions.csv", "--yes")
    move.work(5)
    assert (done, move.written()) == ([5, 6], [7, 8, 9, 10, 11])
    move.run("audit", "verify", "pipeline.yaml")


def test_the_end_of_a_shard_whose_children_were_all_begun_is_recorded(move: Move) -> None:
    move.put(range(5), low=True)
    move.kinesis.split_shard(StreamName="numbers", ShardToSplit=LOWER, NewStartingHashKey=str(HALF // 2))
    move.put(range(5, 10), low=True)
    lower, upper = "shardId-000000000002", "shardId-000000000003"
    move.kinesis.split_shard(StreamName="numbers", ShardToSplit=upper, NewStartingHashKey=str(HALF - 9))
    tops = [f"shardId-00000000000{number}" for number in (4, 5)]
    for n, place in ((10, HALF // 2), (11, HALF - 1), (12, HALF - 1), (13, HALF // 2)):
        move.kinesis.put_record(StreamName="numbers", Data=body(n), PartitionKey="k", ExplicitHashKey=str(place))
    lines = [f"{shard},{move.consume(shard, records)[1]}\n" for shard, records in zip((lower, *tops), (2, 1, 1), strict=True)]
    Path("positions.csv").write_text(f"shard,sequence\n{''.join(lines)}")
    assert "taken as read to its end" in move.take_over("positions.csv", "--yes")
    move.work(5)
    assert move.written() == [7, 8, 9, 12, 13]
    move.run("audit", "verify", "pipeline.yaml")
    standing = json.loads(CliRunner().invoke(app, ["complete", "pipeline.yaml", "--until", "2026-01-01T00:00:00Z", "--json"]).stdout)
    states = {each["shard"]: each["state"] for each in standing["streams"][0]["shards"]}
    assert (states[LOWER], states[upper]) == ("ended", "ended")


@pytest.mark.parametrize("ahead", [1, 10**30], ids=["between two records", "after the newest one"])
def test_a_position_that_the_shard_never_had_is_refused(move: Move, ahead: int) -> None:
    move.put(range(3), low=True)
    _, sequence = move.consume(LOWER, 1)
    Path("positions.csv").write_text(f"shard,sequence\n{LOWER},{int(sequence) + ahead}\n")
    said = move.take_over("positions.csv", "--yes", code=2)
    assert f"{LOWER}: the shard has no record with this number, and holds older ones" in said
    assert "expired" not in said.replace("it did not expire", "")
    assert "nothing was written" in said
    assert f"leases-{move.table}" not in move.dynamo.list_tables()["TableNames"]


def test_a_position_of_a_shard_that_is_gone_keeps_none_of_the_others_from_being_taken_over(move: Move) -> None:
    move.put(range(3), low=True)
    _, sequence = move.consume(LOWER, 1)
    Path("positions.csv").write_text(f"shard,sequence\n{LOWER},{sequence}\nshardId-000000000009,{sequence}\n")
    assert "1 row(s) were written" in move.take_over("positions.csv", "--yes")
    assert {shard: row["checkpoint"]["S"] for shard, row in move.rows().items()} == {LOWER: sequence}


def test_a_row_that_somebody_has_created_since_it_was_planned_is_left_as_it_is(move: Move) -> None:
    move.put(range(3), low=True)
    move.put(range(3), low=False)
    positions = {shard: move.consume(shard, 2)[1] for shard in (LOWER, UPPER)}
    Path("positions.csv").write_text("".join(["shard,sequence\n", *(f"{shard},{number}\n" for shard, number in positions.items())]))
    pipeline = check(move.folder / "pipeline.yaml", {}).pipeline
    assert pipeline is not None

    def ignore(event: events.Event) -> None: ...

    planned = asyncio.run(plan_import(pipeline, "positions.csv", move.folder, move.clock, ignore))
    Path("earlier.csv").write_text(f"shard,sequence\n{LOWER},{move.consume(LOWER, 1)[1]}\n")
    move.take_over("earlier.csv", "--yes")
    before = move.rows()
    with pytest.raises(DefinitionError, match=rf"1 rows were written to the table .*; for {LOWER} somebody was faster"):
        asyncio.run(write_import(pipeline, planned, move.folder, move.clock, ignore))
    after = move.rows()
    assert after[LOWER] == before[LOWER]
    assert after[UPPER]["checkpoint"]["S"] == positions[UPPER]


def test_a_shard_of_which_units_are_sealed_keeps_its_own_position_though_its_row_is_gone(move: Move) -> None:
    """A later one would have the records in between recorded as another application's, which has not read them."""
    move.put(range(2), low=True)
    move.work(2)
    move.dynamo.delete_item(TableName=f"leases-{move.table}", Key={"leaseKey": {"S": LOWER}})
    move.put(range(2, 6), low=True)
    Path("positions.csv").write_text(f"shard,sequence\n{LOWER},{move.consume(LOWER, 4)[1]}\n")
    assert "the commit log has begun this shard without the position" in move.take_over("positions.csv", "--yes", code=2)
    assert LOWER not in move.rows()


def test_a_table_that_must_not_be_created_is_not(move: Move) -> None:
    move.put(range(3), low=True)
    file = move.folder / "pipeline.yaml"
    file.write_text(file.read_text().replace("native: {", "native: {create_table: false, "))
    Path("positions.csv").write_text(f"shard,sequence\n{LOWER},{move.consume(LOWER, 1)[1]}\n")
    assert f"leases-{move.table}" in move.take_over("positions.csv", "--yes", code=2)
    assert f"leases-{move.table}" not in move.dynamo.list_tables()["TableNames"]


def test_an_expired_position_is_reported_with_exit_code_1(move: Move) -> None:
    move.put(range(3), low=True)
    _, sequence = move.consume(LOWER, 1)
    Path("positions.csv").write_text(f"shard,sequence\n{LOWER},{sequence}\n")
    move.clock.ahead = timedelta(hours=25)
    move.put(range(3, 5), low=True)
    said = move.take_over("positions.csv", "--yes", code=1)
    assert f"{LOWER}: records after the position have expired, or may have" in said
    move.work(2)
    assert move.written() == [3, 4]


def test_the_lag_of_a_position_is_shown_before_anything_is_written(move: Move) -> None:
    move.put(range(3), low=True)
    _, sequence = move.consume(LOWER, 1)
    Path("positions.csv").write_text(f"shard,sequence\n{LOWER},{sequence}\n")
    move.clock.ahead = timedelta(hours=2)
    said = move.take_over("positions.csv", code=1)
    assert re.search(r" 7,[1-9]\d\d s ", said)
    assert "Write 1 row(s) to the lease table" in said
    assert not any(name.startswith("leases-") and name.endswith(move.table) for name in move.dynamo.list_tables()["TableNames"])


def put_running_redpanda(dynamo: Any, table: str, sequence: str, now: datetime) -> None:
    create(dynamo, table, "StreamID", "ShardID")
    until = (now + timedelta(seconds=25)).isoformat(timespec="microseconds").replace("+00:00", "123Z")
    row = {"StreamID": "numbers", "ShardID": LOWER, "SequenceNumber": sequence, "ClientID": "c4a1", "LeaseTimeout": until}
    dynamo.put_item(TableName=table, Item={name: {"S": text} for name, text in row.items()})


def put_running_async_kinesis(dynamo: Any, table: str, sequence: str, now: datetime) -> None:
    create(dynamo, table, "shard_id")
    numbers = {"ts": int(now.timestamp()) - 10, "ttl": int(now.timestamp()) + 86400}
    texts = {"shard_id": LOWER, "ref": "app/12", "sequence": sequence}
    item = {name: {"S": text} for name, text in texts.items()} | {name: {"N": str(number)} for name, number in numbers.items()}
    dynamo.put_item(TableName=table, Item=item)


def put_running_kinsumer(dynamo: Any, table: str, sequence: str, now: datetime) -> None:
    create(dynamo, table, "Shard")
    texts = {"Shard": LOWER, "SequenceNumber": sequence, "OwnerName": "host", "OwnerID": "9f", "LastUpdateRFC": "now"}
    item: dict[str, Any] = {name: {"S": text} for name, text in texts.items()}
    item |= {"LastUpdate": {"N": str(int(now.timestamp() * 1e9))}, "Finished": {"NULL": True}, "FinishedRFC": {"NULL": True}}
    dynamo.put_item(TableName=table, Item=item)


@pytest.mark.parametrize("put_running_consumer", [put_running_redpanda, put_running_async_kinesis, put_running_kinsumer])
def test_positions_of_a_running_consumer_are_imported_only_on_request(move: Move, put_running_consumer: Callable[..., None]) -> None:
    move.put(range(3), low=True)
    _, sequence = move.consume(LOWER, 1)
    put_running_consumer(move.dynamo, move.table, sequence, move.clock.now())
    said = move.take_over(f"dynamodb:{move.table}", "--yes", code=2)
    assert "seems to run" in said
    assert "nothing was written" in said
    assert "1 row(s) were written" in move.take_over(f"dynamodb:{move.table}", "--yes", "--while-running")
    assert set(move.rows()) == {LOWER}


def test_the_table_of_each_known_consumer_is_read(move: Move) -> None:
    """Two shards, of which one was read to a record, and one was begun or read to its end."""
    text = lambda **values: {name: {"S": value} for name, value in values.items()}  # noqa: E731 - a short form of rows
    nothing, moment = {"NULL": True}, {"N": "1767268800000000000"}
    move.put(range(3), low=True)
    _, sequence = move.consume(LOWER, 1)
    forms = {
        ("StreamID", "ShardID"): [
            text(StreamID="arn:aws:kinesis:us-east-1:1:stream/numbers", ShardID=LOWER, SequenceNumber=sequence),
            text(StreamID="others", ShardID=UPPER, SequenceNumber=sequence),
        ],
        ("shard_id",): [
            text(shard_id=LOWER, sequence=sequence) | {"ref": nothing, "ts": nothing, "ttl": {"N": "1767268800"}},
            text(shard_id=UPPER) | {"sequence": nothing, "ref": nothing, "ts": nothing, "ttl": {"N": "1767268800"}},
        ],
        ("Shard",): [
            text(Shard=LOWER, SequenceNumber=sequence, LastUpdateRFC="Thu, 01 Jan 2026 12:00:00 UTC")
            | {"LastUpdate": moment, "Finished": nothing, "FinishedRFC": nothing},
            text(Shard=UPPER, LastUpdateRFC="Thu, 01 Jan 2026 12:00:00 UTC", FinishedRFC="Thu, 01 Jan 2026 12:00:00 UTC")
            | {"SequenceNumber": nothing, "LastUpdate": moment, "Finished": moment},
        ],
        ("namespace", "shard_id"): [
            text(namespace="telegraf-numbers", shard_id=LOWER, sequence_number=sequence),
            text(namespace="telegraf-others", shard_id=UPPER, sequence_number=sequence),
        ],
    }
    for number, (keys, rows) in enumerate(forms.items()):
        move.table = f"{move.table}{number}"
        move.write()
        create(move.dynamo, move.table, *keys)
        for row in rows:
            move.dynamo.put_item(TableName=move.table, Item=row)
        found = json.loads(move.take_over(f"dynamodb:{move.table}", "--yes", "--json"))
        plans = {each["shard"]: (each["plan"], each["checkpoint"]) for each in found["shards"]}
        assert plans == {LOWER: ("write", sequence), UPPER: ("write", "SHARD_END") if keys == ("Shard",) else ("start", None)}
        (row, *_) = move.rows().values()
        assert row["checkpoint"] == {"S": sequence}
    create(move.dynamo, f"{move.table}-own", "key")
    assert "as no known consumer has. Known are: Redpanda" in move.take_over(f"dynamodb:{move.table}-own", "--yes", code=2)


def test_a_table_of_more_rows_than_one_answer_holds_is_read_to_its_end(move: Move) -> None:
    """DynamoDB answers with a megabyte at most; the positions of this stream come after it."""
    move.put(range(3), low=True)
    _, sequence = move.consume(LOWER, 1)
    create(move.dynamo, move.table, "StreamID", "ShardID")
    for number in range(4):
        row = {"StreamID": f"a-stream-{number}", "ShardID": LOWER, "SequenceNumber": sequence, "ClientID": "c" * 390_000}
        move.dynamo.put_item(TableName=move.table, Item={name: {"S": text} for name, text in row.items()})
    row = {"StreamID": "numbers", "ShardID": LOWER, "SequenceNumber": sequence}
    move.dynamo.put_item(TableName=move.table, Item={name: {"S": text} for name, text in row.items()})
    answer = move.dynamo.scan(TableName=move.table)
    assert "LastEvaluatedKey" in answer
    assert "numbers" not in {item["StreamID"]["S"] for item in answer["Items"]}
    assert "1 row(s) were written" in move.take_over(f"dynamodb:{move.table}", "--yes")
    assert move.rows()[LOWER]["checkpoint"] == {"S": sequence}


def test_the_lease_table_itself_is_not_another_consumers(move: Move) -> None:
    move.put(range(3), low=True)
    Path("positions.csv").write_text(f"shard,sequence\n{LOWER},{move.consume(LOWER, 1)[1]}\n")
    move.take_over("positions.csv", "--yes")
    assert "is the lease table of this pipeline itself" in move.take_over(f"dynamodb:leases-{move.table}", "--yes", code=2)


def test_with_several_streams_one_is_named_and_its_rows_have_its_keys(move: Move) -> None:
    move.kinesis.create_stream(StreamName="others", ShardCount=1)
    move.put(range(3), low=True)
    _, sequence = move.consume(LOWER, 1)
    file = move.folder / "pipeline.yaml"
    file.write_text(file.read_text().replace("stream: numbers", "streams: [numbers, others]").replace(", start: trim_horizon", ""))
    Path("positions.csv").write_text(f"stream,shard,sequence\nnumbers,{LOWER},{sequence}\nothers,{LOWER},1\n")
    assert "name one of the pipeline's streams with --stream: numbers, others" in move.take_over("positions.csv", "--yes", code=2)
    assert "1 row(s) were written" in move.take_over("positions.csv", "--stream", "numbers", "--yes")
    (row,) = move.rows().values()
    assert row["leaseKey"]["S"].split(":")[1:] == ["numbers", row["leaseKey"]["S"].split(":")[2], LOWER]


def test_a_position_of_another_shard_or_stream_is_refused(move: Move) -> None:
    move.put(range(3), low=True)
    _, sequence = move.consume(LOWER, 1)
    Path("positions.csv").write_text(f"shard,sequence\n{LOWER},{sequence}\n{UPPER},1\n")
    assert "that is no record of this shard" in move.take_over("positions.csv", "--yes", code=2)
    Path("positions.csv").write_text("shard,sequence\nshardId-000000000009,1\n")
    assert "none of its 1 positions is of a shard that the stream numbers has" in move.take_over("positions.csv", "--yes", code=2)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("nothing.csv", "the file cannot be read"),
        ("dynamodb:nothing", "there is no table nothing"),
        ("empty.csv", "needed are shard,sequence"),
    ],
)
def test_a_source_that_cannot_be_read_exits_with_2(move: Move, source: str, says: str) -> None:
    Path("empty.csv").write_text("")
    assert says in move.take_over(source, "--yes", code=2)


def test_a_pipeline_without_leases_is_refused_with_a_remedy(move: Move) -> None:
    move.write(coordination="local")
    Path("positions.csv").write_text(f"shard,sequence\n{LOWER},1\n")
    assert "set `coordination: native`" in move.take_over("positions.csv", "--yes", code=2)


def test_the_plan_is_available_as_json(move: Move) -> None:
    move.put(range(3), low=True)
    _, sequence = move.consume(LOWER, 1)
    Path("positions.csv").write_text(f"shard,sequence\n{LOWER},{sequence}\n")
    found = json.loads(move.take_over("positions.csv", "--yes", "--json"))
    assert found["written"] == 1
    assert [(each["shard"], each["plan"], each["checkpoint"]) for each in found["shards"]] == [
        (LOWER, "write", sequence),
        (UPPER, "start", None),
    ]


def begin_without_leases(move: Move) -> str:
    """A log in which the lower shard has been begun, and so a stream is pinned; the sequence number of the shard's first record."""
    move.write(coordination="local")
    move.put(range(3), low=True)
    _, sequence = move.consume(LOWER, 1)
    move.work(3)
    move.write()
    Path("positions.csv").write_text(f"shard,sequence\n{LOWER},{sequence}\n")
    return sequence


def test_positions_are_not_taken_over_if_the_log_is_of_another_stream_of_that_name(move: Move, monkeypatch: pytest.MonkeyPatch) -> None:
    begin_without_leases(move)
    keys: dict[str, Any] = {"aws_access_key_id": "444455556666", "aws_secret_access_key": "test", "region_name": "us-east-1"}
    other = boto3.client("kinesis", endpoint_url=move.endpoints[0], **keys)
    other.create_stream(StreamName="numbers", ShardCount=2)
    put = other.put_record(StreamName="numbers", Data=body(1), PartitionKey="k", ExplicitHashKey="0")
    Path("positions.csv").write_text(f"shard,sequence\n{LOWER},{put['SequenceNumber']}\n")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "444455556666")
    said = move.take_over("positions.csv", "--yes", code=2)
    assert "is of another stream than the `numbers` that was found here" in said
    assert f"leases-{move.table}" not in boto3.client("dynamodb", endpoint_url=move.endpoints[1], **keys).list_tables()["TableNames"]
    other.close()


def test_what_is_planned_is_not_written_once_the_log_is_of_another_stream(move: Move) -> None:
    sequence = begin_without_leases(move)
    pin = move.folder / "state/app" / identity_key("numbers")
    Path("positions.csv").write_text(f"shard,sequence\n{UPPER},TRIM_HORIZON\n{LOWER},{sequence}\n")
    pipeline = check(move.folder / "pipeline.yaml", {}).pipeline
    assert pipeline is not None
    how = (move.folder, move.clock, lambda event: None)
    planned = asyncio.run(plan_import(pipeline, "positions.csv", *how))
    pin.write_text(pin.read_text().replace(":stream/numbers", ":stream/others"))
    with pytest.raises(OtherStream, match="is of another stream than the `numbers`"):
        asyncio.run(write_import(pipeline, planned, *how))
    assert f"leases-{move.table}" not in move.dynamo.list_tables()["TableNames"]


def test_a_log_in_a_directory_is_found_from_everywhere(move: Move, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The state is below the folder of the pipeline file, the positions are where the command is given."""
    begin_without_leases(move)
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (move.folder / "positions.csv").rename(elsewhere / "positions.csv")
    os.chdir(elsewhere)
    said = move.run("leases", "import", str(move.folder / "pipeline.yaml"), "--from", "positions.csv", "--yes", code=2)
    assert f"{LOWER}: the commit log has begun this shard without the position" in said
