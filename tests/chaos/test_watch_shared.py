"""Workers that share the shards of a watched source by leases: they join, drain, die and freeze, and every object is read once."""

from __future__ import annotations

import json
import signal
from contextlib import ExitStack

import pytest
from typer.testing import CliRunner

from stream.cli.main import app
from tests.chaos.conftest import client
from tests.chaos.gateway import gateway
from tests.chaos.test_watch import PIPELINE, Watched, make_watched, refuses_listing  # noqa: F401 - the fixture

NATIVE = 'coordination: {{native: {{table: "{table}", failover: {failover}, look: 300ms, region: us-east-1, endpoint: "{url}"}}}}\n'


class Shared:
    """A watched bucket, and the lease table of the workers that share its shards.

    With a longer ``failover``, no lease changes hands because the machine stood still for a few seconds.
    """

    def __init__(self, watched, url, shards, failover):
        self.watched, self.url, self.shards, self.failover = watched, url, shards, failover
        self.table = f"leases-{watched.bucket}"
        self.dynamo = client("dynamodb", url)
        watched.file = self.file

    def file(self):
        watched, path = self.watched, self.watched.folder / "watched.yaml"
        text = PIPELINE.format(bucket=watched.bucket, shards=self.shards, watch=watched.watch)
        path.write_text(text + NATIVE.format(table=self.table, url=self.url, failover=self.failover))
        return path

    def join(self, *options):
        worker = self.watched.start(*options)
        worker.until(lambda: '"event":"worker_started"' in worker.said())
        return worker

    def owners(self):
        rows = self.dynamo.scan(TableName=self.table, ConsistentRead=True)["Items"]
        return {row["leaseKey"]["S"]: row.get("leaseOwner", {}).get("S") for row in rows}

    def held_by(self, worker):
        return {shard for shard, owner in self.owners().items() if owner is not None and f"/{worker.pid}-" in owner}

    def read_by(self, worker):
        """The shards of which this worker has sealed units."""
        reported = [json.loads(line) for line in worker.said().splitlines() if '"event":"unit_sealed"' in line]
        return {each["shard"] for each in reported}

    def command(self, *arguments):
        result = CliRunner().invoke(app, [*arguments])
        return result.exit_code, result.output

    def listed(self):
        """The leases as `stream leases ls` shows them."""
        code, listed = self.command("leases", "ls", str(self.file()), "--json")
        assert code == 0, listed
        return json.loads(listed)


@pytest.fixture
def make_shared(make_watched, s3_url):  # noqa: F811 - the fixture
    made = []

    def make(shards=4, failover="3s", **options):
        made.append(Shared(make_watched(**options), s3_url, shards, failover))
        return made[-1]

    yield make
    for each in made:
        each.dynamo.close()


@pytest.mark.parametrize("through", ["sqs", ""])
def test_workers_share_the_shards_and_hand_them_over_at_once(make_shared, through):
    shared = make_shared(through=through)
    watched = shared.watched
    watched.put(4)
    first = shared.join()
    second = shared.join()
    first.until(lambda: len(shared.held_by(first)) == 2 and len(shared.held_by(second)) == 2)
    for _ in range(3):
        watched.put(8)
        first.until(lambda: watched.sealed() >= watched.put_so_far)
    second.until(lambda: shared.read_by(second) != set())
    # A checkpoint follows its seal.
    first.until(lambda: {each["behind_seconds"] for each in shared.listed()} == {0.0})
    assert {(each["shard"], each["owner"]) for each in shared.listed()} == set(shared.owners().items())
    assert first.drain() == 0, first.said()
    # Nothing has to expire: the leases are free.
    second.until(lambda: len(shared.held_by(second)) == 4)
    watched.put(8)
    second.until(lambda: watched.sealed() >= watched.put_so_far)
    if through:
        second.until(lambda: watched.left_in_queue() == 0)
    watched.finish(second)
    assert watched.chains() == [f"watch-000{number}" for number in range(1, 5)]
    assert set(shared.owners().values()) == {None}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_the_shards_of_a_worker_that_is_killed_or_frozen_are_taken_over(make_shared, number):
    shared = make_shared(through="")
    watched = shared.watched
    first, second = shared.join(), shared.join()
    first.until(lambda: len(shared.held_by(first)) == 2 and len(shared.held_by(second)) == 2)
    watched.put(6)
    first.until(lambda: watched.sealed() >= watched.put_so_far)
    first.signal(number)
    watched.put(10)
    # Whichever of the two was to list objects: these are found and read.
    second.until(lambda: watched.sealed() >= watched.put_so_far)
    second.until(lambda: len(shared.held_by(second)) == 4)
    if number == signal.SIGSTOP:
        first.signal(signal.SIGCONT)
        watched.put(4)
        first.until(lambda: watched.sealed() >= watched.put_so_far and '"why":"lease_lost"' in first.said())
        watched.finish(first, second)
    else:
        watched.finish(second)


def test_what_a_run_without_watch_left_unfinished_is_shared_too(make_shared):
    shared = make_shared(through="", shards=2)
    watched = shared.watched
    watched.put(6)
    before = PIPELINE.format(bucket=watched.bucket, shards=2, watch="").replace(", watch: {}", "")
    watched.file = lambda: write(watched.folder / "once.yaml", before)
    assert watched.start("--at", "IntentCreated:1").exit() == -9
    watched.file = shared.file
    first, second = shared.join(), shared.join()
    watched.put(4)
    first.until(lambda: watched.sealed() >= watched.put_so_far)
    assert watched.chains() == ["objects-000001-0001", "objects-000001-0002", "watch-0001", "watch-0002"]
    # What has ended needs no lease for long.
    first.until(lambda: set(shared.owners()) == {"watch-0001", "watch-0002"})
    watched.finish(first, second)


def write(path, text):
    path.write_text(text)
    return path


def test_a_shard_that_is_paused_is_left_alone_and_the_others_continue(make_shared):
    shared = make_shared(through="", shards=2)
    watched = shared.watched
    assert shared.command("pause", str(shared.file()), "watch-0001", "--note", "maintenance")[0] == 0
    worker = shared.join()
    watched.put(8)
    worker.until(lambda: shared.read_by(worker) == {"watch-0002"} and '"event":"shard_paused"' in worker.said())
    assert shared.command("resume", str(shared.file()), "watch-0001", "--note", "done")[0] == 0
    worker.until(lambda: watched.sealed() >= watched.put_so_far)
    watched.finish(worker)


@pytest.fixture
def gates(s3_url):
    """Two ways to S3: one for each worker."""
    with ExitStack() as stack:
        yield [stack.enter_context(gateway(s3_url)) for _ in range(2)]


def join_through(shared, url):
    shared.watched.environment = {**shared.watched.environment, "AWS_ENDPOINT_URL_S3": url}
    return shared.join()


def barred(shared):
    """The workers that say in a row of a lease that they may not list."""
    rows = shared.dynamo.scan(TableName=shared.table, ConsistentRead=True)["Items"]
    return {row["sxUnlisted"]["S"] for row in rows if "sxUnlisted" in row and row["sxUnlisted"] == row.get("leaseOwner")}


def lister(shared):
    return json.loads(shared.command("status", str(shared.file()), "--json")[1])["streams"][0]["objects"]["lister"]


def test_if_the_worker_that_lists_may_not_any_more_one_that_may_does_and_keeps_it(make_shared, gates):
    shared = make_shared(through="", failover="5s")
    watched = shared.watched
    workers = [join_through(shared, url) for url, _ in gates]
    workers[0].until(lambda: all(len(shared.held_by(worker)) == 2 for worker in workers))
    at = next(number for number, worker in enumerate(workers) if f"/{worker.pid}-" in lister(shared))
    (first, (_, gate)), second = (workers[at], gates[at]), workers[1 - at]
    watched.put(4)
    first.until(lambda: watched.sealed() >= watched.put_so_far)
    gate.rules.append(refuses_listing)
    watched.put(8)
    second.until(lambda: watched.sealed() >= watched.put_so_far)
    assert {name.split("/")[1].split("-")[0] for name in barred(shared)} == {str(first.pid)}
    assert f"/{second.pid}-" in lister(shared)
    assert len(shared.held_by(first)) == 2, "its shards, of which nothing is wrong, have moved"
    first.until(lambda: '"event":"stream_resumed"' in first.said())
    # It sees for itself when it may list again, and is the first in line then.
    gate.rules.clear()
    first.until(lambda: not barred(shared))
    assert f"/{first.pid}-" in lister(shared)
    watched.put(4)
    watched.finish(*workers)


def test_if_no_worker_may_list_everything_stays_where_it_is_until_one_may(make_shared, gates):
    shared = make_shared(through="", failover="5s")
    watched = shared.watched
    workers = [join_through(shared, url) for url, _ in gates]
    workers[0].until(lambda: all(len(shared.held_by(worker)) == 2 for worker in workers))
    owners, listed_by = shared.owners(), lister(shared)
    for _, gate in gates:
        gate.rules.append(refuses_listing)
    watched.put(8)
    workers[0].until(lambda: len(barred(shared)) == 2)
    assert (shared.owners(), lister(shared)) == (owners, listed_by)
    at = next(number for number, worker in enumerate(workers) if f"/{worker.pid}-" not in listed_by)
    gates[at][1].rules.clear()
    workers[at].until(lambda: watched.sealed() >= watched.put_so_far)
    assert shared.owners() == owners
    assert f"/{workers[at].pid}-" in lister(shared)
    watched.finish(*workers)
