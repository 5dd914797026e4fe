"""Records that expire in the stream before they are read: a complete worker against the emulator, with a clock that the test moves."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from typer.testing import CliRunner

from stream import events
from stream.cli.main import app
from stream.commit.manifest import Kind
from stream.contracts import Shard
from stream.errors import Fatal
from stream.metrics.catalog import BEHIND_LATEST
from stream.metrics.recorder import Recorder
from stream.worker.sources.reading import Reading
from tests.integration.stage import PIPELINE, Stage, sealed


def test_a_gap_is_recorded_and_reading_continues_after_it(stage: Stage) -> None:
    stage.put(range(5))
    stage.work(sealed(5))
    stage.put(range(5, 8))
    stage.clock.ahead = timedelta(hours=30)
    stage.put(range(8, 12))

    heard = stage.work(sealed(4))

    assert [type(event) for event in heard if isinstance(event, events.RecordsExpired)] == [events.RecordsExpired]
    kinds = [(manifest.kind, manifest.records) for manifest in stage.manifests()]
    assert kinds == [(Kind.UNIT, 5), (Kind.GAP, 0), (Kind.UNIT, 4)]
    verdict = CliRunner().invoke(app, ["audit", "verify", "--no-source", str(stage.folder / "pipeline.yaml")])
    assert verdict.exit_code == 2, verdict.output
    assert "expired in the stream before they were read" in verdict.output
    runbook = CliRunner().invoke(app, ["audit", "verify", str(stage.folder / "pipeline.yaml"), "--names-only", "--no-source"])
    (gap,) = [manifest for manifest in stage.manifests() if manifest.kind is Kind.GAP]
    assert f"unknown chain {gap.shard} ({gap.after}, {gap.last}]" in runbook.output
    assert all(left.last == right.after for left, right in zip(stage.manifests(), stage.manifests()[1:], strict=False))


def test_a_worker_that_starts_at_a_recorded_gap_continues_after_it(stage: Stage) -> None:
    stage.put(range(5))
    stage.work(sealed(5))
    stage.clock.ahead = timedelta(hours=30)
    stage.put(range(8, 12))
    stage.work(lambda event: isinstance(event, events.RecordsExpired))

    heard = stage.work(lambda event: sealed(4)(event) or len(stage.manifests()) > 2)

    assert not [event for event in heard if isinstance(event, events.RecordsExpired)]
    assert sum(manifest.records for manifest in stage.manifests()) == 9


def test_records_that_expire_between_two_pages_become_a_gap_and_buffered_ones_are_sealed(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.integration.stage.PIPELINE", PIPELINE.replace("100ms", "10m"))
    for n in range(14):
        stage.client.put_record(StreamName="numbers", Data=json.dumps({"n": n, "pad": "x" * 1_000_000}).encode(), PartitionKey="k")
    stage.clock.ahead = timedelta(hours=23, minutes=58)
    read: list[int] = []

    def until(event: events.Event) -> bool:
        if isinstance(event, events.PageReceived) and event.records:
            read.append(event.records)
            if len(read) == 1:
                stage.clock.ahead = timedelta(hours=30)
                stage.put(range(100, 103))
        return len(stage.manifests()) > 1 and len(read) > 2

    heard = stage.work(until)

    assert read[0] < 14
    assert len([event for event in heard if isinstance(event, events.RecordsExpired)]) == 1
    kinds = [(manifest.kind, manifest.records) for manifest in stage.manifests()]
    assert kinds == [(Kind.UNIT, read[0]), (Kind.GAP, 0), (Kind.UNIT, 3)]


class Closed:
    """Behaves as somebody who takes the right to write to the sink away after the first unit, and comes back after a day and a quarter."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._lake = stage.folder / "lake"
        (stage.folder / "open").mkdir()
        self._lake.symlink_to(stage.folder / "open")
        self._registry = CollectorRegistry()
        self._recorder = Recorder(self._registry, stage.clock)
        self._halts = 0
        self.shown: list[float | None] = []
        """The lag that the metrics show each time that the shard has halted."""

    def __call__(self, event: events.Event) -> bool:
        self._recorder(event)
        match event:
            case events.UnitSealed(after=0):
                self._lead_to("/sys/kernel")
                self._stage.put(range(5, 8))
            case events.ShardHalted():
                self.shown.append(self._registry.get_sample_value(BEHIND_LATEST.name, {"stream": "numbers", "shard": Stage.shard}))
                self._halts += 1
                if self._halts == 2:
                    self._stage.clock.ahead = timedelta(hours=23)
                if self._halts == 3:
                    self._stage.clock.ahead = timedelta(hours=30)
                    self._stage.put(range(8, 12))
            case events.RecordsExpired():
                self._lead_to(self._stage.folder / "open")
            case _:
                pass
        return sealed(4)(event) and not sealed(5)(event)

    def _lead_to(self, place: Path | str) -> None:
        self._lake.unlink()
        self._lake.symlink_to(place)


def test_records_that_expire_while_their_shard_is_halted_show_before_and_become_a_gap(stage: Stage) -> None:
    """Nobody can write to the folder of the system's kernel, not even root."""
    closed = Closed(stage)
    stage.put(range(5))

    heard = stage.work(closed)

    first, second, third, *_ = closed.shown
    assert first is not None
    assert second is not None
    assert third is not None
    assert first < 3600
    assert second < 3600
    assert 22 * 3600 < third < 24 * 3600
    assert [event.reason for event in heard if isinstance(event, events.RecordsExpired)]
    kinds = [(manifest.kind, manifest.records, dict(manifest.outcomes)) for manifest in stage.manifests()]
    assert kinds[:2] == [(Kind.UNIT, 5, {"written": 5}), (Kind.GAP, 3, {"expired_gap": 3})]
    # That nothing else has expired, no response of the service says.
    assert kinds[2:] == [(Kind.GAP, 0, {"expired_gap": 0}), (Kind.UNIT, 4, {"written": 4})]


def test_the_shard_halts_with_on_expired_halt(stage: Stage) -> None:
    stage.put(range(5))
    stage.work(sealed(5))
    stage.put(range(5, 8))
    stage.clock.ahead = timedelta(hours=30)
    stage.put(range(8, 12))

    with pytest.raises(Fatal, match=r"reading cannot continue after .* keeps records for 24 hours: .*on_expired: gap"):
        stage.work(sealed(4), on_expired="halt")

    assert [manifest.kind for manifest in stage.manifests()] == [Kind.UNIT]


def test_a_quiet_shard_whose_last_record_expired_has_no_gap(stage: Stage) -> None:
    stage.put(range(5))
    stage.work(sealed(5))
    stage.clock.ahead = timedelta(hours=20)
    polls = 0

    def tip_noted(event: events.Event) -> bool:
        nonlocal polls
        polls += isinstance(event, events.PageReceived)
        return polls > 2

    stage.work(tip_noted)
    stage.clock.ahead = timedelta(hours=40)
    stage.put(range(5, 9))

    heard = stage.work(sealed(4))

    assert not [event for event in heard if isinstance(event, events.RecordsExpired)]
    assert [manifest.kind for manifest in stage.manifests()] == [Kind.UNIT, Kind.UNIT]


@pytest.mark.parametrize("before", [0, 5])
@pytest.mark.parametrize("behind", [0, 4])
def test_an_intent_whose_records_all_expired_becomes_a_gap(stage: Stage, before: int, behind: int) -> None:
    if before:
        stage.put(range(before))
        stage.work(sealed(before))
    stage.put(range(before, before + 3))
    stage.work(sealed(3))
    stage.unseal_last()
    stage.clock.ahead = timedelta(hours=30)
    stage.put(range(20, 20 + behind))

    heard = stage.work(sealed(behind) if behind else lambda event: isinstance(event, events.ManifestSealed))

    assert [event for event in heard if isinstance(event, events.RecordsExpired)]
    kinds = [(manifest.kind, manifest.records, dict(manifest.outcomes)) for manifest in stage.manifests()][bool(before) :]
    assert kinds[0] == (Kind.GAP, 3, {"expired_gap": 3})
    if behind:
        assert (kinds[-1][0], kinds[-1][1]) == (Kind.UNIT, behind)


def test_an_intent_whose_records_expired_halts_with_on_expired_halt(stage: Stage) -> None:
    stage.put(range(3))
    stage.work(sealed(3))
    stage.unseal_last()
    stage.clock.ahead = timedelta(hours=30)
    stage.put(range(8, 12))

    with pytest.raises(Fatal, match=r"3 records .*the stream gives 0 .*on_expired: gap"):
        stage.work(sealed(4), on_expired="halt")


def test_a_worker_that_waits_for_the_end_of_a_gap_drains_at_once(stage: Stage) -> None:
    stage.put(range(5))
    stage.work(sealed(5))
    stage.client.delete_stream(StreamName="numbers")
    stage.client.create_stream(StreamName="numbers", ShardCount=1)

    heard = stage.work(lambda event: isinstance(event, events.PageReceived))

    assert sum(isinstance(event, events.ShardStarted) for event in heard) == 2
    assert [manifest.kind for manifest in stage.manifests()] == [Kind.UNIT]


def test_a_run_with_once_does_not_wait_for_the_end_of_a_gap(stage: Stage) -> None:
    stage.put(range(5))
    stage.work(sealed(5))
    stage.client.delete_stream(StreamName="numbers")
    stage.client.create_stream(StreamName="numbers", ShardCount=1)

    heard = stage.work(lambda _event: False, reading=Reading(once=True))

    assert sum(isinstance(event, events.ShardStarted) for event in heard) == 2
    assert [manifest.kind for manifest in stage.manifests()] == [Kind.UNIT]


def test_a_leased_shard_that_the_service_no_longer_knows_is_ended(stage: Stage) -> None:
    """Its lease still exists: reading had stopped for longer than the retention period, and the stream was resharded meanwhile."""
    children = stage.run_one(Shard("numbers", "shardId-000000000007"))

    assert children == ()
    (end,) = stage.manifests()
    assert (end.kind, end.trigger) == (Kind.END, "expired")
