"""Every operation by its name in ``X-Amz-Target``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from stream.local.kinesis import listing, records, streams
from stream.local.kinesis.errors import ApiError
from stream.local.kinesis.protocol import Params, Reply
from stream.local.kinesis.state import Call, State, stream_key

Operation: TypeAlias = Callable[[State, Call], Reply | None]

OPERATIONS: Final[dict[str, Operation]] = {
    "AddTagsToStream": streams.add_tags,
    "CreateStream": streams.create_stream,
    "DecreaseStreamRetentionPeriod": streams.decrease_retention,
    "DeleteStream": streams.delete_stream,
    "DeregisterStreamConsumer": streams.deregister_consumer,
    "DescribeLimits": streams.describe_limits,
    "DescribeStream": streams.describe_stream,
    "DescribeStreamConsumer": streams.describe_consumer,
    "DescribeStreamSummary": streams.describe_stream_summary,
    "GetRecords": records.get_records,
    "GetShardIterator": records.get_shard_iterator,
    "IncreaseStreamRetentionPeriod": streams.increase_retention,
    "ListShards": listing.list_shards,
    "ListStreamConsumers": streams.list_consumers,
    "ListStreams": streams.list_streams,
    "ListTagsForStream": streams.list_tags,
    "MergeShards": listing.merge_shards,
    "PutRecord": records.put_record,
    "PutRecords": records.put_records,
    "RegisterStreamConsumer": streams.register_consumer,
    "RemoveTagsFromStream": streams.remove_tags,
    "SplitShard": listing.split_shard,
    "UpdateMaxRecordSize": streams.update_max_record_size,
    "UpdateShardCount": listing.update_shard_count,
    "UpdateStreamMode": streams.update_stream_mode,
    "UpdateStreamRecordDistributionStrategy": streams.update_distribution,
}
"""All but SubscribeToShard, whose reply is a stream (``subscribe.py``)."""


def target(state: State, params: Params) -> tuple[str | None, str | None]:
    """Stream and shard of a request, as far as it names them, for matching faults. Never raises."""
    try:
        if params.has("ShardIterator"):
            where = state.tokens.read_iterator(params.text("ShardIterator"), 0, 0)
            return where.stream, where.shard_id
        name = (
            stream_key(params, state.settings.account, "") if params.members.keys() & {"StreamName", "StreamARN", "ConsumerARN"} else None
        )
        shard = next((params.text(member) for member in ("ShardId", "ShardToSplit", "ShardToMerge") if params.has(member)), None)
    except ApiError:
        return None, None
    return name, shard
