"""Events with which Amazon Data Firehose asks a function to transform records: what they hold. Pure.

The format is that of https://docs.aws.amazon.com/firehose/latest/dev/data-transformation.html. Records of a Kinesis stream say where they
come from; Firehose has opened KPL aggregates by then, so each is one user record. Records that were put into Firehose directly have only
their id.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import polars as pl

from stream.batch import (
    ARRIVAL,
    ATTEMPT,
    DATA,
    FIRST_READ,
    OUTCOME,
    PARTITION_KEY,
    RAW_SCHEMA,
    SEQUENCE,
    SHARD,
    SUBSEQUENCE,
    Batch,
    Outcome,
)
from stream.errors import DefinitionError
from stream.source.mapping import stream_of

_DELIVERY_STREAM: Final = ":deliverystream/"


@dataclass(frozen=True, slots=True)
class Transformation:
    """The records of one event. Row i of ``batch`` is the record ``ids[i]``; ``batch.first_read`` says where each was read.

    ``delivery_stream``: name of the Firehose stream. ``stream``: name of the Kinesis stream that it reads; empty if it reads none.
    """

    ids: tuple[str, ...]
    batch: Batch
    delivery_stream: str
    stream: str


def is_transformation(event: Any) -> bool:
    """Whether ``event`` comes from Firehose."""
    return isinstance(event, Mapping) and "deliveryStreamArn" in event and isinstance(event.get("records"), Sequence)


def transformation_of(event: Mapping[str, Any], *, several: bool = False, known: Collection[str] = ()) -> Transformation:
    """The records of ``event``, in its order. With ``several`` streams, ``_shard`` names the stream, too.

    ``known``: the pipeline's streams, some of which may be ids.

    Raises:
        DefinitionError: it is not as documented, or Firehose reads from a source whose records this host does not know.
    """
    source, records = event.get("sourceKinesisStreamArn"), event["records"]
    if any("kafkaRecordValue" in record for record in records[:1]):
        msg = "the Firehose stream reads Amazon MSK; a pipeline transforms records of a Kinesis stream, or such as are put into Firehose"
        raise DefinitionError(msg)
    delivery_stream = str(event["deliveryStreamArn"]).partition(_DELIVERY_STREAM)[2]
    stream = "" if source is None else stream_of(source, known)
    try:
        ids = tuple(str(record["recordId"]) for record in records)
        places = [_place(record, delivery_stream, stream if several else "") for record in records]
        arrivals = [int(record["approximateArrivalTimestamp"]) for record in records]
        contents = pl.Series(DATA, [record["data"] for record in records], pl.String()).str.decode("base64")
    except (KeyError, TypeError, ValueError, AttributeError, pl.exceptions.PolarsError) as error:
        what = f"a record has no {error}" if isinstance(error, KeyError) else "a record is not as documented"
        msg = f"this is no event of a Firehose stream with a data transformation: {what}"
        raise DefinitionError(msg) from error
    if len(set(ids)) != len(ids):
        msg = "two records of the event have the same recordId, so that they cannot be answered one by one"
        raise DefinitionError(msg)
    shards, sequences, subsequences, keys = zip(*places, strict=True) if places else ((), (), (), ())
    columns = {
        SEQUENCE: sequences,
        SUBSEQUENCE: subsequences,
        ARRIVAL: pl.Series(arrivals, dtype=pl.Int64()).cast(pl.Datetime("ms", "UTC")),
        PARTITION_KEY: keys,
        DATA: contents,
        OUTCOME: [int(Outcome.PENDING)] * len(ids),
    }
    origins = {SHARD: shards, SEQUENCE: sequences, SUBSEQUENCE: subsequences, ATTEMPT: [0] * len(ids)}
    batch = Batch.of(pl.DataFrame(columns, schema=RAW_SCHEMA), pl.DataFrame(origins, schema=FIRST_READ))
    return Transformation(ids, batch, delivery_stream, stream)


def _place(record: Mapping[str, Any], delivery_stream: str, stream: str) -> tuple[str, str, int, str]:
    """Shard, sequence number, sub-sequence number and partition key of a record."""
    found = record.get("kinesisRecordMetadata")
    if found is None:
        return delivery_stream, str(record["recordId"]), 0, ""
    shard = f"{stream}/{found['shardId']}" if stream else str(found["shardId"])
    return shard, str(found["sequenceNumber"]), int(found.get("subsequenceNumber") or 0), str(found.get("partitionKey") or "")
