"""Records in and out: PutRecord, PutRecords, GetShardIterator, GetRecords."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import orjson

from stream.local.kinesis.errors import invalid, malformed, not_found
from stream.local.kinesis.faults import Action
from stream.local.kinesis.limits import exceeded, exceeded_message
from stream.local.kinesis.model import Stream, hash_key_of
from stream.local.kinesis.protocol import Members, Params, Records, blob
from stream.local.kinesis.shards import MAX_PAGE_RECORDS, Page, Shard
from stream.local.kinesis.state import Call, State, child_shards
from stream.local.kinesis.tokens import Iterator

MAX_PUT_RECORDS: Final = 500
MAX_PUT_BYTES: Final = 10 * 1024 * 1024
_FAILED: Final = {"ErrorCode": "InternalFailure", "ErrorMessage": "Internal Service Failure"}


@dataclass(frozen=True, slots=True)
class _Entry:
    """``hash_key``: None if the service chooses the shard. ``key``: as JSON text, empty if there is none."""

    hash_key: int | None
    key: bytes
    text: bytes
    size: int

    def shard(self, stream: Stream) -> Shard:
        return stream.next_in_turn() if self.hash_key is None else stream.route(self.hash_key)


def put_record(state: State, call: Call) -> Members:
    """Store one record."""
    stream = state.serving(call)
    entry = _entry(stream, call.params)
    if stream.spreads and call.params.has("SequenceNumberForOrdering"):
        message = f"SequenceNumberForOrdering is not allowed: the service distributes the records of stream {stream.name}."
        raise invalid(message)
    shard = entry.shard(stream)
    if not state.limiter.may_write(stream.key, shard.shard_id, entry.size, call.now_ms):
        raise exceeded(stream.name, shard.shard_id)
    sequence = shard.put(entry.key, entry.text, entry.size, call.now_ms)
    return {"ShardId": shard.shard_id, "SequenceNumber": str(sequence), "EncryptionType": "NONE"}


def put_records(state: State, call: Call) -> Members:
    """Store up to 500 records. A malformed record fails the whole request; a shard over its limit fails only its own records."""
    stream = state.serving(call)
    items = call.params.items("Records")
    if not 1 <= len(items) <= MAX_PUT_RECORDS:
        message = (
            f"1 validation error detected: Value of length {len(items)} at 'records' failed to satisfy constraint: "
            f"Member must have length between 1 and {MAX_PUT_RECORDS}"
        )
        raise malformed(message)
    entries = [_entry(stream, Params(item)) for item in items]
    if sum(entry.size for entry in entries) > MAX_PUT_BYTES:
        message = f"Records size exceeds {MAX_PUT_BYTES // 1024 // 1024} MB limit"
        raise invalid(message)
    every = call.fault.every if call.fault is not None and call.fault.action is Action.FAIL_RECORDS else 0
    replies = [_FAILED if every and index % every == 0 else _put(state, call.now_ms, stream, entry) for index, entry in enumerate(entries)]
    failed = sum("ErrorCode" in reply for reply in replies)
    return {"FailedRecordCount": failed, "Records": replies, "EncryptionType": "NONE"}


def get_shard_iterator(state: State, call: Call) -> Members:
    """A token for the position that the request describes."""
    stream = state.serving(call)
    shard = stream.shard(call.params.text("ShardId"))
    after = position(shard, call.params, "ShardIteratorType", "StartingSequenceNumber", call.now_ms)
    return {"ShardIterator": _token(state, stream, shard, after, call.now_ms)}


def get_records(state: State, call: Call) -> Records:
    """The next page after an iterator; at the end of a closed shard no next iterator, but the child shards."""
    where = state.tokens.read_iterator(call.params.text("ShardIterator"), call.now_ms, state.settings.iterator_ms)
    limit = call.params.integer_or("Limit", 1, MAX_PAGE_RECORDS, MAX_PAGE_RECORDS)
    _, _, account = where.stream.partition("@")
    if account not in {"", call.account} and not call.params.has("StreamARN"):
        message = f"Stream {where.stream.partition('@')[0]} under account {call.account or state.settings.account} not found."
        raise not_found(message)
    stream = state.account.find(where.stream, call.now_ms)
    if stream.created_ms != where.stream_ms:
        message = f"Stream {where.stream} was deleted after the iterator was made."
        raise not_found(message)
    shard = stream.shard(where.shard_id)
    state.limiter.may_read(stream.key, shard.shard_id, call.now_ms)
    page, following = _acted_out(call, shard, where.after, limit)
    state.limiter.has_read(stream.key, shard.shard_id, page.size)
    rest: Members = {"NextShardIterator": None, "MillisBehindLatest": page.behind_ms}
    if page.ended:
        rest["ChildShards"] = child_shards(shard)
    else:
        rest["NextShardIterator"] = _token(state, stream, shard, following, call.now_ms)
    return Records(page.records, rest)


def position(shard: Shard, params: Params, type_name: str, sequence_name: str, now_ms: int) -> int:
    """The position after which reading begins, from any of the five kinds of start position.

    Raises:
        ApiError: unknown type, missing or unknown sequence number, a timestamp in the future.
    """
    kind = params.text(type_name)
    find = _POSITIONS.get(kind)
    if find is None:
        message = f"1 validation error detected: Value '{kind}' at '{type_name}' must be one of {', '.join(_POSITIONS)}"
        raise malformed(message)
    return find(shard, params, sequence_name, now_ms)


def _at_sequence(shard: Shard, params: Params, name: str, now_ms: int) -> int:
    return _after_sequence(shard, params, name, now_ms) - 1


def _after_sequence(shard: Shard, params: Params, name: str, now_ms: int) -> int:
    del now_ms
    text = params.text(name)
    value = int(text) if text.isascii() and text.isdecimal() and len(text) <= 129 else -1
    if not shard.knows(value):
        message = f"{name} {text} used in {shard.shard_id} is invalid because it did not come from this shard."
        raise invalid(message)
    return value


def _at_timestamp(shard: Shard, params: Params, name: str, now_ms: int) -> int:
    del name
    moment = params.moment("Timestamp")
    if moment > now_ms:
        message = f"The timestampInMillis parameter cannot be greater than the currentTimestampInMillis: {moment} is after {now_ms}."
        raise invalid(message)
    return shard.before_timestamp(moment)


_POSITIONS: Final[dict[str, Callable[[Shard, Params, str, int], int]]] = {
    "AT_SEQUENCE_NUMBER": _at_sequence,
    "AFTER_SEQUENCE_NUMBER": _after_sequence,
    "AT_TIMESTAMP": _at_timestamp,
    "TRIM_HORIZON": lambda shard, _params, _name, _now: shard.starting_sequence,
    "LATEST": lambda shard, _params, _name, _now: shard.tip,
}


def _acted_out(call: Call, shard: Shard, after: int, limit: int) -> tuple[Page, int]:
    action = call.fault.action if call.fault is not None else None
    if action is Action.EMPTY_PAGE:
        page = shard.read(after, 0, call.now_ms)
        return Page((), after, 0, max(page.behind_ms, 1000), ended=False), after
    page = shard.read(after, limit, call.now_ms)
    if action is Action.DUPLICATE_PAGE:
        return Page(page.records, page.last, page.size, page.behind_ms, ended=False), after
    return page, page.last


def _put(state: State, now_ms: int, stream: Stream, entry: _Entry) -> Members:
    shard = entry.shard(stream)
    if not state.limiter.may_write(stream.key, shard.shard_id, entry.size, now_ms):
        code = "ProvisionedThroughputExceededException"
        return {"ErrorCode": code, "ErrorMessage": exceeded_message(stream.name, shard.shard_id)}
    sequence = shard.put(entry.key, entry.text, entry.size, now_ms)
    return {"SequenceNumber": str(sequence), "ShardId": shard.shard_id}


def _entry(stream: Stream, params: Params) -> _Entry:
    key = params.text_or("PartitionKey", "") if stream.spreads else params.text("PartitionKey")
    if not 1 <= len(key) <= 256 and (params.has("PartitionKey") or not stream.spreads):
        message = f"1 validation error detected: Value at 'partitionKey' has length {len(key)}; it must be between 1 and 256"
        raise malformed(message)
    raw_key = key.encode()
    text, data_size = blob(params.members.get("Data"))
    size = data_size + len(raw_key)
    if data_size > stream.max_record_bytes:
        message = (
            f"1 validation error detected: Value at 'data' has {data_size} bytes; stream {stream.name} allows "
            f"{stream.max_record_bytes} (UpdateMaxRecordSize raises that up to 10240 KiB)"
        )
        raise malformed(message)
    return _Entry(_hash_key(stream, params, raw_key), orjson.dumps(key) if key else b"", text, size)


def _hash_key(stream: Stream, params: Params, raw_key: bytes) -> int | None:
    if stream.spreads:
        return None
    if params.has("ExplicitHashKey"):
        return hash_key_of(params.text("ExplicitHashKey"))
    return int.from_bytes(hashlib.md5(raw_key, usedforsecurity=False).digest())


def _token(state: State, stream: Stream, shard: Shard, after: int, now_ms: int) -> str:
    return state.tokens.iterator(Iterator(stream.key, stream.created_ms, shard.shard_id, after, now_ms))
