"""Events of a Lambda event source mapping for a Kinesis stream: what they say about a shard. Pure.

The format is that of https://docs.aws.amazon.com/lambda/latest/dg/with-kinesis.html. Only places and times are read: the records
themselves are read from the stream.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from stream.errors import DefinitionError
from stream.stream_ids import stream_id

KINESIS: Final = "aws:kinesis"
_WINDOW: Final = "window"
_STREAM: Final = ":stream/"


@dataclass(frozen=True, slots=True)
class Delivery:
    """The records of one event: they are of one shard. ``numbers``: their sequence numbers, ascending, at least one.

    ``first_arrival`` and ``last_arrival``: when the oldest and the newest of them arrived in the stream.
    """

    stream: str
    shard_id: str
    numbers: tuple[int, ...]
    first_arrival: datetime
    last_arrival: datetime

    @property
    def last(self) -> int:
        """The greatest sequence number."""
        return self.numbers[-1]

    def first_after(self, position: int) -> int | None:
        """The first record after ``position``; None if there is none."""
        return next((number for number in self.numbers if number > position), None)


def is_delivery(event: Any) -> bool:
    """Whether ``event`` comes from an event source mapping, of whatever kind."""
    return isinstance(event, Mapping) and isinstance(event.get("Records"), Sequence)


def delivery_of(event: Mapping[str, Any], known: Collection[str] = ()) -> Delivery | None:
    """What ``event`` delivers; None if it has no records. ``known``: the pipeline's streams, some of which may be ids.

    Raises:
        DefinitionError: it is no event of a Kinesis mapping, or the mapping is set up in a way that a pipeline cannot work with.
    """
    if _WINDOW in event:
        msg = (
            "the event source mapping has a tumbling window, for which a function has to pass a state from call to call; a pipeline keeps "
            "its state in the commit log. Set TumblingWindowInSeconds to 0."
        )
        raise DefinitionError(msg)
    records = event["Records"]
    if not records:
        return None
    try:
        places = {(record["eventSource"], record["eventSourceARN"], record["eventID"].partition(":")[0]) for record in records}
        numbers = sorted({int(record["kinesis"]["sequenceNumber"]) for record in records})
        arrivals = [float(record["kinesis"]["approximateArrivalTimestamp"]) for record in records]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        msg = (
            f"this is no event of a mapping for a Kinesis stream: {_missing(error)}; map the function to a stream, or to a consumer of one"
        )
        raise DefinitionError(msg) from error
    if len(places) != 1:
        msg = f"the event has records of {len(places)} shards; a mapping for a Kinesis stream delivers those of one shard at a time"
        raise DefinitionError(msg)
    ((kind, arn, shard_id),) = places
    if kind != KINESIS:
        msg = f"the event comes from {kind}; a pipeline reads Kinesis streams: map the function to one, or to a consumer of one"
        raise DefinitionError(msg)
    first, last = (datetime.fromtimestamp(round(moment, 3), UTC) for moment in (min(arrivals), max(arrivals)))
    return Delivery(stream_of(arn, known), shard_id, tuple(numbers), first, last)


def stream_of(arn: str, known: Collection[str] = ()) -> str:
    """The stream that an ARN names: of the stream itself, or of one of its consumers (enhanced fan-out).

    By its id if that is among ``known``, otherwise by its name.

    Raises:
        DefinitionError: it names neither.
    """
    name = arn.partition(_STREAM)[2].partition("/")[0]
    if not name:
        msg = f"eventSourceARN is {arn!r}, which names no Kinesis stream; it should read arn:aws:kinesis:REGION:ACCOUNT:stream/NAME"
        raise DefinitionError(msg)
    named = stream_id(arn.partition("/consumer/")[0])
    return named if named in known else name


def _missing(error: Exception) -> str:
    """What is wrong, without the words of a value."""
    return f"a record has no {error}" if isinstance(error, KeyError) else "a record is not as documented"
