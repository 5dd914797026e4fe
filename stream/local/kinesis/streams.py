"""Streams and consumers: create, describe, list, change, delete, register."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from stream.local.kinesis.errors import in_use, invalid, malformed, not_found, over_limit
from stream.local.kinesis.listing import shard_members
from stream.local.kinesis.model import MAX_RETENTION_HOURS, Consumer, Stream
from stream.local.kinesis.protocol import Members, Params, Timestamp
from stream.local.kinesis.state import Call, State, key_of

ON_DEMAND_SHARDS: Final = 4
MAX_CONSUMERS: Final = 20
_KIB: Final = 1024
_DISTRIBUTION: Final = "RecordDistributionStrategy"
_STRATEGIES: Final = {"AUTO": True, "USER_PARTITION_KEY": False}
"""Whether a stream with that strategy spreads its records."""


def create_stream(state: State, call: Call) -> None:
    """A new stream; on-demand streams begin with four shards."""
    params = call.params
    details = params.structure("StreamModeDetails")
    mode = details.text("StreamMode") if details else "PROVISIONED"
    count = ON_DEMAND_SHARDS if mode == "ON_DEMAND" else params.integer("ShardCount", 1, state.settings.shard_limit)
    kib = params.integer_or("MaxRecordSizeInKiB", 1024, 10240, 1024)
    key = key_of(params.text("StreamName"), state.settings.account, call.account)
    stream = state.account.create(key, count, mode, kib * _KIB, call.now_ms)
    stream.tags.update(_tags(params))
    if params.has(_DISTRIBUTION):
        _set_distribution(stream, params)


def delete_stream(state: State, call: Call) -> None:
    """Remove a stream and all its records."""
    stream = state.stream(call)
    if stream.consumers and not call.params.members.get("EnforceConsumerDeletion"):
        message = f"Stream {stream.name} has consumers; deregister them or set EnforceConsumerDeletion."
        raise in_use(message)
    state.account.delete(stream, call.now_ms)


def describe_stream(state: State, call: Call) -> Members:
    """The stream and a page of its shards."""
    stream = state.stream(call)
    limit = min(100, call.params.integer_or("Limit", 1, 10_000, 100))
    after = call.params.text_or("ExclusiveStartShardId", "")
    shards = [shard for shard in stream.shards.values() if shard.shard_id > after]
    description = _description(stream, call.now_ms)
    description |= {"Shards": [shard_members(shard) for shard in shards[:limit]], "HasMoreShards": len(shards) > limit}
    return {"StreamDescription": description}


def describe_stream_summary(state: State, call: Call) -> Members:
    """The stream without its shards."""
    stream = state.stream(call)
    summary = _description(stream, call.now_ms)
    summary |= {
        "OpenShardCount": len(stream.open_shards),
        "ConsumerCount": len(stream.consumers),
        "MaxRecordSizeInKiB": stream.max_record_bytes // _KIB,
    }
    if stream.mode == "ON_DEMAND":
        summary[_DISTRIBUTION] = next(name for name, spreads in _STRATEGIES.items() if spreads is stream.spreads)
    return {"StreamDescriptionSummary": summary}


def list_streams(state: State, call: Call) -> Members:
    """A page of the account's streams, by name."""
    state.account.forget_deleted(call.now_ms)
    limit = call.params.integer_or("Limit", 1, 10_000, 100)
    after = call.params.text_or("ExclusiveStartStreamName", "")
    if call.params.has("NextToken"):
        after = state.tokens.read_page(call.params.text("NextToken"), call.now_ms)["after"]
    home = state.settings.account
    own = {stream.name: stream for key, stream in state.account.streams.items() if key == key_of(stream.name, home, call.account)}
    names = sorted(name for name in own if name > after)
    page = [own[name] for name in names[:limit]]
    reply: Members = {
        "StreamNames": [stream.name for stream in page],
        "HasMoreStreams": len(names) > limit,
        "StreamSummaries": [_summary(stream, call.now_ms) for stream in page],
    }
    if len(names) > limit:
        reply["NextToken"] = state.tokens.page({"after": page[-1].name}, call.now_ms)
    return reply


def increase_retention(state: State, call: Call) -> None:
    """Keep records longer."""
    _set_retention(state, call, lambda new, old: new >= old, "greater than or equal to")


def decrease_retention(state: State, call: Call) -> None:
    """Keep records for a shorter time; those that are then too old are gone at once."""
    _set_retention(state, call, lambda new, old: new <= old, "less than or equal to")


def update_max_record_size(state: State, call: Call) -> None:
    """Allow records up to 10 MiB."""
    stream = state.changing(call)
    stream.max_record_bytes = call.params.integer("MaxRecordSizeInKiB", 1024, 10240) * _KIB
    state.account.touch(stream, "UPDATING", call.now_ms)


def update_stream_mode(state: State, call: Call) -> None:
    """Provisioned to on demand and back; the shards stay as they are."""
    stream = state.changing(call)
    details = call.params.structure("StreamModeDetails") or Params({})
    stream.mode = details.text("StreamMode")
    state.account.touch(stream, "UPDATING", call.now_ms)


def update_distribution(state: State, call: Call) -> None:
    """Spread the records that come from now on over all shards, or place them by their keys."""
    _set_distribution(state.changing(call), call.params)


def add_tags(state: State, call: Call) -> None:
    """Set tags."""
    state.stream(call).tags.update(_tags(call.params))


def remove_tags(state: State, call: Call) -> None:
    """Remove tags; unknown keys are ignored."""
    tags = state.stream(call).tags
    for key in call.params.items("TagKeys"):
        tags.pop(key, None)


def list_tags(state: State, call: Call) -> Members:
    """All tags, by key."""
    tags = state.stream(call).tags
    return {"Tags": [{"Key": key, "Value": tags[key]} for key in sorted(tags)], "HasMoreTags": False}


def describe_limits(state: State, call: Call) -> Members:
    """The account's shard limit and use."""
    state.account.forget_deleted(call.now_ms)
    streams = state.account.streams.values()
    return {
        "ShardLimit": state.settings.shard_limit,
        "OpenShardCount": sum(len(stream.open_shards) for stream in streams),
        "OnDemandStreamCount": sum(stream.mode == "ON_DEMAND" for stream in streams),
        "OnDemandStreamCountLimit": 50,
    }


def register_consumer(state: State, call: Call) -> Members:
    """A new consumer, ``ACTIVE`` after the transition."""
    stream = state.serving(call)
    name = call.params.text("ConsumerName")
    if name in stream.consumers:
        message = f"Consumer {name} of stream {stream.name} already exists."
        raise in_use(message)
    if len(stream.consumers) >= MAX_CONSUMERS:
        message = f"Stream {stream.name} has {MAX_CONSUMERS} consumers already."
        raise over_limit(message)
    arn = f"{stream.arn}/consumer/{name}:{call.now_ms // 1000}"
    consumer = Consumer(name, arn, call.now_ms, call.now_ms + state.settings.transition_ms)
    stream.consumers[name] = consumer
    return {"Consumer": _consumer(consumer, call.now_ms)}


def describe_consumer(state: State, call: Call) -> Members:
    """One consumer, by ARN or by stream and name."""
    stream, consumer = find_consumer(state, call)
    return {"ConsumerDescription": _consumer(consumer, call.now_ms) | {"StreamARN": stream.arn}}


def deregister_consumer(state: State, call: Call) -> None:
    """Remove a consumer; its subscriptions end."""
    stream, consumer = find_consumer(state, call)
    del stream.consumers[consumer.name]


def list_consumers(state: State, call: Call) -> Members:
    """A page of a stream's consumers, by name."""
    stream = state.stream(call)
    limit = call.params.integer_or("MaxResults", 1, 10_000, 100)
    after = ""
    if call.params.has("NextToken"):
        after = state.tokens.read_page(call.params.text("NextToken"), call.now_ms)["after"]
    names = sorted(name for name in stream.consumers if name > after)
    reply: Members = {"Consumers": [_consumer(stream.consumers[name], call.now_ms) for name in names[:limit]]}
    if len(names) > limit:
        reply["NextToken"] = state.tokens.page({"after": names[limit - 1]}, call.now_ms)
    return reply


def find_consumer(state: State, call: Call) -> tuple[Stream, Consumer]:
    """The consumer that the call names by ``ConsumerARN`` or by stream and ``ConsumerName``.

    Raises:
        ApiError: there is none.
    """
    stream = state.stream(call)
    arn = call.params.text_or("ConsumerARN", "")
    name = call.params.text_or("ConsumerName", "")
    for consumer in stream.consumers.values():
        if consumer.arn == arn or (not arn and consumer.name == name):
            return stream, consumer
    message = f"Consumer {arn or name} of stream {stream.name} does not exist."
    raise not_found(message)


def _set_retention(state: State, call: Call, allowed: Callable[[int, int], bool], words: str) -> None:
    stream = state.changing(call)
    hours = call.params.integer("RetentionPeriodHours", 24, MAX_RETENTION_HOURS)
    if not allowed(hours, stream.retention_hours):
        message = f"Retention period of {hours} hours for stream {stream.name} must be {words} {stream.retention_hours} hours."
        raise invalid(message)
    stream.retention_hours = hours
    state.account.touch(stream, "UPDATING", call.now_ms)


def _set_distribution(stream: Stream, params: Params) -> None:
    name = params.text(_DISTRIBUTION)
    if name not in _STRATEGIES:
        message = f"1 validation error detected: Value '{name}' at '{_DISTRIBUTION}' must be one of {', '.join(_STRATEGIES)}"
        raise malformed(message)
    if stream.mode != "ON_DEMAND":
        message = f"Stream {stream.name} is {stream.mode}; only streams on demand have a record distribution strategy."
        raise invalid(message)
    stream.spreads = _STRATEGIES[name]


def _tags(params: Params) -> dict[str, Any]:
    tags = params.structure("Tags")
    return tags.members if tags else {}


def _description(stream: Stream, now_ms: int) -> Members:
    return _summary(stream, now_ms) | {
        "RetentionPeriodHours": stream.retention_hours,
        "EnhancedMonitoring": [{"ShardLevelMetrics": []}],
        "EncryptionType": "NONE",
    }


def _summary(stream: Stream, now_ms: int) -> Members:
    return {
        "StreamName": stream.name,
        "StreamARN": stream.arn,
        "StreamStatus": stream.status(now_ms),
        "StreamModeDetails": {"StreamMode": stream.mode},
        "StreamCreationTimestamp": Timestamp(stream.created_ms),
    }


def _consumer(consumer: Consumer, now_ms: int) -> Members:
    return {
        "ConsumerName": consumer.name,
        "ConsumerARN": consumer.arn,
        "ConsumerStatus": consumer.status(now_ms),
        "ConsumerCreationTimestamp": Timestamp(consumer.created_ms),
    }
