"""`stream status`, `complete` and `shards` of pipelines that read objects: what real runs left behind, asked by the commands."""

import json
import os
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

import boto3
import pytest
from typer.testing import CliRunner

from stream.cli.main import app
from stream.clock import SystemClock
from stream.worker.sources.reading import Reading
from tests.integration.test_replay import place  # noqa: F401 - the fixture
from tests.replays import Place

WATCHED = ", shards: 2, watch: {}"


class Killed(BaseException):
    """Stands for SIGKILL: nothing handles it."""


def once(place: Place, **changes):  # noqa: F811 - the fixture
    return place.run(Reading(once=True), s3=WATCHED, **changes)


def asked(place: Place, *command: str) -> tuple[int, dict]:  # noqa: F811
    file = place.file()
    ran = CliRunner().invoke(app, [command[0], str(file), *command[1:], "--json"])
    assert ran.exception is None or isinstance(ran.exception, SystemExit), ran.output
    assert ran.stdout, ran.output
    return ran.exit_code, json.loads(ran.stdout)


def said(place: Place, *command: str) -> str:  # noqa: F811
    ran = CliRunner().invoke(app, [command[0], str(place.file()), *command[1:]])
    assert ran.exception is None or isinstance(ran.exception, SystemExit), ran.output
    return ran.output


def dated(path: Path, moment: datetime) -> Path:
    os.utime(path, (moment.timestamp(), moment.timestamp()))
    return path


def complete(place: Place, until: datetime, *more: str) -> tuple[int, dict]:  # noqa: F811
    code, found = asked(place, "complete", "--until", until.isoformat(), "--margin", "0", *more)
    return code, found["streams"][0]


@pytest.fixture
def noon() -> datetime:
    return SystemClock().now().replace(microsecond=0) - timedelta(hours=2)


def test_before_anything_has_run_nothing_is_complete_and_the_objects_are_counted(place, noon):  # noqa: F811
    place.settings = {"s3": WATCHED}
    dated(place.lines("a.json", range(10)), noon)
    code, found = complete(place, noon + timedelta(minutes=1))
    assert (code, found["objects"]["unclaimed"], found["complete_up_to"]) == (1, 1, None)
    code, found = asked(place, "status")
    assert code == 1
    (stream,) = found["streams"]
    assert [each["code"] for each in stream["findings"]] == ["not_begun"]
    assert (stream["objects"]["unclaimed"], stream["objects"]["unclaimed_since"]) == (1, noon.isoformat())
    assert not (place.folder / "state").exists()
    assert asked(place, "shards")[0] == 2


def test_after_a_run_everything_is_complete_until_an_older_object_appears(place, noon):  # noqa: F811
    place.settings = {"s3": WATCHED}
    for number in range(5):
        dated(place.lines(f"{number}.json", range(number * 10, number * 10 + 10)), noon + timedelta(minutes=number))
    assert once(place).code == 0
    before = sorted((place.folder / "state").rglob("*"))
    code, found = complete(place, noon + timedelta(hours=1))
    assert (code, found["verdict"], found["objects"]["unclaimed"]) == (0, "complete", 0)
    assert {each["state"] for each in found["shards"]} == {"complete"}
    code, status = asked(place, "status")
    assert (code, status["verdict"]) == (0, "healthy")
    (stream,) = status["streams"]
    claim = stream["objects"]["last_claim"]
    assert (claim["number"], claim["objects"], stream["objects"]["unread"]) == (1, 5, 0)
    assert "0 objects wait to be claimed." in said(place, "status")
    code, shards = asked(place, "shards")
    assert code == 0
    assert [(each["shard"], each["objects"], each["state"]) for each in shards["streams"][0]["shards"]] == [
        ("watch-0001", 0, "sealed"),
        ("watch-0002", 0, "sealed"),
    ]
    # The commands wrote nothing.
    assert sorted((place.folder / "state").rglob("*")) == before
    # An upload that began at noon ends now: the answer for that hour is no again, and that for the time before stays yes.
    dated(place.lines("late.json", range(100, 110)), noon + timedelta(minutes=30))
    code, found = complete(place, noon + timedelta(hours=1))
    assert (code, found["objects"]["unclaimed"]) == (1, 1)
    assert found["complete_up_to"] == (noon + timedelta(minutes=30)).isoformat()
    assert "1 object is not claimed" in said(place, "complete", "--until", (noon + timedelta(hours=1)).isoformat())
    assert complete(place, noon + timedelta(minutes=30))[0] == 0
    assert once(place).code == 0
    assert complete(place, noon + timedelta(hours=1))[0] == 0


def test_what_is_claimed_and_not_sealed_to_its_end_is_not_complete(place, noon):  # noqa: F811
    place.settings = {"s3": WATCHED, "rows": 7}
    for number in range(4):
        dated(place.lines(f"{number}.json", range(number * 100, number * 100 + 100)), noon + timedelta(minutes=number))

    sealed = 0

    def kill(event):
        nonlocal sealed
        sealed += type(event).__name__ == "UnitSealed"
        if sealed == 1:
            raise Killed

    with suppress(BaseExceptionGroup, Killed):
        once(place, listeners=(kill,), rows=7)
    code, found = complete(place, noon + timedelta(minutes=1))
    assert code == 1
    assert found["objects"]["unclaimed"] == 0
    assert "unsealed" in {each["state"] for each in found["shards"]}
    # What was modified later does not matter for earlier moments.
    assert complete(place, noon)[0] == 0
    code, status = asked(place, "status")
    (stream,) = status["streams"]
    assert code == 1
    assert stream["findings"][0]["code"] in {"behind", "not_sealing"}
    assert stream["objects"]["unread"] == sum(each["objects"] for each in stream["shards"]) > 0
    assert "late" in json.dumps(asked(place, "shards")[1])
    assert asked(place, "shards")[0] == 1
    assert once(place, rows=7).code == 0
    assert complete(place, noon + timedelta(hours=1))[0] == 0
    assert place.proof() == []


def test_a_newer_object_that_is_sealed_says_nothing_of_an_older_one_behind_it(place, noon):  # noqa: F811
    place.settings = {"s3": ", shards: 1, watch: {}", "rows": 7}
    dated(place.lines("a.json", range(100)), noon + timedelta(minutes=30))
    dated(place.lines("b.json", range(100, 200)), noon)

    def kill(event):
        if type(event).__name__ == "UnitSealed":
            raise Killed

    with suppress(BaseExceptionGroup, Killed):
        place.run(Reading(once=True), listeners=(kill,))
    code, found = complete(place, noon + timedelta(minutes=10))
    (shard,) = found["shards"]
    assert (code, shard["state"]) == (1, "unsealed")
    assert shard["sealed_to"] == (noon + timedelta(minutes=30)).isoformat()
    assert place.run(Reading(once=True)).code == 0
    assert complete(place, noon + timedelta(minutes=10))[0] == 0


def test_an_object_that_was_overwritten_is_not_complete_and_needs_a_person(place, noon):  # noqa: F811
    place.settings = {"s3": WATCHED}
    dated(place.lines("a.json", range(10)), noon)
    assert once(place).code == 0
    dated(place.lines("a.json", range(20)), noon + timedelta(minutes=2))
    code, found = complete(place, noon + timedelta(hours=1))
    assert (code, found["objects"]["changed"], found["objects"]["changed_examples"]) == (1, 1, ["a.json"])
    assert complete(place, noon + timedelta(minutes=2))[0] == 0
    code, status = asked(place, "status")
    assert code == 1
    assert [each["code"] for each in status["streams"][0]["findings"]] == ["objects_changed"]


def test_an_object_that_cannot_be_read_has_an_outcome_and_is_named(place, noon):  # noqa: F811
    place.settings = {"s3": WATCHED}
    dated(place.lines("a.json.gz", range(1), pack=lambda _: b"\x1f\x8b is no gzip"), noon)
    assert once(place).code == 0
    assert complete(place, noon + timedelta(hours=1))[0] == 0
    code, status = asked(place, "status")
    finding = next(each for each in status["streams"][0]["findings"] if each["code"] == "objects_unreadable")
    assert code == 1
    assert "a.json.gz, after record 0: " in finding["details"][0]
    assert status["streams"][0]["objects"]["unreadable"] == 1


def test_runs_that_end_are_complete_once_they_have_ended(place, noon):  # noqa: F811
    dated(place.lines("a.json", range(10)), noon)
    assert place.run().code == 0
    dated(place.lines("b.json", range(10, 20)), noon + timedelta(minutes=1))
    assert place.run().code == 0
    code, found = complete(place, noon + timedelta(hours=1))
    assert (code, found["shards"]) == (0, [])
    dated(place.lines("c.json", range(20, 30)), noon + timedelta(minutes=2))
    assert complete(place, noon + timedelta(hours=1))[0] == 1
    # A run may come later: nothing is wrong.
    code, status = asked(place, "status")
    assert (code, status["streams"][0]["objects"]["unclaimed"]) == (0, 1)


def test_with_wait_it_looks_until_the_claims_are_sealed(place, noon):  # noqa: F811
    place.settings = {"s3": WATCHED}
    dated(place.lines("a.json", range(10)), noon)
    assert once(place).code == 0
    assert complete(place, noon + timedelta(hours=1), "--wait", "5")[0] == 0


def test_a_pipeline_over_objects_has_no_partition_keys(place):  # noqa: F811
    ran = CliRunner().invoke(app, ["shards", str(place.file(s3=WATCHED)), "--keys"])
    assert ran.exit_code == 2
    assert "partition keys of a stream" in ran.stderr


def test_an_object_that_is_deleted_after_it_was_read_is_no_gap(place, noon):  # noqa: F811
    place.settings = {"s3": WATCHED}
    path = dated(place.lines("a.json", range(10)), noon)
    assert once(place).code == 0
    path.unlink()
    heard = []
    assert once(place, listeners=(heard.append,)).code == 0
    assert "RecordsExpired" not in {type(event).__name__ for event in heard}
    assert place.rows().height == 10
    assert complete(place, noon + timedelta(hours=1))[0] == 0


def test_in_s3_with_a_queue_the_service_says_the_time_and_what_waits(tmp_path, monkeypatch, aws_keys, moto_url):
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_url)
    s3, sqs = (boto3.client(name, endpoint_url=moto_url, region_name="us-east-1") for name in ("s3", "sqs"))
    for bucket in ("landing", "lake"):
        s3.create_bucket(Bucket=bucket)
    queue = sqs.create_queue(QueueName="arrivals")["QueueUrl"]
    for number in range(3):
        s3.put_object(Bucket="landing", Key=f"orders/{number}.json", Body=b'{"id": 1}\n')
        sqs.send_message(QueueUrl=queue, MessageBody="{}")
    s3.put_object(Bucket="landing", Key="other/1.json", Body=b"{}")
    (tmp_path / "pipeline.yaml").write_text(
        "application: orders\nsource:\n"
        '  s3: {url: "s3://landing/orders/", name: landing, watch: {queue: "arn:aws:sqs:us-east-1:123456789012:arrivals"}}\n'
        '  schema: {id: int64}\nsinks: [s3: {url: "s3://lake/orders/"}]\nstate: "s3://lake/_stream/"\n'
    )
    begun = SystemClock().now()
    ran = CliRunner().invoke(app, ["status", str(tmp_path / "pipeline.yaml"), "--json"])
    assert ran.exit_code == 1, ran.output
    (stream,) = json.loads(ran.stdout)["streams"]
    assert stream["unread"] == []
    assert stream["objects"]["queue"] == {"waiting": 3, "hidden": 0}
    assert stream["objects"]["unclaimed"] == 3
    asked = datetime.fromisoformat(stream["asked_at"])
    # The service's clock, to the second.
    assert asked.microsecond == 0
    assert begun - timedelta(seconds=1) < asked <= SystemClock().now()
    assert sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["All"])["Attributes"]["ApproximateNumberOfMessages"] == "3"
