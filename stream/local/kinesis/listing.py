"""Shards: list, split, merge, scale."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from stream.local.kinesis.errors import in_use, invalid, malformed
from stream.local.kinesis.model import Stream
from stream.local.kinesis.protocol import Members, Params
from stream.local.kinesis.shards import Shard
from stream.local.kinesis.state import Call, State, hash_range


def list_shards(state: State, call: Call) -> Members:
    """A page of the stream's shards that pass the filter, by id."""
    params = call.params
    if params.has("NextToken"):
        for member in ("StreamName", "StreamARN"):
            if params.has(member):
                message = f"NextToken and {member} cannot be provided together."
                raise invalid(message)
        page = state.tokens.read_page(params.text("NextToken"), call.now_ms)
        stream = state.account.find(page["stream"], call.now_ms)
        after, listed = page["after"], set(page["listed"].split())
        shards = [shard for shard in stream.shards.values() if shard.shard_id in listed and shard.shard_id > after]
    else:
        stream = state.stream(call)
        if stream.status(call.now_ms) == "CREATING":
            message = f"Stream {stream.name} is CREATING; its shards can be listed when it is ACTIVE."
            raise in_use(message)
        after = params.text_or("ExclusiveStartShardId", "")
        shards = [shard for shard in _filtered(stream, params.structure("ShardFilter"), call.now_ms) if shard.shard_id > after]
    limit = params.integer_or("MaxResults", 1, 10_000, 1000)
    reply: Members = {"Shards": [shard_members(shard) for shard in shards[:limit]]}
    if len(shards) > limit:
        rest = " ".join(shard.shard_id for shard in shards[limit:])
        reply["NextToken"] = state.tokens.page({"stream": stream.key, "after": shards[limit - 1].shard_id, "listed": rest}, call.now_ms)
    return reply


def split_shard(state: State, call: Call) -> None:
    """One open shard becomes two."""
    stream = state.changing(call)
    at = call.params.text("NewStartingHashKey")
    if not at.isascii() or not at.isdecimal() or len(at) > 39:
        message = f"NewStartingHashKey must be a decimal number in 0..2^128-1, got '{at}'"
        raise malformed(message)
    stream.split(call.params.text("ShardToSplit"), int(at), call.now_ms)
    state.account.touch(stream, "UPDATING", call.now_ms)


def merge_shards(state: State, call: Call) -> None:
    """Two open neighbours become one."""
    stream = state.changing(call)
    stream.merge(call.params.text("ShardToMerge"), call.params.text("AdjacentShardToMerge"), call.now_ms)
    state.account.touch(stream, "UPDATING", call.now_ms)


def update_shard_count(state: State, call: Call) -> Members:
    """Uniform scaling to between half and twice the open shards."""
    stream = state.changing(call)
    current = len(stream.open_shards)
    target = call.params.integer("TargetShardCount", 1, state.settings.shard_limit)
    if not (current + 1) // 2 <= target <= 2 * current:
        message = f"TargetShardCount {target} is not between half and twice the {current} open shards of stream {stream.name}."
        raise invalid(message)
    stream.scale(target, call.now_ms)
    state.account.touch(stream, "UPDATING", call.now_ms)
    return {"StreamName": stream.name, "StreamARN": stream.arn, "CurrentShardCount": current, "TargetShardCount": target}


def shard_members(shard: Shard) -> Members:
    """A shard as DescribeStream and ListShards show it."""
    numbers: Members = {"StartingSequenceNumber": str(shard.starting_sequence)}
    if shard.ending_sequence is not None:
        numbers["EndingSequenceNumber"] = str(shard.ending_sequence)
    members: Members = {"ShardId": shard.shard_id, "HashKeyRange": hash_range(shard), "SequenceNumberRange": numbers}
    members.update(zip(("ParentShardId", "AdjacentParentShardId"), shard.parents, strict=False))
    return members


def _filtered(stream: Stream, wanted: Params | None, now_ms: int) -> list[Shard]:
    everything = list(stream.shards.values())
    if wanted is None:
        return everything
    kind = wanted.text("Type")
    passes = _FILTERS.get(kind)
    if passes is None:
        message = f"1 validation error detected: Value '{kind}' at 'shardFilter.type' must be one of {', '.join(_FILTERS)}"
        raise malformed(message)
    test = passes(stream, wanted, now_ms)
    return [shard for shard in everything if test(shard)]


def _at_trim_horizon(stream: Stream, _wanted: Params, now_ms: int) -> Callable[[Shard], bool]:
    horizon = stream.horizon(now_ms)
    return lambda shard: shard.open_at(horizon)


def _at_timestamp(stream: Stream, wanted: Params, now_ms: int) -> Callable[[Shard], bool]:
    moment = max(wanted.moment("Timestamp"), stream.horizon(now_ms))
    return lambda shard: shard.open_at(moment)


def _from_timestamp(stream: Stream, wanted: Params, now_ms: int) -> Callable[[Shard], bool]:
    moment = max(wanted.moment("Timestamp"), stream.horizon(now_ms))
    return lambda shard: shard.closed_ms is None or shard.closed_ms > moment


def _after_shard_id(_stream: Stream, wanted: Params, _now_ms: int) -> Callable[[Shard], bool]:
    after = wanted.text("ShardId")
    return lambda shard: shard.shard_id > after


_FILTERS: Final[dict[str, Callable[[Stream, Params, int], Callable[[Shard], bool]]]] = {
    "AFTER_SHARD_ID": _after_shard_id,
    "AT_TRIM_HORIZON": _at_trim_horizon,
    "FROM_TRIM_HORIZON": lambda _stream, _wanted, _now: lambda _shard: True,
    "AT_LATEST": lambda _stream, _wanted, _now: lambda shard: shard.is_open,
    "AT_TIMESTAMP": _at_timestamp,
    "FROM_TIMESTAMP": _from_timestamp,
}
