import errno
import json

import pytest

from stream import events as ev
from stream.contracts import Emit
from stream.metrics.logs import LEVELS, MAX_REASON, MAX_TEXT, NOISY, QUIET_SECONDS, JsonLog, Level, render
from tests.unit.metrics.every_event import CLASSES, FixedClock, sample


@pytest.fixture
def clock():
    return FixedClock()


@pytest.fixture
def lines():
    return []


@pytest.fixture
def log(lines, clock):
    return JsonLog(lambda line: lines.append(json.loads(line)), clock, Level.DEBUG)


def throttled(shard="shardId-1", why="throttled"):
    return ev.PollRepeated("events", shard, why, "slow down", 1.0)


def test_every_event_class_has_a_level():
    assert set(LEVELS) == set(CLASSES)
    assert set(NOISY) <= set(CLASSES)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_event_is_one_line_with_time_level_and_shard(kind, log, lines):
    log(sample(kind))
    (line,) = lines
    assert list(line)[:3] == ["time", "level", "event"]
    assert line["time"] == "1970-01-01T00:16:40.000+00:00"
    assert line["level"] == LEVELS[kind].name.lower()
    assert (line["stream"], line["shard"]) == ("events", "shardId-1")


def test_a_line_ends_in_a_newline_and_contains_no_other():
    raw = []
    JsonLog(raw.append, FixedClock())(ev.ShardHalted("events", "s", "two\nlines"))
    assert raw[0].endswith(b"}\n")
    assert raw[0].count(b"\n") == 1


def test_fields_survive_any_json_reader():
    assert render(ev.UnitSealed("events", "s", 2**185, 5, (("written", 3),), 1.23456789, 0.0, 0.1)) == {
        "level": "info",
        "event": "unit_sealed",
        "stream": "events",
        "shard": "s",
        "after": str(2**185),
        "last": 5,
        "outcomes": {"written": 3},
        "oldest_age": 1.234568,
        "newest_age": 0.0,
        "seconds": 0.1,
    }
    assert render(ev.ShardEnded("events", "s", ("a", "b")))["children"] == ["a", "b"]
    assert render(ev.Checkpointed("events", "s", None))["position"] is None
    assert "shard" not in render(ev.DrainStarted("events", "", 30.0))
    assert len(render(ev.CallRepeated("events", "s", "PutObject", "x" * 10_000, 1.0))["detail"]) == MAX_TEXT + 3
    assert len(render(ev.WorkerFailed("events", "", "x" * 10_000))["reason"]) == MAX_REASON + 3
    assert render(ev.ShardHalted("events", "s", "x" * 600 + " is missing: restore it"))["reason"].endswith(" is missing: restore it")


def test_lower_levels_are_left_out(lines, clock):
    log = JsonLog(lambda line: lines.append(json.loads(line)), clock, Level.WARNING)
    emit: Emit = log
    for kind in CLASSES:
        emit(sample(kind))
    assert {line["level"] for line in lines} == {"warning", "error"}


def test_repeats_are_held_back_and_counted_in_the_next_line(log, lines, clock):
    for _ in range(5):
        log(throttled())
    assert len(lines) == 1
    clock.seconds += QUIET_SECONDS
    log(throttled())
    assert [line.get("repeated") for line in lines] == [None, 4]


def test_each_shard_and_each_cause_has_its_own_lines(log, lines):
    for shard in ("a", "b"):
        for why in ("throttled", "error"):
            log(throttled(shard, why))
    assert len(lines) == 4


def test_flush_writes_what_was_held_back_and_nothing_else(log, lines):
    for wait in (1.0, 2.0, 3.0):
        log(ev.PollRepeated("events", "s", "error", "reset", wait))
    log(throttled())
    log.flush()
    assert [(line["wait"], line.get("repeated")) for line in lines] == [(1.0, None), (1.0, None), (3.0, 1)]
    log.flush()
    assert len(lines) == 3


def test_old_causes_are_forgotten_when_there_are_many(log, lines, clock):
    for number in range(5000):
        log(throttled(f"s{number}"))
        clock.seconds += 1
    assert len(log._causes) < 5000
    assert len(lines) == 5000


def test_held_back_lines_are_written_before_their_cause_is_forgotten(log, lines, clock):
    for number in range(4097):
        log(throttled(f"shardId-{number}"))
        log(throttled(f"shardId-{number}"))
    clock.seconds += QUIET_SECONDS
    lines.clear()
    log(throttled("shardId-0"))
    assert [line["repeated"] for line in lines if line["shard"] == "shardId-0"] == [1]
    assert sorted(line["shard"] for line in lines) == sorted(f"shardId-{number}" for number in range(4097))
    assert all("repeated" not in line for line in lines if line["shard"] != "shardId-0")


def test_many_simultaneous_causes_are_not_scanned_for_each_line(log, clock):
    for number in range(4096):
        log(throttled(f"shardId-{number}"))
    clock.seconds += QUIET_SECONDS
    log(throttled("swept"))
    held = log._causes
    for number in range(5000):
        log(throttled(f"shardId-{number}"))
    assert len(held) == 5001
    assert log._causes is held


def test_rare_events_are_never_held_back(log, lines):
    for _ in range(3):
        log(ev.ShardStarted("events", "s", 1))
    assert len(lines) == 3


@pytest.mark.parametrize("error", [BrokenPipeError("gone"), OSError(errno.ENOSPC, "full"), ValueError("I/O operation on closed file")])
def test_a_line_that_cannot_be_written_is_dropped_and_counted(error):
    def write(line):
        raise error

    dropped = []
    JsonLog(write, FixedClock(), dropped=lambda: dropped.append(1))(ev.ShardStarted("events", "s", 1))
    assert len(dropped) == 1


def test_dropped_lines_are_counted_and_told_before_the_next_line_that_is_not_dropped(clock, lines):
    full, dropped = [True], []

    def write(line):
        if not full[0]:
            lines.append(json.loads(line))
        return not full[0]

    log = JsonLog(write, clock, dropped=lambda: dropped.append(1))
    for _ in range(3):
        log(ev.ShardStarted("events", "s", 1))
    full[0] = False
    log(ev.ShardEnded("events", "s", ()))
    log(ev.ShardEnded("events", "s", ()))
    assert len(dropped) == 3
    assert [(line["event"], line.get("lines")) for line in lines] == [
        ("log_lines_dropped", 3),
        ("shard_ended", None),
        ("shard_ended", None),
    ]


def test_dropped_lines_are_told_at_the_end_too(clock, lines):
    answers = [False, True]
    log = JsonLog(lambda line: lines.append(json.loads(line)) or answers.pop(0), clock)
    log(ev.ShardStarted("events", "s", 1))
    log.flush()
    assert [line["event"] for line in lines] == ["shard_started", "log_lines_dropped"]
