"""Lines in CloudWatch's embedded metric format."""

import json

import pytest

from stream import events as ev
from stream.metrics.embedded import UNITS, EmbeddedMetrics
from tests.unit.metrics.every_event import CLASSES, FixedClock, sample


@pytest.fixture
def lines():
    return []


@pytest.fixture
def metrics(lines):
    return EmbeddedMetrics("flights", lambda line: lines.append(json.loads(line)), FixedClock())


def sealed(stream, age, **outcomes):
    return ev.UnitSealed(stream, "shardId-1", 1, 2, tuple(outcomes.items()), age, 0.0, 0.1)


def test_one_line_for_each_stream_names_every_number_that_it_has(metrics, lines):
    metrics(sealed("a", 3.0, written=5, dead_lettered=2))
    metrics(sealed("a", 2.0, written=1))
    metrics(ev.FileWritten("a", "shardId-1", "s3", 5, 1000, 0.1))
    metrics(ev.ShardHalted("b", "shardId-1", "why"))
    metrics.flush()
    first, second = lines
    assert {key: value for key, value in first.items() if key != "_aws"} == {
        "application": "flights",
        "stream": "a",
        "units": 2,
        "records": 8,
        "dead_letters": 2,
        "commit_age": 3.0,
        "files": 1,
        "file_bytes": 1000,
    }
    assert (second["stream"], second["halts"]) == ("b", 1)
    for line in lines:
        (directive,) = line["_aws"]["CloudWatchMetrics"]
        assert directive["Namespace"] == "stream"
        assert directive["Dimensions"] == [["application", "stream"]]
        assert {each["Name"]: each["Unit"] for each in directive["Metrics"]} == {name: UNITS[name] for name in line if name in UNITS}
        assert line["_aws"]["Timestamp"] == 1_000_000


def test_what_was_written_is_not_written_again(metrics, lines):
    metrics(sealed("a", 3.0, written=5))
    metrics.flush()
    metrics.flush()
    metrics(sealed("a", 1.0, written=1))
    metrics.flush()
    assert [(line["records"], line["commit_age"]) for line in lines] == [(5, 3.0), (1, 1.0)]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_any_event_is_taken_and_whatever_is_counted_has_a_unit(kind, metrics, lines):
    metrics(sample(kind))
    metrics.flush()
    assert all(set(line) - {"_aws", "application", "stream"} <= set(UNITS) for line in lines)


def test_every_name_comes_from_some_event(metrics, lines):
    for kind in CLASSES:
        metrics(sample(kind))
    metrics.flush()
    assert {name for line in lines for name in line} - {"_aws", "application", "stream"} == set(UNITS)
