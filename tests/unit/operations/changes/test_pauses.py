"""What an operator may pause, and what of it a resumption ends."""

from pathlib import Path

import pytest

from stream.errors import DefinitionError
from stream.lease.paused import Pause, Target, What
from stream.operations.changes.pauses import LONGEST_TEXT, Scope, check_text, is_named, pauses_covering, targets_of
from stream.pipeline.checks.lint import check_content
from tests.sealed import NOON

PIPELINE = """\
application: flights
source:
  {source}
  schema: {{n: int64}}
sinks:
{sinks}
state: "file:./state"
{more}
"""
S3 = '  - s3: {url: "file:./lake"}'
REDSHIFT = "  - redshift: {staging: s3://lake/staging/, table: events, database: dev, workgroup: analytics, iam_role: default}"
TWO = "kinesis: {streams: [{stream: a, start: latest}, {stream: b, start: latest}]}"
LOADS, READING = What.LOADS, What.READING


def pipeline(source="kinesis: {stream: a}", sinks=S3, more=""):
    found = check_content(PIPELINE.format(source=source, sinks=sinks, more=more).encode(), "pipeline.yaml", Path(), {})
    assert found.pipeline is not None, found.findings
    return found.pipeline


@pytest.mark.parametrize(
    ("given", "scope", "targets"),
    [
        ({}, Scope(), [Target(READING, "a")]),
        ({"source": TWO}, Scope(), [Target(READING, "a"), Target(READING, "b")]),
        ({"source": TWO}, Scope("b"), [Target(READING, "b")]),
        ({"source": TWO}, Scope("b", ("0", "1", "0")), [Target(READING, "b", "0"), Target(READING, "b", "1")]),
        ({"sinks": REDSHIFT}, Scope(loads=True), [Target(LOADS, "a")]),
        ({"sinks": REDSHIFT}, Scope(loads=True, sink="redshift"), [Target(LOADS, "a", "redshift")]),
        ({"source": 's3: {url: "file:./in/"}'}, Scope(), [Target(READING, "objects")]),
        ({"sinks": REDSHIFT, "more": "coordination: {kcl: {}}"}, Scope(loads=True), [Target(LOADS, "a")]),
    ],
)
def test_what_is_named(given, scope, targets):
    assert targets_of(pipeline(**given), scope) == targets


@pytest.mark.parametrize(
    ("given", "scope", "reported"),
    [
        ({}, Scope("b"), "--stream b: the pipeline reads a"),
        ({"source": TWO}, Scope(shards=("0",)), "0 is a shard of one stream, and the pipeline reads 2: name it with --stream"),
        ({}, Scope(loads=True), "the pipeline loads no table; it loads none"),
        ({"sinks": REDSHIFT}, Scope(loads=True, sink="iceberg"), "loads no table by a sink named 'iceberg'; it loads redshift"),
        ({"sinks": REDSHIFT}, Scope(shards=("0",), loads=True), "leave out the shards"),
        ({"sinks": REDSHIFT}, Scope(sink="redshift"), "add --loads"),
        ({"source": 's3: {url: "file:./in/"}'}, Scope(shards=("0",)), "in shards that end: pause all of it"),
        ({"more": "coordination: {kcl: {}}"}, Scope(), "stop the daemons instead"),
    ],
)
def test_what_cannot_be_paused_is_refused(given, scope, reported):
    with pytest.raises(DefinitionError, match=reported):
        targets_of(pipeline(**given), scope)


@pytest.mark.parametrize(
    ("target", "scope", "everything", "expected"),
    [
        (Target(READING, "a"), Scope(), False, True),
        (Target(READING, "a", "0"), Scope(), False, False),
        (Target(READING, "a", "0"), Scope(shards=("0", "1")), False, True),
        (Target(READING, "a"), Scope(shards=("0",)), False, False),
        (Target(READING, "a"), Scope("b"), False, False),
        (Target(LOADS, "a"), Scope(), False, False),
        (Target(LOADS, "a"), Scope(loads=True), False, True),
        (Target(LOADS, "a", "redshift"), Scope(loads=True), False, False),
        (Target(LOADS, "a", "redshift"), Scope(loads=True, sink="redshift"), False, True),
        (Target(LOADS, "a", "redshift"), Scope(), True, True),
        (Target(READING, "a", "0"), Scope("b"), True, False),
    ],
)
def test_a_resumption_ends_exactly_what_is_named(target, scope, everything, expected):
    assert is_named(target, scope, everything=everything) is expected


def pause(what, part=""):
    return Pause(what=what, stream="a", part=part, by="ann", note="n", since=NOON)


def test_what_stays_paused_of_what_was_named():
    wide, shard, loads = pause(READING), pause(READING, "0"), pause(LOADS)
    assert pauses_covering([wide, shard, loads], Scope(shards=("0",))) == [wide, shard]
    assert pauses_covering([wide, shard, loads], Scope(shards=("1",))) == [wide]
    assert pauses_covering([shard, loads], Scope()) == [shard]
    assert pauses_covering([loads], Scope("b", loads=True)) == []


@pytest.mark.parametrize("text", ["", "  ", "a\nb", "\x1b[2J", "x" * (LONGEST_TEXT + 1)])
def test_a_note_is_one_line_that_can_be_printed(text):
    with pytest.raises(DefinitionError, match="--note"):
        check_text(text, "--note")


def test_a_note_may_be_in_any_language():
    check_text("größere Platten ✓", "--note")
    check_text("✓" * LONGEST_TEXT, "--note")
