"""A stream that is deleted and created again under its name: its shard ids are those that the log already has."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from itertools import count

import pytest
from typer.testing import CliRunner

from stream import events
from stream.cli.main import app
from stream.commit.manifest import Kind
from stream.errors import Fatal
from tests.integration.stage import Stage, sealed
from tests.integration.test_complete import ask, states

_NUMBERS = count(1)
LEASES = """
coordination: {{native: {{table: "leases-recreated-{number}", failover: 3s, look: 300ms, endpoint: "{url}", region: us-east-1}}}}
"""


@pytest.fixture
def leases(stage: Stage, moto_url: str) -> None:
    """Make the stage's workers share shards by leases."""
    stage.more = LEASES.format(number=next(_NUMBERS), url=moto_url)


def create_again(stage: Stage, shards: int = 1) -> None:
    """Delete the stream and create it again; the test's clock decides how long each step takes."""
    stage.client.delete_stream(StreamName="numbers")
    stage.clock.ahead += timedelta(minutes=1)
    stage.client.create_stream(StreamName="numbers", ShardCount=shards)
    stage.clock.ahead += timedelta(minutes=1)


def read_to_the_end_of_a_shard(stage: Stage, records: int) -> None:
    """Split a shard and read it to its end; the two children are begun."""
    stage.put(range(records))
    stage.client.split_shard(StreamName="numbers", ShardToSplit=stage.shard, NewStartingHashKey=str(2**127))
    stage.clock.ahead += timedelta(minutes=1)
    begun: set[str] = set()

    def all_begun(event: events.Event) -> bool:
        if isinstance(event, events.ShardStarted):
            begun.add(event.shard)
        return len(begun) == 3

    stage.work(all_begun)


def halted_or_looked(times: int) -> Callable[[events.Event], bool]:
    """A condition that holds once a shard has halted, or the leases have been listed that many times without it."""
    looks = count(1)
    return lambda event: isinstance(event, events.ShardHalted) or (isinstance(event, events.LeasesScanned) and next(looks) >= times)


@pytest.mark.parametrize("records", [3, 0])
def test_a_recreated_shard_whose_id_had_ended_halts_and_is_not_skipped(stage: Stage, records: int) -> None:
    read_to_the_end_of_a_shard(stage, records)
    create_again(stage)
    stage.put(range(10, 15))

    with pytest.raises(Fatal, match=r"numbers/shardId-000000000000 has been read to its end.*Use another application name"):
        stage.work(lambda event: isinstance(event, events.ShardEnded))

    code, found = ask(stage)
    assert (code, states(found)["0"]) == (1, "gone")


@pytest.mark.usefixtures("leases")
def test_a_recreated_shard_whose_lease_says_ended_halts_too(stage: Stage) -> None:
    """The new stream has shards with all three ids, and nothing was read of a child of the old shard, so its row would still be needed."""
    read_to_the_end_of_a_shard(stage, 3)
    create_again(stage, 3)
    stage.put(range(10, 15))
    for _ in range(2):
        with pytest.raises(Fatal, match=r"numbers/shardId-000000000000 has been read to its end.*Use another application name"):
            stage.work(halted_or_looked(20))


def test_an_ended_shard_stays_ended_while_the_stream_is_the_same(stage: Stage) -> None:
    read_to_the_end_of_a_shard(stage, 3)
    heard = stage.work(lambda event: isinstance(event, events.ShardEnded))
    assert not [event for event in heard if isinstance(event, events.ShardHalted)]


def test_an_open_shard_continues_in_the_recreated_stream_after_a_gap(stage: Stage) -> None:
    stage.put(range(3))
    stage.work(sealed(3))
    create_again(stage)
    stage.put(range(10, 15))

    stage.work(sealed(5))

    assert [(manifest.kind, manifest.records) for manifest in stage.manifests()] == [(Kind.UNIT, 3), (Kind.GAP, 0), (Kind.UNIT, 5)]


def test_what_was_sealed_of_the_former_stream_is_not_missed_in_the_new_one(stage: Stage) -> None:
    stage.put(range(3))
    stage.work(sealed(3))
    create_again(stage)
    stage.put(range(10, 15))
    stage.work(sealed(5))
    result = CliRunner().invoke(app, ["audit", "verify", str(stage.folder / "pipeline.yaml"), "--json"])
    report = json.loads(result.stdout)
    assert [(each["check"], each["verdict"]) for each in report["findings"]] == [("source", "unknown"), ("chain", "unknown")]
