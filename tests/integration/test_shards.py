"""`stream shards` beside a whole pipeline over the emulator, whose clock stands still unless a test moves it: rates are exact."""

from __future__ import annotations

import hashlib
import hmac
import json
import shlex
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
from typer.testing import CliRunner

from stream.cli.main import app
from stream.clock import SystemClock
from stream.local.kinesis.server import running
from stream.local.kpl import UserRecord, aggregate
from stream.source.excerpt import FIRST_LIMIT
from tests.integration.stage import PIPELINE, unseal_last

SECONDS = 10
HALF = 2**127


class StandingClock(SystemClock):
    """Stands still until it is moved; in the past, so that the machine's clock is never behind it."""

    def __init__(self) -> None:
        self.moment = super().now().replace(microsecond=0) - timedelta(minutes=30)

    def now(self) -> datetime:
        return self.moment


class Desk:
    """A stream, a pipeline, and the command."""

    def __init__(self, client: Any, url: str, clock: StandingClock, folder: Path) -> None:
        self.client, self.clock, self.folder = client, clock, folder
        self.file = folder / "pipeline.yaml"
        self.file.write_text(PIPELINE.format(url=url, on_expired="gap", start="trim_horizon"))

    def put(self, seconds: int, records: list[dict[str, Any]]) -> None:
        """Put ``records``, as many in each of so many seconds."""
        each = len(records) // seconds
        for second in range(seconds):
            now = records[second * each : (second + 1) * each]
            for at in range(0, each, 500):
                assert self.client.put_records(StreamName="numbers", Records=now[at : at + 500])["FailedRecordCount"] == 0
            self.clock.moment += timedelta(seconds=1)

    def work(self) -> None:
        done = CliRunner().invoke(app, ["run", str(self.file), "--once"])
        assert done.exit_code == 0, done.output

    def say(self, *options: str, code: int = 0) -> str:
        ran = CliRunner().invoke(app, ["shards", str(self.file), "--window", f"{SECONDS}s", *options])
        assert ran.exit_code == code, ran.output
        return ran.output

    def ask(self, *options: str, code: int = 0) -> dict[str, Any]:
        (found,) = json.loads(self.say("--json", *options, code=code))["streams"]
        return found

    def follow(self, command: str) -> None:
        """Do what a command of the AWS command line does."""
        aws, service, call, *rest = shlex.split(command)
        assert (aws, service) == ("aws", "kinesis")
        waits = [rest.pop(0)] if call == "wait" else []
        given = {"".join(part.title() for part in name[2:].split("-")): value for name, value in zip(rest[::2], rest[1::2], strict=True)}
        assert given.pop("EndpointUrl") == self.client.meta.endpoint_url
        if waits:
            self.client.get_waiter(waits[0].replace("-", "_")).wait(**given)
        else:
            getattr(self.client, call.replace("-", "_"))(**given)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    for name, value in {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}.items():
        monkeypatch.setenv(name, value)
    clock = StandingClock()
    with running(clock=clock) as emulator:
        client = boto3.client("kinesis", endpoint_url=emulator.url, region_name="us-east-1")
        yield Desk(client, emulator.url, clock, tmp_path)
        client.close()


def record(key: str, size: int = 8) -> dict[str, Any]:
    return {"Data": b'{"n": 1}'.ljust(size), "PartitionKey": key}


def zipf(seed: int, records: int) -> list[dict[str, Any]]:
    """Records whose keys are as frequent as their numbers to the power of -0.8."""
    weights = np.arange(1, 20_001, dtype=float) ** -0.8
    return [record(f"customer-{n}") for n in np.random.default_rng(seed).choice(20_000, records, p=weights / weights.sum())]


def test_after_the_split_that_is_advised_for_a_skewed_stream_both_halves_take_the_same(desk: Desk) -> None:
    desk.client.create_stream(StreamName="numbers", ShardCount=1)
    desk.put(SECONDS, zipf(1, 900 * SECONDS))
    desk.work()
    found = desk.ask(code=1)
    (shard,) = found["shards"]
    assert (shard["marks"], shard["rate"]["from"], shard["rate"]["records_per_second"]) == (["hot"], "ledger", 900.0)
    assert (shard["rate"]["bytes_per_second"], shard["rate"]["busiest_second_share"]) == (7200.0, 0.9)
    assert (shard["state"], shard["behind_seconds"], shard["hash_key_share"], shard["keys"]) == ("sealed", 0.0, 1.0, None)
    assert [advice["kind"] for advice in found["advice"]] == ["sample"]

    found = desk.ask("--keys", "--pages", "2", code=1)
    (advice,) = found["advice"]
    (shard,) = found["shards"]
    assert (advice["kind"], shard["keys"]["top"][0]["key"]) == ("split", "customer-0")
    # The first of two calls learns how large records are, and the second brings its half of the time.
    assert (shard["keys"]["covered_share"], shard["keys"]["user_records"]) == (0.5, FIRST_LIMIT + 900 * SECONDS // 2)
    for command in advice["commands"]:
        desk.follow(command)
    desk.put(SECONDS, zipf(2, 900 * SECONDS))
    desk.work()
    children = desk.ask()["shards"]
    assert [shard["parents"] for shard in children] == [["shardId-000000000000"]] * 2
    rates = [shard["rate"]["records_per_second"] for shard in children]
    assert sum(rates) == pytest.approx(900)
    assert abs(rates[0] - rates[1]) <= 0.05 * sum(rates)


def test_one_hot_key_is_named_and_no_split_is_advised(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.client.create_stream(StreamName="numbers", ShardCount=2)
    desk.put(SECONDS, [*[record("ann@example.com")] * 850, *(record(f"k{n}") for n in range(50))] * SECONDS)
    desk.work()
    text = desk.say("--keys", "--pages", "2", code=1)
    assert "salt: shardId" in text
    assert "the heaviest key is ann@example.com, with 9" in text
    assert "split-shard" not in text

    monkeypatch.setenv("SECRET", "s")
    hidden = desk.say("--keys", "--pages", "2", "--hash-keys", "SECRET", code=1)
    assert "ann" not in hidden
    assert hmac.new(b"s", b"ann@example.com", hashlib.sha256).hexdigest()[:16] in hidden
    assert "ann" not in desk.say(code=1) + desk.say("--json", code=1)


def test_what_kpl_aggregates_hold_counts_by_its_own_keys(desk: Desk) -> None:
    desk.client.create_stream(StreamName="numbers", ShardCount=1)
    users = [UserRecord("inner" if n < 6 else f"k{n}", None, b'{"n": 1}') for n in range(10)]
    desk.put(2, [{"Data": aggregate(users), "PartitionKey": "outer"}, record("plain")] * 2)
    desk.work()
    (shard,) = desk.ask("--keys", "--pages", "1")["shards"]
    assert shard["rate"]["records_per_second"] == 2.0
    keys = {each["key"]: each["user_records"] for each in shard["keys"]["top"]}
    assert keys["inner"] == 12
    assert "outer" not in keys
    assert (shard["keys"]["kinesis_records"], shard["keys"]["user_records"]) == (4.0, 22)


def test_without_keys_the_bytes_of_kpl_aggregates_are_not_taken_for_room_to_merge_and_with_keys_they_are_whole(desk: Desk) -> None:
    desk.client.create_stream(StreamName="numbers", ShardCount=2)
    made = [aggregate([UserRecord(f"customer-{n}", None, b'{"n": 1}') for n in range(100)])] * 80
    halves = [{"Data": data, "PartitionKey": "outer", "ExplicitHashKey": str(HALF * (at % 2))} for at, data in enumerate(made)]
    desk.put(SECONDS, halves)
    desk.work()
    found = desk.ask()
    assert [each["rate"]["bytes_per_second"] for each in found["shards"]] == [100 * 8 * 4.0] * 2
    assert not any(each["rate"]["keys_counted"] for each in found["shards"])
    assert found["advice"] == []
    assert "numbers: 2 of 2 shards get KPL aggregates, of which only payloads are counted here" in desk.say()

    found = desk.ask("--keys", "--pages", "2")
    size = len(made[0]) + len("outer")
    assert size > 2.5 * 800
    for shard in found["shards"]:
        assert shard["rate"]["bytes_per_second"] == pytest.approx(4 * size)
        assert (shard["rate"]["from"], shard["rate"]["keys_counted"]) == ("ledger", True)
    assert [each["kind"] for each in found["advice"]] == ["merge"]
    assert "only payloads" not in desk.say("--keys", "--pages", "2")


def test_consumers_that_are_registered_for_fan_out_are_counted(desk: Desk) -> None:
    desk.client.create_stream(StreamName="numbers", ShardCount=1)
    arn = desk.client.describe_stream_summary(StreamName="numbers")["StreamDescriptionSummary"]["StreamARN"]
    desk.work()
    assert desk.ask()["registered_consumers"] == 0
    assert "fan-out" not in desk.say()
    desk.client.register_stream_consumer(StreamARN=arn, ConsumerName="billing")
    assert desk.ask()["registered_consumers"] == 1
    said = " ".join(desk.say().split())
    assert (
        f"numbers: 1 consumer is registered for enhanced fan-out; `aws kinesis list-stream-consumers --stream-arn {arn}` names them" in said
    )


def test_cold_neighbours_are_merged_by_the_command_that_is_advised(desk: Desk) -> None:
    desk.client.create_stream(StreamName="numbers", ShardCount=2)
    desk.put(2, [record(f"k{n}") for n in range(20)])
    desk.work()
    (advice,) = desk.ask()["advice"]
    assert advice["kind"] == "merge"
    assert "merge: shardId-000000000000, shardId-000000000001: together" in desk.say()
    desk.follow(advice["commands"][0])
    desk.work()
    (shard,) = desk.ask()["shards"]
    assert sorted(shard["parents"]) == ["shardId-000000000000", "shardId-000000000001"]


def test_a_late_shard_says_how_late_and_when_its_records_expire_and_a_closed_one_is_shown_until_it_is_finished(desk: Desk) -> None:
    desk.client.create_stream(StreamName="numbers", ShardCount=1)
    desk.put(1, [record("a")])
    desk.work()
    desk.clock.moment += timedelta(seconds=60)
    put_at = desk.clock.moment
    desk.put(1, [record("b")])
    desk.client.split_shard(StreamName="numbers", ShardToSplit="shardId-000000000000", NewStartingHashKey=str(HALF))
    desk.put(1, [{**record("c"), "ExplicitHashKey": "0"}])
    desk.clock.moment += timedelta(minutes=20)
    found = desk.ask(code=1)
    parent, lower, upper = sorted(found["shards"], key=lambda each: each["shard"])
    assert [each["open"] for each in (parent, lower, upper)] == [False, True, True]
    assert parent["marks"] == lower["marks"] == ["late"]
    assert datetime.fromisoformat(parent["oldest_unsealed"]) == put_at
    assert parent["behind_seconds"] == (desk.clock.moment - put_at).total_seconds()
    assert datetime.fromisoformat(parent["expires_at"]) == put_at + timedelta(hours=24)
    assert (upper["state"], upper["behind_seconds"], upper["rate"]["records_per_second"]) == ("sealed", 0.0, 0.0)
    assert (lower["rate"], lower["rate_why"]) == (None, "nothing of it is sealed yet")
    assert "(closed)" in desk.say(code=1)

    desk.clock.moment += timedelta(hours=7)
    assert desk.ask(code=1)["shards"][0]["marks"] == ["late", "expiring"]
    desk.work()
    assert [(each["marks"], each["state"]) for each in desk.ask()["shards"]] == [([], "sealed")] * 2


def test_of_a_late_shard_the_sample_says_what_arrives_now(desk: Desk) -> None:
    desk.client.create_stream(StreamName="numbers", ShardCount=1)
    desk.put(SECONDS, [record("a")] * SECONDS)
    desk.work()
    desk.put(1, [record("a")])
    desk.clock.moment += timedelta(minutes=10)
    desk.put(SECONDS, zipf(3, 900 * SECONDS))
    found = desk.ask(code=1)
    assert (found["shards"][0]["marks"], found["shards"][0]["rate"]["records_per_second"]) == (["late"], 1.0)
    found = desk.ask("--keys", "--pages", "2", code=1)
    (shard,) = found["shards"]
    assert (shard["marks"], shard["rate"]["from"]) == (["hot", "late"], "sample")
    assert shard["rate"]["records_per_second"] == pytest.approx(900, rel=0.01)
    assert [advice["kind"] for advice in found["advice"]] == ["split"]


def test_the_average_is_over_the_window_where_older_records_are_known_and_else_since_the_first(desk: Desk) -> None:
    desk.client.create_stream(StreamName="numbers", ShardCount=1)
    desk.put(1, [record("a")] * 20)
    desk.work()
    desk.clock.moment += timedelta(seconds=3)
    assert desk.ask()["shards"][0]["rate"]["records_per_second"] == 20 / 4
    desk.clock.moment += timedelta(seconds=30)
    desk.put(1, [record("a")] * 20)
    desk.work()
    desk.clock.moment += timedelta(seconds=3)
    assert desk.ask()["shards"][0]["rate"]["records_per_second"] == 20 / SECONDS


def test_a_unit_that_is_not_sealed_does_not_count(desk: Desk) -> None:
    desk.client.create_stream(StreamName="numbers", ShardCount=1)
    for _ in range(2):
        desk.put(1, [record("a")] * 20)
        desk.work()
    unseal_last(desk.folder)
    (shard,) = desk.ask()["shards"]
    assert (shard["state"], shard["rate"]["records_per_second"]) == ("unsealed", 20.0)


def test_what_a_link_stands_for_that_is_no_unit_is_not_guessed(desk: Desk) -> None:
    desk.client.create_stream(StreamName="numbers", ShardCount=1)
    desk.put(1, [record("a")])
    desk.work()
    last = desk.client.put_record(StreamName="numbers", **record("a"))["SequenceNumber"]
    done = CliRunner().invoke(app, ["leases", "skip", str(desk.file), "shardId-000000000000", last, "--yes"])
    assert done.exit_code == 0, done.output
    (shard,) = desk.ask(code=2)["shards"]
    assert shard["rate_why"] == "the log has a link of the kind skip there, and how many records that stands for is not known"


def test_after_a_rewind_the_new_chain_counts(desk: Desk) -> None:
    desk.client.create_stream(StreamName="numbers", ShardCount=1)
    desk.put(1, [record("a")] * 20)
    desk.work()
    done = CliRunner().invoke(app, ["leases", "rewind", str(desk.file), "shardId-000000000000", "start", "--yes"])
    assert done.exit_code == 0, done.output
    (shard,) = desk.ask(code=2)["shards"]
    assert (shard["state"], shard["rate_why"]) == ("unsealed", "nothing of it is sealed yet")
    desk.work()
    assert desk.ask()["shards"][0]["rate"]["records_per_second"] == 20.0


def test_an_on_demand_stream_gets_no_advice(desk: Desk) -> None:
    desk.client.create_stream(StreamName="numbers", StreamModeDetails={"StreamMode": "ON_DEMAND"})
    desk.put(1, [record("a")])
    desk.work()
    found = desk.ask()
    assert (found["mode"], found["advice"], len(found["shards"])) == ("on_demand", [], 4)
    assert "Kinesis splits and merges its shards itself" in desk.say()


def test_what_is_not_known_is_said(desk: Desk) -> None:
    desk.client.create_stream(StreamName="numbers", ShardCount=1)
    assert "numbers: no worker has begun with this stream" in desk.say(code=2)
    desk.put(1, [record("a")])
    desk.work()
    (segment,) = (desk.folder / "state" / "app" / "ledger").rglob("*.parquet")
    body = segment.read_bytes()
    segment.unlink()
    (shard,) = desk.ask(code=2)["shards"]
    assert shard["rate"] is None
    assert shard["rate_why"].startswith("the ledger segment numbers/")
    assert "is missing" in desk.say(code=2)
    segment.write_bytes(body[:-9])
    assert "a ledger segment is a Parquet file" in desk.say(code=2)
    assert desk.ask("--keys", "--pages", "1")["shards"][0]["rate"]["from"] == "sample"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--window", "5"], "has no unit"),
        (["--window", "10ms"], "give at least 1s"),
        (["--hash-keys", "SECRET"], "with --keys only"),
        (["--keys", "--hash-keys", "NO_SUCH_VARIABLE"], "NO_SUCH_VARIABLE is not set"),
        (["--shard", "shardId-9"], "shardId-9: no shard of numbers that is not finished; there are shardId-000000000000"),
    ],
)
def test_a_wrong_command_ends_with_2(desk: Desk, options: list[str], says: str) -> None:
    desk.client.create_stream(StreamName="numbers", ShardCount=1)
    assert says in " ".join(desk.say(*options, code=2).replace("│", " ").split())


def test_only_the_shards_that_are_named_are_looked_at(desk: Desk) -> None:
    desk.client.create_stream(StreamName="numbers", ShardCount=2)
    desk.put(1, [record("a")])
    desk.work()
    found = desk.ask("--shard", "shardId-000000000001")
    assert ([each["shard"] for each in found["shards"]], found["advice"]) == (["shardId-000000000001"], [])


def test_shards_that_were_not_asked_about_count_for_whether_the_stream_is_too_small(desk: Desk) -> None:
    desk.client.create_stream(StreamName="numbers", ShardCount=4)
    desk.put(1, [{**record("a"), "ExplicitHashKey": at} for at in ("0", str(HALF)) for _ in range(900)])
    desk.work()
    named = ("--shard", "shardId-000000000000", "--shard", "shardId-000000000002")
    found = desk.ask(*named, code=1)
    assert [each["marks"] for each in found["shards"]] == [["hot"], ["hot"]]
    assert [advice["kind"] for advice in found["advice"]] == ["sample", "sample"]
