# ruff: noqa: S608 - the names of tables are our own
"""A function whose rows go to Redshift: invocations for records seal them, and scheduled ones load them, in the time that they have."""

import asyncio
import json
from functools import partial

import pytest

from stream import events
from stream.local.kinesis.server import running
from tests.chaos.conftest import client
from tests.forked import PATIENCE
from tests.invocations import delivery, held, with_environments
from tests.redshift.conftest import KEYS
from tests.redshift.faults import Once
from tests.runtime_api import RuntimeApi, Sandbox

PIPELINE = """\
application: function
source:
  kinesis: {{stream: events}}
  schema: {{n: int64, word: string}}
sinks:
  - redshift:
      staging: s3://{bucket}/staging/
      table: {table}
      database: dev
      cluster: main
      db_user: loader
      iam_role: default
      every: 5s
rejects: {{min_records: 100000}}
state: s3://{bucket}/state/
"""
SHARDS = ("shardId-000000000000", "shardId-000000000001")
SCHEDULED = {"version": "0", "detail-type": "Scheduled Event", "source": "aws.events", "resources": [], "detail": {}}


class Place:
    """A stream, and the table that its records go to."""

    def __init__(self, world, url, client, folder):
        self.world = world
        self.client = client
        self.environment = {
            **KEYS,
            **world.environment(),
            "AWS_ENDPOINT_URL_KINESIS": url,
            "AWS_ENDPOINT_URL_S3": world.s3.meta.endpoint_url,
        }
        self.folder = folder
        self.file = folder / "pipeline.yaml"
        self.file.write_text(PIPELINE.format(bucket=world.bucket, table=world.table))
        self.put_so_far = 0

    def put(self, count):
        """``count`` records, of which one in fifty has a word that Redshift cannot hold."""
        words = [(n, "bad\0" if n % 50 == 0 else f"w{n}") for n in range(self.put_so_far, self.put_so_far + count)]
        entries = [{"Data": json.dumps({"n": n, "word": word}).encode(), "PartitionKey": f"k{n}"} for n, word in words]
        assert self.client.put_records(StreamName="events", Records=entries)["FailedRecordCount"] == 0
        self.put_so_far += count

    def delivered(self):
        """What a mapping delivers for each shard."""
        return [delivery("events", shard, found) for shard in SHARDS if (found := held(self.client, "events", shard))]

    async def seal(self, environment):
        for each in self.delivered():
            assert await environment.deliver(each) is None

    def loaded(self):
        there = self.world.query(f"SELECT to_regclass('{self.world.table}') IS NOT NULL")[0][0]
        return [row[0] for row in self.world.query(f'SELECT n FROM "{self.world.table}" ORDER BY n')] if there else []

    def expected(self):
        return [n for n in range(self.put_so_far) if n % 50]


@pytest.fixture
def place(world, tmp_path, monkeypatch):
    with running() as server:
        kinesis = client("kinesis", server.url)
        kinesis.create_stream(StreamName="events", ShardCount=2)
        made = Place(world, server.url, kinesis, tmp_path)
        for name, value in made.environment.items():
            monkeypatch.setenv(name, value)
        yield made
        kinesis.close()


def test_invocations_seal_and_a_schedule_loads_each_row_once(place, redshift):
    async def body(make):
        environment = make(place.file, place.environment)
        for _ in range(3):
            place.put(120)
            await place.seal(environment)
            assert not environment.of(events.UnitsLoaded)
            assert await environment.function.catch_up(60.0) == []
            assert await asyncio.to_thread(place.loaded) == place.expected()
            assert await environment.function.catch_up(60.0) == []
            environment.events.clear()

    with_environments(body)
    assert place.loaded() == place.expected()


def test_a_schedule_seals_what_no_invocation_was_given_and_loads_it(place):
    place.put(120)

    async def body(make):
        return await make(place.file, place.environment).function.catch_up(60.0)

    assert with_environments(body) == []
    assert place.loaded() == place.expected()


def test_a_load_that_outlasts_its_invocation_is_not_done_twice(place, redshift):
    """The statement goes on in Redshift; the next invocation reads in the load ledger that it was."""
    place.put(200)
    waiting, released = asyncio.Event(), asyncio.Event()
    loops = []

    async def wait():
        loops.append(asyncio.get_running_loop())
        waiting.set()
        await released.wait()
        return ""

    async def body(make):
        first = make(place.file, place.environment)
        await place.seal(first)
        redshift.hook = Once("commit:before", wait)
        (left,) = await first.function.catch_up(6.0)
        assert waiting.is_set()
        assert await asyncio.to_thread(place.loaded) == []
        loops[0].call_soon_threadsafe(released.set)
        assert await make(place.file, place.environment).function.catch_up(90.0) == []
        assert await first.function.catch_up(60.0) == []
        return left

    assert with_environments(body) == "redshift: the time was over before all was loaded"
    assert place.loaded() == place.expected()


@pytest.mark.parametrize("point", ["BatchExecuteStatement:begin", "commit:before", "commit:after"])
def test_a_function_that_is_stopped_by_force_while_it_loads_leaves_the_rest_to_the_next(place, redshift, point):
    """Under AWS's own runtime client: the process is killed at a point of the load, as Lambda does at the end of the time."""
    place.put(200)
    with RuntimeApi() as api, Sandbox(api, place.folder, place.environment, place.folder / "first.log") as sandbox:
        redshift.hook = fault = Once(point, partial(_kill, sandbox))
        sandbox.begin(SCHEDULED)
        assert fault.happened.wait(PATIENCE)
        sandbox.process.wait(PATIENCE)
    with RuntimeApi(seconds=120.0) as api, Sandbox(api, place.folder, place.environment, place.folder / "second.log") as sandbox:
        assert sandbox.invoke(SCHEDULED).body == {"left": []}
        assert sandbox.invoke(SCHEDULED).body == {"left": []}
    assert place.loaded() == place.expected()


def _kill(sandbox):
    sandbox.process.kill()
    return ""
