"""A log is of one stream: deployments in two accounts, whose streams have one name and which share a state, do not both write to it."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import boto3
import msgspec
import pytest
from typer.testing import CliRunner

from stream import events
from stream.aws.session import AwsSession
from stream.cli.main import app
from stream.commit.identity import DamagedPin, Pin, identity_key
from stream.commit.manifest import Kind
from stream.errors import DefinitionError, Fatal, OtherStream
from stream.local.kinesis.server import running
from stream.operations.doctor.probes import probes
from stream.pipeline.checks.lint import check
from stream.storage.open import open_store
from stream.worker.halts.note import WHOLE_STREAM
from stream.worker.halts.notes import folder_of, read_halts
from stream.worker.objects.slices import Window
from stream.worker.opening.places import session_of
from stream.worker.sources.reading import Reading
from tests.clocks import ShiftedClock
from tests.integration import stage
from tests.integration.stage import Stage, sealed
from tests.integration.test_recreated import create_again

OURS, THEIRS, REGION = "111122223333", "444455556666", "us-east-1"
REFUSED = (
    rf"is of another stream than the `numbers`.*kinesis:{REGION}:{OURS}:stream/numbers, created at .*Found here: .*:{THEIRS}:stream/numbers"
)


class Deployments(Stage):
    """Two accounts, each with a stream called `numbers`, and one state; ``use`` says whose credentials are used from then on."""

    def __init__(self, url: str, clock: ShiftedClock, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        keys = {"aws_secret_access_key": "test", "region_name": REGION}
        ours, self.other = (boto3.client("kinesis", endpoint_url=url, aws_access_key_id=each, **keys) for each in (OURS, THEIRS))
        super().__init__(ours, url, clock, folder)
        self.other.create_stream(StreamName="numbers", ShardCount=2)
        self.use(OURS)

    def use(self, account: str) -> None:
        self._monkeypatch.setenv("AWS_ACCESS_KEY_ID", account)

    def put_into_other(self, numbers: range) -> None:
        for n in numbers:
            self.other.put_record(StreamName="numbers", Data=json.dumps({"n": n}).encode(), PartitionKey="k")

    def ask(self, *words: str) -> Any:
        return CliRunner().invoke(app, [*words[:-1], str(self.folder / "pipeline.yaml"), words[-1]], env={"COLUMNS": "1000"})

    @property
    def pin_file(self) -> Path:
        return self.folder / "state/app" / identity_key("numbers")

    @property
    def pin(self) -> Pin:
        return msgspec.json.decode(self.pin_file.read_bytes(), type=Pin)

    def contents(self) -> dict[str, bytes]:
        """The log and the lake, file by file."""
        places = [self.folder / "state/app" / name for name in ("commits", "checkpoints", "starts", "identities")] + [self.folder / "lake"]
        return {str(file): file.read_bytes() for place in places for file in place.rglob("*") if file.is_file()}


@pytest.fixture
def deployments(tmp_path: Path, aws_keys: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployments]:
    clock = ShiftedClock()
    with running(clock=clock) as emulator:
        made = Deployments(emulator.url, clock, tmp_path, monkeypatch)
        yield made
        made.client.close()
        made.other.close()


def at_once(_: events.Event) -> bool:
    return True


@pytest.mark.parametrize("kind", ["live", "once", "backfill"])
def test_a_second_deployment_in_another_account_is_refused_and_changes_nothing(deployments: Deployments, kind: str) -> None:
    deployments.put(range(3))
    deployments.work(sealed(3))
    before = deployments.contents()
    deployments.put_into_other(range(10, 15))
    deployments.use(THEIRS)
    now = deployments.clock.now()
    window = Window(now - timedelta(hours=2), now - timedelta(hours=1))
    reading = {"live": Reading(), "once": Reading(once=True), "backfill": Reading(window=window, disjoint=True)}[kind]

    with pytest.raises(Fatal, match=REFUSED):
        deployments.work(lambda event: isinstance(event, events.UnitSealed), reading=reading)

    assert deployments.contents() == before
    deployments.use(OURS)
    deployments.put(range(3, 5))
    deployments.work(sealed(2))
    assert [(manifest.kind, manifest.records) for manifest in deployments.manifests()] == [(Kind.UNIT, 3), (Kind.UNIT, 2)]


def test_a_log_without_a_pin_is_pinned_by_the_next_worker(deployments: Deployments) -> None:
    deployments.put(range(3))
    deployments.work(sealed(3))
    first = deployments.pin
    assert first.arn == f"arn:aws:kinesis:{REGION}:{OURS}:stream/numbers"
    deployments.pin_file.unlink()

    deployments.put(range(3, 5))
    deployments.work(sealed(2))

    assert (deployments.pin.arn, deployments.pin.created, deployments.pin.former) == (first.arn, first.created, ())
    assert [manifest.records for manifest in deployments.manifests()] == [3, 2]


def test_deleting_the_pin_hands_the_log_over_on_purpose(deployments: Deployments) -> None:
    deployments.put(range(3))
    deployments.work(sealed(3))
    deployments.put_into_other(range(10, 15))
    deployments.use(THEIRS)
    deployments.pin_file.unlink()
    deployments.work(sealed(5))
    deployments.use(OURS)
    with pytest.raises(Fatal, match=rf"Of the log: arn:aws:kinesis:{REGION}:{THEIRS}:.*Found here: arn:aws:kinesis:{REGION}:{OURS}:"):
        deployments.work(at_once)


def test_of_two_streams_the_one_of_another_account_is_halted_and_the_other_read(
    deployments: Deployments, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployments.put(range(3))
    deployments.work(sealed(3))
    before = {name: body for name, body in deployments.contents().items() if "lake" not in name}
    deployments.other.create_stream(StreamName="letters", ShardCount=1)
    deployments.other.put_record(StreamName="letters", Data=b'{"n": 7}', PartitionKey="k")
    deployments.put_into_other(range(10, 15))
    deployments.use(THEIRS)
    monkeypatch.setattr(stage, "PIPELINE", stage.PIPELINE.replace("stream: numbers", "streams: [numbers, letters]"))
    seen: set[str] = set()

    def both(event: events.Event) -> bool:
        if isinstance(event, events.ShardHalted | events.UnitSealed):
            seen.add(event.stream)
        return seen == {"numbers", "letters"}

    with pytest.raises(Fatal, match=REFUSED):
        deployments.work(both)

    after = deployments.contents()
    assert {name: after[name] for name in before} == before
    assert [manifest.stream for manifest in deployments.manifests()] == ["letters", "numbers"]
    # The deployment that is right finds no note that its stream is halted.
    assert not (deployments.folder / "state/app" / folder_of("numbers")).exists()
    (theirs, _) = json.loads(deployments.ask("status", "--json").stdout)["streams"]
    deployments.use(OURS)
    (ours, _) = json.loads(deployments.ask("status", "--json").stdout)["streams"]
    assert [each["code"] for each in theirs["findings"]] == ["other_stream"]
    assert not {each["code"] for each in ours["findings"]} & {"other_stream", "stream_halted"}


def test_the_stream_is_described_once_and_not_for_each_shard(deployments: Deployments) -> None:
    deployments.use(THEIRS)
    deployments.put_into_other(range(5))
    started: set[str] = set()

    def all_started(event: events.Event) -> bool:
        if isinstance(event, events.ShardStarted):
            started.add(event.shard)
        return len(started) == 2

    heard = deployments.work(all_started)
    assert sum(isinstance(event, events.StreamDescribed) for event in heard) == 1


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("audit", "verify", "--json"), 2),
        (("complete", "--until=2020-01-01T00:00:00Z"), 2),
        (("shards", "--json"), 2),
        (("preview", "--unsealed"), 1),
        (("status", "--json"), 1),
    ],
)
def test_commands_do_not_answer_for_another_stream(deployments: Deployments, words: tuple[str, ...], code: int) -> None:
    deployments.put(range(3))
    deployments.work(sealed(3))
    own = deployments.ask(*words)
    assert "another stream" not in own.output
    deployments.use(THEIRS)
    result = deployments.ask(*words)
    assert f"{deployments.folder}/state/app/ is of another stream than the `numbers` that was found here" in result.output
    assert result.exit_code == code
    assert deployments.pin.arn.split(":")[4] == OURS


def test_status_says_it_once_and_nothing_about_shards_of_the_other_stream(deployments: Deployments) -> None:
    deployments.put(range(3))
    deployments.work(sealed(3))
    deployments.use(THEIRS)
    deployments.put_into_other(range(5))
    deployments.clock.ahead += timedelta(hours=7)
    (found,) = json.loads(deployments.ask("status", "--json").stdout)["streams"]
    assert [each["code"] for each in found["findings"]] == ["other_stream"]
    # The shards that were found are not those of the log, so nobody can say that they are fine.
    shown = deployments.ask("status", "--shards=5").stdout
    assert (shown.startswith("stuck: app on numbers"), " fine" in shown, "is sealed" in shown) == (True, False, False)


def test_the_log_can_be_verified_without_the_stream(deployments: Deployments) -> None:
    deployments.put(range(3))
    deployments.work(sealed(3))
    deployments.use(THEIRS)
    assert deployments.ask("audit", "verify", "--no-source").exit_code == 0


def look(deployments: Deployments) -> str:
    """What `stream doctor` finds of the log."""
    pipeline = check(deployments.folder / "pipeline.yaml", {}).pipeline
    assert pipeline is not None
    session: AwsSession = session_of(pipeline)
    (probe,) = [each for each in probes(pipeline, session, deployments.folder, os.environ) if each.check == "log"]
    return asyncio.run(probe.attempt())


def test_doctor_says_which_stream_the_log_is_of(deployments: Deployments) -> None:
    deployments.put(range(3))
    deployments.work(sealed(3))
    assert look(deployments).startswith(f"of this stream, pinned at {deployments.pin.pinned_at}: arn:aws:kinesis:{REGION}:{OURS}:")
    deployments.use(THEIRS)
    with pytest.raises(Fatal, match=REFUSED):
        look(deployments)
    deployments.pin_file.unlink()
    assert look(deployments) == "no stream is pinned; the next worker to start pins the one that it finds"
    deployments.other.delete_stream(StreamName="numbers")
    deployments.clock.ahead += timedelta(minutes=1)
    assert look(deployments).startswith("not compared with the stream: kinesis:DescribeStreamSummary")


def test_a_stream_that_is_created_again_takes_the_place_of_the_former_one_and_is_told_of_once(deployments: Deployments) -> None:
    deployments.put(range(3))
    deployments.work(sealed(3))
    first = deployments.pin
    create_again(deployments)
    deployments.put(range(10, 15))

    heard = deployments.work(sealed(5))
    told = [event for event in heard if isinstance(event, events.StreamSucceeded)]

    pin = deployments.pin
    assert [(event.arn, event.former, event.created) for event in told] == [(first.arn, first.created, pin.created)]
    assert pin.created > first.created
    assert ([each.created for each in pin.former], pin.pinned_at) == ([first.created], first.pinned_at)
    kinds = [type(event) for event in heard]
    assert kinds.index(events.StreamSucceeded) < kinds.index(events.RecordsExpired)
    deployments.put(range(15, 17))
    assert not [event for event in deployments.work(sealed(2)) if isinstance(event, events.StreamSucceeded)]


def test_a_stream_that_was_created_before_the_pinned_one_is_refused(deployments: Deployments) -> None:
    """As that of a second emulator is, or of one that is set back."""
    deployments.put(range(3))
    deployments.work(sealed(3))
    pin = deployments.pin
    later = msgspec.structs.replace(pin, created=(deployments.clock.now() + timedelta(minutes=1)).isoformat())
    deployments.pin_file.write_bytes(msgspec.json.encode(later))
    with pytest.raises(Fatal, match=rf"created at .*Found here: {pin.arn}, created at "):
        deployments.work(at_once)


def test_a_damaged_pin_is_refused_before_anything_is_read(deployments: Deployments) -> None:
    deployments.put(range(3))
    deployments.work(sealed(3))
    before = deployments.manifests()
    deployments.pin_file.write_bytes(b"{")
    deployments.put(range(3, 5))
    with pytest.raises((Fatal, DefinitionError), match=r"identities/numbers.json does not say which stream the log is of"):
        deployments.work(at_once)
    assert deployments.manifests() == before
    (found,) = json.loads(deployments.ask("status", "--json").stdout)["streams"]
    (damaged,) = [each for each in found["findings"] if each["code"] in {"damaged_pin", "unreadable", "other_stream"}]
    assert (damaged["code"], damaged["harm"]) == ("damaged_pin", "stuck")
    assert damaged["section"] == "docs/runbook.md#when-the-log-does-not-say-which-stream-it-is-of"
    assert "Restore its previous version, or stop all workers and delete it" in damaged["details"][0]
    diagnosis = json.loads(deployments.ask("doctor", "--json").stdout)
    (log,) = [each for each in diagnosis["findings"] if each["check"] == "log"]
    assert (log["verdict"], log["remedy"]) == ("failed", DamagedPin.remedy)


def test_with_on_expired_halt_a_stream_that_is_created_again_is_not_read_before_a_person_decides(deployments: Deployments) -> None:
    """Not even shards of which the log knows nothing: their predecessors may have held what nobody had read."""
    deployments.put(range(3))
    deployments.work(sealed(3), on_expired="halt")
    first, before = deployments.pin, deployments.contents()
    create_again(deployments, shards=2)
    deployments.clock.ahead += timedelta(minutes=1)
    # Nobody is told that everything is read, or how far reading is, of a stream of which nothing is read.
    asked = (deployments.clock.now() - timedelta(seconds=30)).isoformat()
    for words in (("complete", f"--until={asked}"), ("shards", "--json")):
        told = deployments.ask(*words)
        assert (told.exit_code, "was deleted and created again" in told.output) == (2, True)
    for n in range(10, 15):
        deployments.client.put_record(StreamName="numbers", Data=json.dumps({"n": n}).encode(), PartitionKey="k", ExplicitHashKey="0")
    for n in range(15, 20):  # into the shard that the former stream did not have
        place = str(2**128 - 1)
        deployments.client.put_record(StreamName="numbers", Data=json.dumps({"n": n}).encode(), PartitionKey="k", ExplicitHashKey=place)

    for _ in range(2):
        with pytest.raises(Fatal, match=rf"was deleted and created again\. Of the log: {first.arn}.*`on_expired: halt`") as refused:
            deployments.work(at_once, on_expired="halt")
        assert not isinstance(refused.value, OtherStream)
    (found,) = json.loads(deployments.ask("status", "--json").stdout)["streams"]
    assert [each["code"] for each in found["findings"]] == ["other_stream"]
    with pytest.raises(Fatal, match="was deleted and created again"):
        look(deployments)
    assert deployments.contents() == before

    # What the log has can be checked all the same.
    verified = deployments.ask("audit", "verify", "--json")
    assert "failed" not in {each["verdict"] for each in json.loads(verified.stdout)["findings"]}

    read: set[str] = set()

    def both(event: events.Event) -> bool:
        if isinstance(event, events.UnitSealed):
            read.add(event.shard)
        return len(read) == 2

    heard = deployments.work(both)
    assert [type(event) for event in heard if isinstance(event, events.StreamSucceeded | events.RecordsExpired)] == [
        events.StreamSucceeded,
        events.RecordsExpired,
    ]
    deployments.put(range(20, 22))
    deployments.work(sealed(2), on_expired="halt")
    assert look(deployments).startswith(f"of this stream, pinned at {first.pinned_at}")


def test_with_on_expired_halt_one_of_several_streams_that_is_created_again_is_noted_for_all_who_read_the_log(
    deployments: Deployments, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "PIPELINE", stage.PIPELINE.replace("stream: numbers", "streams: [numbers, letters]"))
    deployments.client.create_stream(StreamName="letters", ShardCount=1)
    deployments.put(range(3))
    deployments.work(sealed(3), on_expired="halt")
    create_again(deployments)

    with pytest.raises(Fatal, match=r"1 shard\(s\) or stream\(s\) are halted:\n +numbers: .* was deleted and created again"):
        deployments.work(lambda event: isinstance(event, events.ShardHalted), on_expired="halt")
    assert set(asyncio.run(read_halts(open_store(f"file:{deployments.folder}/state/app", None), "numbers"))) == {WHOLE_STREAM}
