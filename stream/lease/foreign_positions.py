"""Positions that other Kinesis consumers keep, read from a CSV file or from the rows of their tables in DynamoDB. Pure.

Each table is recognised by its key. What its rows mean was read in the source of the consumer that writes them.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from stream.errors import DefinitionError
from stream.lease.rows import LATEST, SHARD_END, TRIM_HORIZON, ExtendedSequenceNumber, Item
from stream.stream_ids import name_of, stream_id

WHOLE_RECORD: Final = 2**32 - 1
"""Sub-sequence number of a position after all user records of its Kinesis record, however many it has."""

COLUMNS: Final = ("shard", "sequence", "subsequence", "stream")
WORDS: Final = (TRIM_HORIZON, LATEST, SHARD_END)


@dataclass(frozen=True, slots=True)
class Position:
    """How far a consumer has read one shard. ``reached``: None if it has begun the shard and has not stored how far it is.

    ``busy``: why a worker of that consumer seems to be reading the shard now; empty if none seems to.
    """

    shard: str
    reached: ExtendedSequenceNumber | None
    busy: str = ""


@dataclass(frozen=True, slots=True)
class ForeignPositions:
    """All positions of one stream. ``kind``: who keeps them. ``tells_who_reads``: whether the source can show that its consumer runs."""

    kind: str
    positions: tuple[Position, ...]
    tells_who_reads: bool = False


@dataclass(frozen=True, slots=True)
class _Row:
    stream: str | None
    position: Position


@dataclass(frozen=True, slots=True)
class TableKind:
    """One form of table: its keys, and how to read a row at a moment. ``tells_who_reads`` as in ``ForeignPositions``."""

    name: str
    keys: tuple[str, ...]
    read: Callable[[Item, datetime], _Row]
    tells_who_reads: bool


# --- CSV ------------------------------------------------------------------------------------------------------------------


def from_csv(text: str, name: str, stream: str) -> ForeignPositions:
    """The positions of ``stream`` in the CSV file ``name``; rows that a column ``stream`` gives to other streams are left out.

    Raises:
        DefinitionError: the file is not as documented; the message names the line.
    """
    rows = list(csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline="")))
    header = [each.strip() for each in rows[0]] if rows else []
    if not {"shard", "sequence"} <= set(header) or not set(header) <= set(COLUMNS) or len(set(header)) < len(header):
        msg = f"{name}:1: the columns are {','.join(header) or 'none'}; needed are shard,sequence; allowed are also subsequence,stream"
        raise DefinitionError(msg)
    found: dict[str, Position] = {}
    for line, cells in enumerate(rows[1:], 2):
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(header):
            msg = f"{name}:{line}: it has {len(cells)} values, and the header has {len(header)}"
            raise DefinitionError(msg)
        values = dict(zip(header, (cell.strip() for cell in cells), strict=True))
        if "stream" in values and not _is_of(values["stream"], stream):
            continue
        position = Position(values["shard"], _csv_position(values, f"{name}:{line}"))
        if position.shard in found:
            msg = f"{name}:{line}: the shard {position.shard} is there twice"
            raise DefinitionError(msg)
        found[position.shard] = position
    return ForeignPositions(f"the file {name}", tuple(found.values()))


def _csv_position(values: dict[str, str], where: str) -> ExtendedSequenceNumber:
    text, sub = values["sequence"], values.get("subsequence", "")
    if not values["shard"]:
        msg = f"{where}: the shard is missing"
        raise DefinitionError(msg)
    if text not in WORDS and not _is_number(text):
        msg = f"{where}: sequence is {text!r}; a position is a sequence number of up to 60 digits, or one of {', '.join(WORDS)}"
        raise DefinitionError(msg)
    if sub in {"", "-1"}:
        return ExtendedSequenceNumber(text, 0 if text in WORDS else WHOLE_RECORD)
    if text in WORDS or not sub.isascii() or not sub.isdigit() or int(sub) > WHOLE_RECORD:
        msg = f"{where}: subsequence is {sub!r}; it is the index of the last user record that was read in the record of a sequence number"
        raise DefinitionError(msg)
    return ExtendedSequenceNumber(text, int(sub))


# --- tables in DynamoDB ---------------------------------------------------------------------------------------------------


def kind_of(table: str, keys: Sequence[str]) -> TableKind:
    """The form of a table with these ``keys``, the hash key first.

    Raises:
        DefinitionError: no known consumer has such a table.
    """
    for kind in KINDS:
        if kind.keys == tuple(keys):
            return kind
    if tuple(keys) == ("leaseKey",):
        msg = f"the table {table} is a lease table of the KCL: there is nothing to import. Set coordination.native.table to {table} instead"
        raise DefinitionError(msg)
    known = "; ".join(f"{kind.name} ({', '.join(kind.keys)})" for kind in KINDS)
    msg = (
        f"the table {table} has the keys {', '.join(keys) or 'none'}, as no known consumer has. Known are: {known}. "
        "Write its positions to a CSV file with the columns shard,sequence and import that"
    )
    raise DefinitionError(msg)


def from_table(kind: TableKind, table: str, items: Iterable[Item], stream: str, now: datetime) -> ForeignPositions:
    """The positions of ``stream`` in the rows ``items`` of ``table``.

    Raises:
        DefinitionError: a row is not as that consumer writes it, or the table has positions of several consumers of the stream.
    """
    found: dict[str | None, list[Position]] = {}
    for item in items:
        try:
            row = kind.read(item, now)
        except (KeyError, ValueError, TypeError) as error:
            row_key = ", ".join(str(next(iter(item.get(key, {}).values()), "?")) for key in kind.keys)
            msg = f"the table {table}: the row {row_key} is not as {kind.name} writes it: {error}"
            raise DefinitionError(msg) from error
        if _belongs(kind, row.stream, stream):
            found.setdefault(row.stream, []).append(row.position)
    if len(found) > 1:
        names = ", ".join(sorted(map(str, found)))
        msg = f"the table {table} has several sets of positions for {stream}: {names}. Write those that hold to a CSV file and import that"
        raise DefinitionError(msg)
    return ForeignPositions(kind.name, tuple(next(iter(found.values()), ())), kind.tells_who_reads)


def _belongs(kind: TableKind, named: str | None, stream: str) -> bool:
    if named is None:
        return True
    return named.endswith(f"-{name_of(stream)}") if kind.name == TELEGRAF else _is_of(named, stream)


def _redpanda(item: Item, now: datetime) -> _Row:
    """A shard that was read to its end has no row any more; ``LeaseTimeout`` is there as long as a client holds the shard."""
    client, until = _text(item, "ClientID"), _text(item, "LeaseTimeout")
    busy = ""
    if client and until and datetime.fromisoformat(until) > now:
        busy = f"the client {client} holds it until {until}"
    return _Row(_needed(item, "StreamID"), Position(_needed(item, "ShardID"), _number(_text(item, "SequenceNumber")), busy))


_SESSION: Final = timedelta(seconds=60)
"""Default ``session_timeout`` of async-kinesis."""


def _async_kinesis(item: Item, now: datetime) -> _Row:
    """A row without ``ref`` was deallocated. ``ts`` is the last heartbeat in seconds. Ended shards keep their last number."""
    if "sequence" not in item:
        msg = "it has no attribute sequence"
        raise ValueError(msg)
    ref, beat = _text(item, "ref"), _integer(item, "ts")
    busy = ""
    if ref and beat is not None and (seen := datetime.fromtimestamp(beat, UTC)) > now - _SESSION:
        busy = f"{ref} sent a heartbeat at {seen.isoformat()}"
    return _Row(None, Position(_needed(item, "shard_id"), _number(_text(item, "sequence")), busy))


_CLIENT_AGE: Final = timedelta(minutes=5)
"""After so long kinsumer takes over a shard from a silent client, by default: five times ``shardCheckFrequency``."""


def _kinsumer(item: Item, now: datetime) -> _Row:
    """``LastUpdate`` is in nanoseconds; ``Finished`` is set once the shard is read to its end."""
    updated = _integer(item, "LastUpdate")
    if updated is None:
        msg = "it has no number LastUpdate"
        raise ValueError(msg)
    shard, owner, seen = _needed(item, "Shard"), _text(item, "OwnerID"), datetime.fromtimestamp(updated / 1e9, UTC)
    if _integer(item, "Finished") is not None:
        return _Row(None, Position(shard, ExtendedSequenceNumber(SHARD_END)))
    busy = f"the client {owner} updated it at {seen.isoformat()}" if owner and seen > now - _CLIENT_AGE else ""
    return _Row(None, Position(shard, _number(_text(item, "SequenceNumber")), busy))


def _telegraf(item: Item, _now: datetime) -> _Row:
    """``namespace`` is the application's name, a hyphen, and the stream's name. Rows do not say who reads."""
    return _Row(_needed(item, "namespace"), Position(_needed(item, "shard_id"), _number(_needed(item, "sequence_number"))))


TELEGRAF: Final = "Telegraf and harlow/kinesis-consumer"
KINDS: Final = (
    TableKind("Redpanda Connect (Benthos)", ("StreamID", "ShardID"), _redpanda, tells_who_reads=True),
    TableKind("async-kinesis", ("shard_id",), _async_kinesis, tells_who_reads=True),
    TableKind("kinsumer", ("Shard",), _kinsumer, tells_who_reads=True),
    TableKind(TELEGRAF, ("namespace", "shard_id"), _telegraf, tells_who_reads=False),
)


def _is_of(named: str, stream: str) -> bool:
    """Whether another consumer's name or ARN is that of ``stream``: equal, or alike if one of the two does not say the account."""
    one, other = stream_id(named), stream_id(stream)
    if one.startswith("arn:"):  # one that no stream has: of an emulator, or shortened by hand
        one = one.rpartition("/")[2]
    return one == other or (name_of(one) == name_of(other) and (one == name_of(one) or other == name_of(other)))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 60


def _number(text: str | None) -> ExtendedSequenceNumber | None:
    if not text:
        return None
    if not _is_number(text):
        msg = f"{text!r} is no sequence number"
        raise ValueError(msg)
    return ExtendedSequenceNumber(text, WHOLE_RECORD)


def _text(item: Item, name: str) -> str | None:
    value: Any = item.get(name, {"NULL": True})
    if "NULL" in value:
        return None
    if "S" not in value:
        msg = f"the attribute {name} is of type {next(iter(value), '?')}, not S"
        raise ValueError(msg)
    return str(value["S"])


def _needed(item: Item, name: str) -> str:
    if not (text := _text(item, name)):
        msg = f"it has no text {name}"
        raise ValueError(msg)
    return text


def _integer(item: Item, name: str) -> int | None:
    value: Any = item.get(name, {"NULL": True})
    return int(value["N"]) if "N" in value else None
