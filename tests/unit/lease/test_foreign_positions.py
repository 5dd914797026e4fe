"""Positions as other consumers keep them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from stream.errors import DefinitionError
from stream.lease.foreign_positions import WHOLE_RECORD, Position, from_csv, from_table, kind_of
from stream.lease.rows import ExtendedSequenceNumber

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def at(text: str, subsequence: int = WHOLE_RECORD) -> ExtendedSequenceNumber:
    return ExtendedSequenceNumber(text, subsequence)


def test_a_csv_file_gives_numbers_user_records_and_words() -> None:
    header = "\ufeffshard, sequence,subsequence,stream\r\n"
    text = f"{header}a,12,,s\r\n\r\nb,13,-1,s\nc,14,7,arn:aws:kinesis:r:1:stream/s\nd,SHARD_END,,s\ne,15,,t\n"
    found = from_csv(text, "p.csv", "s")
    assert found.positions == (
        Position("a", at("12")),
        Position("b", at("13")),
        Position("c", at("14", 7)),
        Position("d", at("SHARD_END", 0)),
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "p.csv:1: the columns are none"),
        ("shard,seq\na,1\n", "p.csv:1: the columns are shard,seq; needed are shard,sequence"),
        ("shard,sequence,sequence\na,1,1\n", "p.csv:1: the columns are"),
        ("shard,sequence\na,1\n\na,2\n", "p.csv:4: the shard a is there twice"),
        ("shard,sequence\na\n", "p.csv:2: it has 1 values, and the header has 2"),
        ("shard,sequence\n,1\n", "p.csv:2: the shard is missing"),
        ("shard,sequence\na,-5\n", "p.csv:2: sequence is '-5'"),
        ("shard,sequence\na,AT_TIMESTAMP\n", "p.csv:2: sequence is 'AT_TIMESTAMP'"),
        ("shard,sequence\na,4.9E55\n", "p.csv:2: sequence is '4.9E55'"),
        ("shard,sequence,subsequence\na,1,x\n", "p.csv:2: subsequence is 'x'"),
        ("shard,sequence,subsequence\na,LATEST,3\n", "p.csv:2: subsequence is '3'"),
    ],
)
def test_a_malformed_line_is_named(text: str, says: str) -> None:
    with pytest.raises(DefinitionError) as error:
        from_csv(text, "p.csv", "s")
    assert says in str(error.value)


def rows(keys: tuple[str, ...], *items: dict[str, dict[str, Any]], stream: str = "s") -> tuple[Position, ...]:
    return from_table(kind_of("t", keys), "t", items, stream, NOW).positions


def text(**values: str) -> dict[str, dict[str, Any]]:
    return {name: {"S": value} for name, value in values.items()}


def test_an_unexpired_lease_of_redpanda_connect_shows_that_it_runs() -> None:
    held = text(StreamID="s", ShardID="a", SequenceNumber="5", ClientID="c", LeaseTimeout="2026-01-01T13:00:30.123456789+01:00")
    (position,) = rows(("StreamID", "ShardID"), held)
    assert position.busy == "the client c holds it until 2026-01-01T13:00:30.123456789+01:00"
    (position,) = rows(("StreamID", "ShardID"), held | text(LeaseTimeout="2026-01-01T11:59:59Z"))
    assert position == Position("a", at("5"))
    claimed = text(StreamID="s", ShardID="a", ClientID="c", LeaseTimeout="2026-01-01T11:00:00Z")
    assert rows(("StreamID", "ShardID"), claimed) == (Position("a", None),)


def test_a_recent_heartbeat_of_async_kinesis_shows_that_it_runs() -> None:
    row = text(shard_id="a", sequence="5", ref="app/1")
    (position,) = rows(("shard_id",), row | {"ts": {"N": str(int(NOW.timestamp()) - 59)}})
    assert position.busy.startswith("app/1 sent a heartbeat at 2026-01-01T11:59:01")
    (position,) = rows(("shard_id",), row | {"ts": {"N": str(int(NOW.timestamp()) - 60)}})
    assert position == Position("a", at("5"))


def test_a_row_of_kinsumer_without_an_owner_is_free_however_recent_it_is() -> None:
    row = text(Shard="a", SequenceNumber="5") | {"LastUpdate": {"N": str(int(NOW.timestamp() * 1e9))}}
    assert rows(("Shard",), row) == (Position("a", at("5")),)
    (position,) = rows(("Shard",), row | text(OwnerID="o"))
    assert position.busy.startswith("the client o updated it at")
    assert rows(("Shard",), row | text(SequenceNumber="")) == (Position("a", None),)


def test_the_application_of_telegraf_may_have_any_name_but_must_be_unique() -> None:
    one = text(namespace="a-b-s", shard_id="a", sequence_number="5")
    assert rows(("namespace", "shard_id"), one, text(namespace="a-t", shard_id="a", sequence_number="6")) == (Position("a", at("5")),)
    with pytest.raises(DefinitionError, match="several sets of positions for s: a-b-s, a-s"):
        rows(("namespace", "shard_id"), one, text(namespace="a-s", shard_id="a", sequence_number="6"))


@pytest.mark.parametrize(
    ("keys", "row", "says"),
    [
        (("StreamID", "ShardID"), text(StreamID="s", ShardID="a", SequenceNumber="x"), "the row s, a is not as Redpanda Connect"),
        (("StreamID", "ShardID"), text(StreamID="s", ShardID="a", ClientID="c", LeaseTimeout="soon"), "Invalid isoformat string"),
        (("shard_id",), text(shard_id="a", checkpoint="5"), "it has no attribute sequence"),
        (("shard_id",), {"shard_id": {"S": "a"}, "sequence": {"N": "5"}}, "the attribute sequence is of type N, not S"),
        (("Shard",), text(Shard="a"), "it has no number LastUpdate"),
        (("namespace", "shard_id"), text(namespace="a-s", shard_id="a"), "it has no text sequence_number"),
    ],
)
def test_a_malformed_row_is_named(keys: tuple[str, ...], row: dict[str, dict[str, Any]], says: str) -> None:
    with pytest.raises(DefinitionError) as error:
        rows(keys, row)
    assert says in str(error.value)


def test_tables_of_the_kcl_and_unknown_tables_are_distinguished() -> None:
    with pytest.raises(DefinitionError, match=r"as no known consumer has\. Known are: Redpanda .*; async-kinesis \(shard_id\)"):
        kind_of("t", ["ShardID", "StreamID"])
    with pytest.raises(DefinitionError, match=r"lease table of the KCL: there is nothing to import\. Set coordination\.native\.table to t"):
        kind_of("t", ["leaseKey"])


@pytest.mark.parametrize(
    ("named", "stream", "belongs"),
    [
        ("s", "s@111122223333.eu-west-1", True),
        ("arn:aws:kinesis:eu-west-1:111122223333:stream/s", "s", True),
        ("arn:aws:kinesis:eu-west-1:111122223333:stream/s", "s@111122223333.eu-west-1", True),
        ("arn:aws:kinesis:eu-west-1:444455556666:stream/s", "s@111122223333.eu-west-1", False),
        ("arn:aws:kinesis:eu-west-1:111122223333:stream/t", "s@111122223333.eu-west-1", False),
    ],
)
def test_positions_of_a_shared_stream_are_told_from_those_of_its_namesake(named: str, stream: str, belongs: bool) -> None:
    found = from_csv(f"shard,sequence,stream\na,12,{named}\n", "p.csv", stream)
    assert bool(found.positions) is belongs
