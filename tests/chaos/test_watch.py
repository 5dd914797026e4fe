"""A worker that stays up and reads objects as they arrive: real processes, moto's S3 that notifies moto's SQS, kills at named points."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import AsyncExitStack

import polars as pl
import pytest

from stream.audit.verify import Scope, Verifier
from stream.clock import SystemClock
from stream.operations.opening import open_evidence
from stream.pipeline.checks.lint import check
from tests.chaos.conftest import KEYS, client
from tests.chaos.gateway import gateway
from tests.chaos.test_store_faults import DENIED
from tests.chaos.workers import Worker
from tests.forked import prepare

PIPELINE = """
application: watched
source:
  s3: {{url: "s3://{bucket}/in/", name: arrivals, shards: {shards}, watch: {{{watch}}}}}
  schema: {{id: int64, kind: string}}
sinks:
  - s3: {{url: "file:./lake", partition_by: [kind]}}
flush: {{age: 300ms}}
memory: {{budget: 64MiB}}
metrics: {{port: 0}}
state: "file:./state"
"""
POINTS = [
    "ObjectsWaiting:3",
    "ObjectsClaimed:1",
    "ObjectsClaimed:2",
    "IntentCreated:1",
    "FileWritten:2",
    "ManifestSealed:1",
    "Checkpointed:1",
]


class Watched:
    """A bucket that notifies a queue, a pipeline that follows it, and what came of it."""

    def __init__(self, folder, url, name, *, through="sqs"):
        self.folder, self.bucket, self.queue = folder, f"watched-{name}", f"watched-{name}"
        self.environment = {**KEYS, "AWS_ENDPOINT_URL_S3": url, "AWS_ENDPOINT_URL_SQS": url}
        self.s3, self.sqs = client("s3", url), client("sqs", url)
        self.s3.create_bucket(Bucket=self.bucket)
        self.address = self.sqs.create_queue(QueueName=self.queue)["QueueUrl"]
        arn = f"arn:aws:sqs:us-east-1:123456789012:{self.queue}"
        reported = {"QueueConfigurations": [{"QueueArn": arn, "Events": ["s3:ObjectCreated:*"]}]}
        if through == "sns":
            sns = client("sns", url)
            topic = sns.create_topic(Name=self.queue)["TopicArn"]
            sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
            sns.close()
            reported = {"TopicConfigurations": [{"TopicArn": topic, "Events": ["s3:ObjectCreated:*"]}]}
        if through:
            self.s3.put_bucket_notification_configuration(Bucket=self.bucket, NotificationConfiguration=reported)
        self.watch = f"queue: {arn}, every: 1h" if through else "every: 1s"
        self.put_so_far = 0
        self.workers = []

    def put(self, objects, rows=3):
        for _ in range(objects):
            ids = range(self.put_so_far, self.put_so_far + rows)
            self.put_so_far += rows
            body = "".join(json.dumps({"id": number, "kind": "ab"[number % 2]}) + "\n" for number in ids)
            self.s3.put_object(Bucket=self.bucket, Key=f"in/day 1+2/ü-{ids[0]}.json", Body=body.encode())
        self.s3.put_object(Bucket=self.bucket, Key=f"other/{self.put_so_far}.json", Body=b"not ours")

    def file(self, shards=2):
        path = self.folder / "watched.yaml"
        path.write_text(PIPELINE.format(bucket=self.bucket, shards=shards, watch=self.watch))
        return path

    def start(self, *options):
        worker = Worker([*options, str(self.file())], self.environment, self.folder / f"worker-{len(self.workers)}.log")
        self.workers.append(worker)
        return worker

    def close(self):
        for worker in self.workers:
            worker.end()
        self.s3.close()
        self.sqs.close()

    def rows(self):
        found = sorted((self.folder / "lake").rglob("*.parquet"))
        return pl.concat([pl.read_parquet(path, hive_partitioning=False) for path in found]) if found else pl.DataFrame()

    def sealed(self):
        manifests = [json.loads(path.read_text()) for path in (self.folder / "state/watched/commits").rglob("0*.json")]
        return sum(manifest.get("records", 0) for manifest in manifests if manifest["state"] == "sealed")

    def finish(self, *workers):
        """Wait until everything put is committed, drain, and compare."""
        workers = workers or (self.start(),)
        for worker in workers:
            worker.until(lambda: self.sealed() >= self.put_so_far)
        for worker in workers:
            assert worker.drain() == 0, worker.said()
        rows = self.rows()
        assert rows["id"].sort().to_list() == list(range(self.put_so_far))
        assert rows.select("_shard", "_sequence").is_duplicated().sum() == 0
        assert self.proof() == []

    def proof(self):
        async def verify():
            pipeline = check(self.file(), os.environ).pipeline
            async with AsyncExitStack() as stack:
                evidence, _ = await open_evidence(pipeline, self.folder, SystemClock(), stack, with_stream=True)
                return list((await Verifier(evidence, Scope(), SystemClock()).run()).findings)

        return asyncio.run(verify())

    def left_in_queue(self):
        found = self.sqs.get_queue_attributes(
            QueueUrl=self.address, AttributeNames=["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        )["Attributes"]
        return sum(int(value) for value in found.values())

    def chains(self):
        return sorted(path.name for path in (self.folder / "state/watched/commits/arrivals").iterdir())


@pytest.fixture
def make_watched(s3_url, tmp_path, monkeypatch):
    prepare()
    made = []

    def make(**options):
        name = f"{tmp_path.name.replace('_', '-')[-30:]}-{len(made)}".strip("-").lower()
        watched = Watched(tmp_path, s3_url, "".join(each if each.isalnum() else "-" for each in name), **options)
        for key, value in watched.environment.items():
            monkeypatch.setenv(key, value)
        made.append(watched)
        return watched

    yield make
    for each in made:
        each.close()


@pytest.mark.parametrize("through", ["sqs", "sns", ""])
def test_objects_are_read_as_they_arrive_and_the_queue_is_empty_in_the_end(make_watched, through):
    watched = make_watched(through=through)
    watched.put(4)
    worker = watched.start()
    worker.until(lambda: watched.sealed() >= watched.put_so_far)
    # The listing at the start is over: with a queue, only notifications can tell of these.
    for _ in range(3):
        watched.put(5)
        worker.until(lambda: watched.sealed() >= watched.put_so_far)
    if through:
        worker.until(lambda: watched.left_in_queue() == 0)
    watched.finish(worker)
    assert watched.chains() == ["watch-0001", "watch-0002"]


@pytest.mark.parametrize("point", POINTS)
def test_a_worker_that_is_killed_anywhere_leaves_nothing_unread_and_nothing_twice(make_watched, point):
    watched = make_watched()
    watched.put(3)
    worker = watched.start("--at", point)
    worker.until(lambda: "worker_started" in worker.said() or worker.ended() is not None)
    # As long as it lives: a worker that is slow claims at once what it would otherwise claim one after the other.
    worker.until(lambda: worker.ended() is not None or watched.put(1) is not None)
    assert worker.exit() == -9, worker.said()
    watched.put(3)
    watched.finish()


def test_two_workers_at_once_read_everything_once(make_watched):
    watched = make_watched()
    watched.put(10)
    workers = watched.start(), watched.start()
    for _ in range(4):
        watched.put(5)
    watched.finish(*workers)


def test_once_reads_what_is_there_and_ends_and_the_next_worker_continues(make_watched):
    watched = make_watched()
    watched.put(5)
    worker = watched.start("--once")
    assert worker.exit() == 0, worker.said()
    assert watched.rows()["id"].len() == watched.put_so_far
    watched.put(2)
    # The messages of the first objects are still there; what they name is known.
    watched.finish()


def test_an_object_that_is_deleted_before_it_is_read_is_a_recorded_gap_and_the_others_are_read(make_watched):
    watched = make_watched(through="")
    watched.put(4)
    frozen = watched.start("--at", "ObjectsClaimed:1", "--signal", "KILL")
    assert frozen.exit() == -9
    gone = watched.s3.list_objects_v2(Bucket=watched.bucket, Prefix="in/")["Contents"][1]["Key"]
    lost = json.loads(watched.s3.get_object(Bucket=watched.bucket, Key=gone)["Body"].read().splitlines()[0])["id"]
    watched.s3.delete_object(Bucket=watched.bucket, Key=gone)
    watched.put(1)
    worker = watched.start()
    worker.until(lambda: watched.sealed() >= watched.put_so_far - 3)
    assert worker.drain() == 0, worker.said()
    assert watched.rows()["id"].sort().to_list() == [number for number in range(watched.put_so_far) if not lost <= number < lost + 3]
    assert '"event":"records_expired"' in worker.said()
    kinds = [json.loads(path.read_text())["kind"] for path in (watched.folder / "state/watched/commits").rglob("0*.json")]
    assert kinds.count("gap") == 1
    (finding,) = watched.proof()
    assert (finding.check.value, finding.verdict.value) == ("chain", "unknown")
    assert int(finding.last) % 10**12 == 0


def test_where_gaps_are_not_admitted_the_shard_of_a_deleted_object_halts_and_the_others_continue(make_watched):
    watched = make_watched(through="")
    watched.watch += ", on_deleted: halt"
    watched.put(4)
    assert watched.start("--at", "ObjectsClaimed:1").exit() == -9
    gone = watched.s3.list_objects_v2(Bucket=watched.bucket, Prefix="in/")["Contents"][0]["Key"]
    watched.s3.delete_object(Bucket=watched.bucket, Key=gone)
    worker = watched.start()
    worker.until(lambda: "shard_halted" in worker.said() and watched.sealed() >= 3)
    worker.drain()
    assert "was deleted after it was chosen" in worker.said()


def keys_of(watched):
    return [entry["Key"] for entry in watched.s3.list_objects_v2(Bucket=watched.bucket, Prefix="in/")["Contents"]]


def test_an_object_that_is_overwritten_between_claim_and_reading_halts_its_shard_and_no_other(make_watched):
    watched = make_watched(through="")
    watched.put(4)
    assert watched.start("--at", "ObjectsClaimed:1").exit() == -9
    watched.s3.put_object(Bucket=watched.bucket, Key=keys_of(watched)[0], Body=b'{"id": 1000, "kind": "a"}\n')
    worker = watched.start()
    worker.until(lambda: "shard_halted" in worker.said() and "object_refused" in worker.said() and watched.sealed() >= 3)
    worker.drain()
    assert "is not the one that was listed" in worker.said()
    assert 1000 not in watched.rows()["id"]


def test_a_unit_that_was_begun_with_an_object_that_is_gone_halts_until_it_is_back(make_watched):
    watched = make_watched(through="")
    watched.put(4)
    worker = watched.start("--at", "IntentCreated:1")
    assert worker.exit() == -9, worker.said()
    begun = next(json.loads(path.read_text()) for path in (watched.folder / "state/watched/commits").rglob("0*.json"))
    claim = json.loads(next((watched.folder / "state/watched/claims").rglob("*.json")).read_text())
    first = claim["objects"][0 if begun["shard"] == "watch-0001" else claim["appended"][0][1]]["key"]
    body = watched.s3.get_object(Bucket=watched.bucket, Key=f"in/{first}")["Body"].read()
    watched.s3.delete_object(Bucket=watched.bucket, Key=f"in/{first}")
    worker = watched.start()
    worker.until(lambda: "shard_halted" in worker.said())
    worker.drain()
    assert "was deleted after it was chosen" in worker.said()
    # The same bytes have the same ETag, so it is the version that was claimed.
    watched.s3.put_object(Bucket=watched.bucket, Key=f"in/{first}", Body=body)
    watched.finish()


def test_an_object_that_halts_its_shard_is_given_up_by_deleting_it(make_watched):
    watched = make_watched(through="")
    watched.watch += ", on_unreadable: halt"
    watched.s3.put_object(Bucket=watched.bucket, Key="in/broken.json.gz", Body=b"\x1f\x8b is no gzip")
    worker = watched.start()
    worker.until(lambda: "shard_halted" in worker.said())
    worker.drain()
    assert "cannot be read as" in worker.said()
    watched.s3.delete_object(Bucket=watched.bucket, Key="in/broken.json.gz")
    watched.put(4)
    worker = watched.start()
    worker.until(lambda: watched.sealed() >= watched.put_so_far)
    assert worker.drain() == 0, worker.said()
    assert watched.rows()["id"].sort().to_list() == list(range(watched.put_so_far))
    assert "records_expired" in worker.said()


def test_what_was_read_and_then_deleted_is_unknown_to_the_proof_and_nothing_else_is(make_watched):
    watched = make_watched(through="")
    watched.put(6)
    watched.finish()
    first = watched.s3.list_objects_v2(Bucket=watched.bucket, Prefix="in/")["Contents"][0]["Key"]
    watched.s3.delete_object(Bucket=watched.bucket, Key=first)
    findings = watched.proof()
    assert [finding.verdict.value for finding in findings] == ["unknown"]
    assert "deleted since they were read" in findings[0].message


def refuses_listing(asked):
    """What S3 answers to a role that may not list any more."""
    return DENIED if asked.method == "GET" and asked.key == "" else None


def refuses_heads(asked):
    return DENIED if asked.method == "HEAD" and asked.key.startswith("in/") else None


@pytest.mark.parametrize(
    ("through", "rule", "said"),
    [("", refuses_listing, "list objects"), ("sqs", refuses_heads, "claim objects that messages name")],
    ids=["listing", "notifications"],
)
def test_while_access_to_what_finds_objects_is_refused_the_worker_says_so_and_then_goes_on_by_itself(
    make_watched, s3_url, through, rule, said
):
    watched = make_watched(through=through)
    watched.watch = watched.watch.replace("every: 1h", "every: 1s")  # messages come again, but only after a minute
    with gateway(s3_url) as (url, gate):
        watched.environment = {**watched.environment, "AWS_ENDPOINT_URL_S3": url}
        watched.put(4)
        worker = watched.start()
        worker.until(lambda: watched.sealed() >= watched.put_so_far)
        gate.rules.append(rule)
        watched.put(4)
        worker.until(lambda: worker.said().count('"event":"shard_halted"') >= 2)
        halted = [json.loads(line) for line in worker.said().splitlines() if '"event":"shard_halted"' in line]
        assert {line.get("shard", "") for line in halted} == {""}
        assert all(said in line["reason"] and "goes on by itself" in line["reason"] for line in halted)
        note = watched.folder / "state/watched/halts/arrivals/stream.json"
        worker.until(note.exists)
        gate.rules.clear()
        watched.put(1)
        worker.until(lambda: watched.sealed() >= watched.put_so_far)
        worker.until(lambda: '"event":"stream_resumed"' in worker.said())
        worker.until(lambda: not note.exists())
        watched.finish(worker)
