"""`stream shards` on a complete pipeline over the emulator, whose clock stands still unless a test moves it, so rates are exact."""

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
from tests.clocks import StandingClock
from tests.integration.stage import PIPELINE, unseal_last

SECONDS = 10
HALF = 2**127


class Survey:
    """A stream, a pipeline, and the command."""

    def __init__(self, client: Any, url: str, clock: StandingClock, folder: Path) -> None:
        self.client, self.clock, self.folder = client, clock, folder
        self.file = folder / "pipeline.yaml"
        self.file.write_text(PIPELINE.format(url=url, on_expired="gap", start="trim_horizon"))

    def put(self, seconds: int, records: list[dict[str, Any]]) -> None:
        """Put ``records``, spread evenly over the seconds."""
        each = len(records) // seconds
        for second in range(seconds):
            now = records[second * each : (second + 1) * each]
            for at in range(0, each, 500):
                assert self.client.put_records(StreamName="numbers", Records=now[at : at + 500])["FailedRecordCount"] == 0
            self.clock.moment += timedelta(seconds=1)

    def work(self) -> None:
        done = CliRunner().invoke(app, ["run", str(self.file), "--once"])
        assert done.exit_code == 0, done.output

    def text(self, *options: str, code: int = 0) -> str:
        ran = CliRunner().invoke(app, ["shards", str(self.file), "--window", f"{SECONDS}s", *options])
        assert ran.exit_code == code, ran.output
        return ran.output

    def document(self, *options: str, code: int = 0) -> dict[str, Any]:
        (found,) = json.loads(self.text("--json", *options, code=code))["streams"]
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
def survey(tmp_path: Path, aws_keys: None) -> Iterator[Survey]:
    # In the past, so that the machine's clock is never behind it.
    clock = StandingClock(SystemClock().now().replace(microsecond=0) - timedelta(minutes=30))
    with running(clock=clock) as emulator:
        client = boto3.client("kinesis", endpoint_url=emulator.url, region_name="us-east-1")
        yield Survey(client, emulator.url, clock, tmp_path)
        client.close()


def record(key: str, size: int = 8) -> dict[str, Any]:
    return {"Data": b'{"n": 1}'.ljust(size), "PartitionKey": key}


def zipf(seed: int, records: int) -> list[dict[str, Any]]:
    """Records whose keys are as frequent as their numbers to the power of -0.8."""
    weights = np.arange(1, 20_001, dtype=float) ** -0.8
    return [record(f"customer-{n}") for n in np.random.default_rng(seed).choice(20_000, records, p=weights / weights.sum())]


def test_after_the_advised_split_of_a_skewed_stream_both_halves_carry_the_same_load(survey: Survey) -> None:
    survey.client.create_stream(StreamName="numbers", ShardCount=1)
    survey.put(SECONDS, zipf(1, 900 * SECONDS))
    survey.work()
    found = survey.document(code=1)
    (shard,) = found["shards"]
    assert (shard["marks"], shard["rate"]["from"], shard["rate"]["records_per_second"]) == (["hot"], "ledger", 900.0)
    assert (shard["rate"]["bytes_per_second"], shard["rate"]["busiest_second_share"]) == (7200.0, 0.9)
    assert (shard["state"], shard["behind_seconds"], shard["hash_key_share"], shard["keys"]) == ("sealed", 0.0, 1.0, None)
    assert [advice["kind"] for advice in found["advice"]] == ["sample"]

    found = survey.document("--keys", "--pages", "2", code=1)
    (advice,) = found["advice"]
    (shard,) = found["shards"]
    assert (advice["kind"], shard["keys"]["top"][0]["key"]) == ("split", "customer-0")
    # The first of two calls learns how large records are, and the second brings its half of the time.
    assert (shard["keys"]["covered_share"], shard["keys"]["user_records"]) == (0.5, FIRST_LIMIT + 900 * SECONDS // 2)
    for command in advice["commands"]:
        survey.follow(command)
    survey.put(SECONDS, zipf(2, 900 * SECONDS))
    survey.work()
    children = survey.document()["shards"]
    assert [shard["parents"] for shard in children] == [["shardId-000000000000"]] * 2
    rates = [shard["rate"]["records_per_second"] for shard in children]
    assert sum(rates) == pytest.approx(900)
    assert abs(rates[0] - rates[1]) <= 0.05 * sum(rates)


def test_one_hot_key_is_named_and_no_split_is_advised(survey: Survey, monkeypatch: pytest.MonkeyPatch) -> None:
    survey.client.create_stream(StreamName="numbers", ShardCount=2)
    survey.put(SECONDS, [*[record("ann@example.com")] * 850, *(record(f"k{n}") for n in range(50))] * SECONDS)
    survey.work()
    text = survey.text("--keys", "--pages", "2", code=1)
    assert "salt: shardId" in text
    assert "the heaviest key is ann@example.com, with 9" in text
    assert "split-shard" not in text

    monkeypatch.setenv("SECRET", "s")
    hidden = survey.text("--keys", "--pages", "2", "--hash-keys", "SECRET", code=1)
    assert "ann" not in hidden
    assert hmac.new(b"s", b"ann@example.com", hashlib.sha256).hexdigest()[:16] in hidden
    assert "ann" not in survey.text(code=1) + survey.text("--json", code=1)


def test_user_records_in_kpl_aggregates_count_by_their_own_keys(survey: Survey) -> None:
    survey.client.create_stream(StreamName="numbers", ShardCount=1)
    users = [UserRecord("inner" if n < 6 else f"k{n}", None, b'{"n": 1}') for n in range(10)]
    survey.put(2, [{"Data": aggregate(users), "PartitionKey": "outer"}, record("plain")] * 2)
    survey.work()
    (shard,) = survey.document("--keys", "--pages", "1")["shards"]
    assert shard["rate"]["records_per_second"] == 2.0
    keys = {each["key"]: each["user_records"] for each in shard["keys"]["top"]}
    assert keys["inner"] == 12
    assert "outer" not in keys
    assert (shard["keys"]["kinesis_records"], shard["keys"]["user_records"]) == (4.0, 22)


def test_without_keys_payloads_of_kpl_aggregates_do_not_lead_to_merges_and_with_keys_they_do(survey: Survey) -> None:
    survey.client.create_stream(StreamName="numbers", ShardCount=2)
    made = [aggregate([UserRecord(f"customer-{n}", None, b'{"n": 1}') for n in range(100)])] * 80
    halves = [{"Data": data, "PartitionKey": "outer", "ExplicitHashKey": str(HALF * (at % 2))} for at, data in enumerate(made)]
    survey.put(SECONDS, halves)
    survey.work()
    found = survey.document()
    assert [each["rate"]["bytes_per_second"] for each in found["shards"]] == [100 * 8 * 4.0] * 2
    assert not any(each["rate"]["keys_counted"] for each in found["shards"])
    assert found["advice"] == []
    assert "numbers: 2 of 2 shards get KPL aggregates, of which only payloads are counted here" in survey.text()

    found = survey.document("--keys", "--pages", "2")
    size = len(made[0]) + len("outer")
    assert size > 2.5 * 800
    for shard in found["shards"]:
        assert shard["rate"]["bytes_per_second"] == pytest.approx(4 * size)
        assert (shard["rate"]["from"], shard["rate"]["keys_counted"]) == ("ledger", True)
    assert [each["kind"] for each in found["advice"]] == ["merge"]
    assert "only payloads" not in survey.text("--keys", "--pages", "2")


def test_registered_fan_out_consumers_are_counted(survey: Survey) -> None:
    survey.client.create_stream(StreamName="numbers", ShardCount=1)
    arn = survey.client.describe_stream_summary(StreamName="numbers")["StreamDescriptionSummary"]["StreamARN"]
    survey.work()
    assert survey.document()["registered_consumers"] == 0
    assert "fan-out" not in survey.text()
    survey.client.register_stream_consumer(StreamARN=arn, ConsumerName="billing")
    assert survey.document()["registered_consumers"] == 1
    said = " ".join(survey.text().split())
    assert (
        f"numbers: 1 consumer is registered for enhanced fan-out; `aws kinesis list-stream-consumers --stream-arn {arn}` names them" in said
    )


def test_cold_neighbours_are_merged_by_the_advised_command(survey: Survey) -> None:
    survey.client.create_stream(StreamName="numbers", ShardCount=2)
    survey.put(2, [record(f"k{n}") for n in range(20)])
    survey.work()
    (advice,) = survey.document()["advice"]
    assert advice["kind"] == "merge"
    assert "merge: shardId-000000000000, shardId-000000000001: together" in survey.text()
    survey.follow(advice["commands"][0])
    survey.work()
    (shard,) = survey.document()["shards"]
    assert sorted(shard["parents"]) == ["shardId-000000000000", "shardId-000000000001"]


def test_a_late_shard_shows_its_lag_and_expiry_and_a_closed_one_is_shown_until_finished(survey: Survey) -> None:
    survey.client.create_stream(StreamName="numbers", ShardCount=1)
    survey.put(1, [record("a")])
    survey.work()
    survey.clock.moment += timedelta(seconds=60)
    put_at = survey.clock.moment
    survey.put(1, [record("b")])
    survey.client.split_shard(StreamName="numbers", ShardToSplit="shardId-000000000000", NewStartingHashKey=str(HALF))
    survey.put(1, [{**record("c"), "ExplicitHashKey": "0"}])
    survey.clock.moment += timedelta(minutes=20)
    found = survey.document(code=1)
    parent, lower, upper = sorted(found["shards"], key=lambda each: each["shard"])
    assert [each["open"] for each in (parent, lower, upper)] == [False, True, True]
    assert parent["marks"] == lower["marks"] == ["late"]
    assert datetime.fromisoformat(parent["oldest_unsealed"]) == put_at
    assert parent["behind_seconds"] == (survey.clock.moment - put_at).total_seconds()
    assert datetime.fromisoformat(parent["expires_at"]) == put_at + timedelta(hours=24)
    assert (upper["state"], upper["behind_seconds"], upper["rate"]["records_per_second"]) == ("sealed", 0.0, 0.0)
    assert (lower["rate"], lower["rate_why"]) == (None, "nothing of it is sealed yet")
    assert "(closed)" in survey.text(code=1)

    survey.clock.moment += timedelta(hours=7)
    assert survey.document(code=1)["shards"][0]["marks"] == ["late", "expiring"]
    survey.work()
    assert [(each["marks"], each["state"]) for each in survey.document()["shards"]] == [([], "sealed")] * 2


def test_for_a_late_shard_the_sample_shows_the_current_arrivals(survey: Survey) -> None:
    survey.client.create_stream(StreamName="numbers", ShardCount=1)
    survey.put(SECONDS, [record("a")] * SECONDS)
    survey.work()
    survey.put(1, [record("a")])
    survey.clock.moment += timedelta(minutes=10)
    survey.put(SECONDS, zipf(3, 900 * SECONDS))
    found = survey.document(code=1)
    assert (found["shards"][0]["marks"], found["shards"][0]["rate"]["records_per_second"]) == (["late"], 1.0)
    found = survey.document("--keys", "--pages", "2", code=1)
    (shard,) = found["shards"]
    assert (shard["marks"], shard["rate"]["from"]) == (["hot", "late"], "sample")
    assert shard["rate"]["records_per_second"] == pytest.approx(900, rel=0.01)
    assert [advice["kind"] for advice in found["advice"]] == ["split"]


def test_the_average_covers_the_window_or_the_time_since_the_first_record(survey: Survey) -> None:
    survey.client.create_stream(StreamName="numbers", ShardCount=1)
    survey.put(1, [record("a")] * 20)
    survey.work()
    survey.clock.moment += timedelta(seconds=3)
    assert survey.document()["shards"][0]["rate"]["records_per_second"] == 20 / 4
    survey.clock.moment += timedelta(seconds=30)
    survey.put(1, [record("a")] * 20)
    survey.work()
    survey.clock.moment += timedelta(seconds=3)
    assert survey.document()["shards"][0]["rate"]["records_per_second"] == 20 / SECONDS


def test_an_unsealed_unit_does_not_count(survey: Survey) -> None:
    survey.client.create_stream(StreamName="numbers", ShardCount=1)
    for _ in range(2):
        survey.put(1, [record("a")] * 20)
        survey.work()
    unseal_last(survey.folder)
    (shard,) = survey.document()["shards"]
    assert (shard["state"], shard["rate"]["records_per_second"]) == ("unsealed", 20.0)


def test_the_rate_is_unknown_where_records_were_skipped(survey: Survey) -> None:
    survey.client.create_stream(StreamName="numbers", ShardCount=1)
    survey.put(1, [record("a")])
    survey.work()
    last = survey.client.put_record(StreamName="numbers", **record("a"))["SequenceNumber"]
    done = CliRunner().invoke(app, ["leases", "skip", str(survey.file), "shardId-000000000000", last, "--yes"])
    assert done.exit_code == 0, done.output
    (shard,) = survey.document(code=2)["shards"]
    assert shard["rate_why"] == "the log has a link of the kind skip there, and how many records that stands for is not known"


def test_after_a_rewind_the_new_chain_counts(survey: Survey) -> None:
    survey.client.create_stream(StreamName="numbers", ShardCount=1)
    survey.put(1, [record("a")] * 20)
    survey.work()
    done = CliRunner().invoke(app, ["leases", "rewind", str(survey.file), "shardId-000000000000", "start", "--yes"])
    assert done.exit_code == 0, done.output
    (shard,) = survey.document(code=2)["shards"]
    assert (shard["state"], shard["rate_why"]) == ("unsealed", "nothing of it is sealed yet")
    survey.work()
    assert survey.document()["shards"][0]["rate"]["records_per_second"] == 20.0


def test_an_on_demand_stream_gets_no_advice(survey: Survey) -> None:
    survey.client.create_stream(StreamName="numbers", StreamModeDetails={"StreamMode": "ON_DEMAND"})
    survey.put(1, [record("a")])
    survey.work()
    found = survey.document()
    assert (found["mode"], found["advice"], len(found["shards"])) == ("on_demand", [], 4)
    assert "Kinesis splits and merges its shards itself" in survey.text()


def test_what_is_unknown_is_reported(survey: Survey) -> None:
    survey.client.create_stream(StreamName="numbers", ShardCount=1)
    assert "numbers: no worker has begun with this stream" in survey.text(code=2)
    survey.put(1, [record("a")])
    survey.work()
    (segment,) = (survey.folder / "state" / "app" / "ledger").rglob("*.parquet")
    body = segment.read_bytes()
    segment.unlink()
    (shard,) = survey.document(code=2)["shards"]
    assert shard["rate"] is None
    assert shard["rate_why"].startswith("the ledger segment numbers/")
    assert "is missing" in survey.text(code=2)
    segment.write_bytes(body[:-9])
    assert "a ledger segment is a Parquet file" in survey.text(code=2)
    assert survey.document("--keys", "--pages", "1")["shards"][0]["rate"]["from"] == "sample"


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
def test_an_invalid_command_exits_with_2(survey: Survey, options: list[str], says: str) -> None:
    survey.client.create_stream(StreamName="numbers", ShardCount=1)
    assert says in " ".join(survey.text(*options, code=2).replace("│", " ").split())


def test_only_the_named_shards_are_shown(survey: Survey) -> None:
    survey.client.create_stream(StreamName="numbers", ShardCount=2)
    survey.put(1, [record("a")])
    survey.work()
    found = survey.document("--shard", "shardId-000000000001")
    assert ([each["shard"] for each in found["shards"]], found["advice"]) == (["shardId-000000000001"], [])


def test_shards_that_were_not_named_still_count_when_judging_the_size_of_the_stream(survey: Survey) -> None:
    survey.client.create_stream(StreamName="numbers", ShardCount=4)
    survey.put(1, [{**record("a"), "ExplicitHashKey": at} for at in ("0", str(HALF)) for _ in range(900)])
    survey.work()
    named = ("--shard", "shardId-000000000000", "--shard", "shardId-000000000002")
    found = survey.document(*named, code=1)
    assert [each["marks"] for each in found["shards"]] == [["hot"], ["hot"]]
    assert [advice["kind"] for advice in found["advice"]] == ["sample", "sample"]
