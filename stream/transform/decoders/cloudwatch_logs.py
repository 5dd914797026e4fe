"""Log events as a CloudWatch Logs subscription sends them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Final

import msgspec
import numpy as np
import polars as pl
from pydantic import Field

from stream.transform.decoders.envelope import BadEnvelopeError, Envelope, Payload, checked_micros
from stream.transform.decoders.envelope_kernel import Envelopes, Form, Member, Opened, as_mask
from stream.transform.decompress import Codec, Compression
from stream.transform.stage import Example
from stream.transform.types import TIMESTAMP


class _Event(msgspec.Struct):
    id: str
    timestamp: int
    message: str


class _Document(msgspec.Struct, rename="camel"):
    """https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/SubscriptionFilters.html."""

    message_type: str
    owner: str = ""
    log_group: str = ""
    log_stream: str = ""
    log_events: list[_Event] = []


_DECODER: Final = msgspec.json.Decoder(_Document)
_EVENT: Final = (Member("id"), Member("timestamp", Form.MILLISECONDS), Member("message", Form.STRING))
_MEMBERS: Final = (*map(Member, ("messageType", "owner", "logGroup", "logStream")), Member("logEvents", Form.LIST, members=_EVENT))


class CloudwatchLogs(Envelope):
    """Read the log events of a CloudWatch Logs subscription, one row each; records are gzip'd unless `compression` says otherwise.

    With a schema, each message is read as one JSON object. Control messages, with which the service tests the stream, are filtered.
    Reasons: ``bad_compression``, ``decompressed_too_large``, ``bad_envelope``, ``json_too_deep``, and those of ``json`` for messages.
    """

    name: ClassVar[str] = "cloudwatch_logs"
    expands: ClassVar[bool] = True
    example: ClassVar[Example] = Example(
        config={"compression": "none"},
        given=[
            {
                "_data": '{"messageType": "DATA_MESSAGE", "owner": "123456789012", "logGroup": "g", "logStream": "s", "logEvents": '
                '[{"id": "1", "timestamp": 1357020000000, "message": "{\\"a\\": 1, \\"b\\": \\"x\\"}"}]}'
            },
            {"_data": '{"messageType": "CONTROL_MESSAGE", "logEvents": []}'},
        ],
        expect=[
            {
                "owner": "123456789012",
                "log_group": "g",
                "log_stream": "s",
                "event_id": "1",
                "event_time": "2013-01-01T06:00:00Z",
                "a": 1,
                "b": "x",
            }
        ],
    )
    head: ClassVar[pl.Schema] = pl.Schema(
        {
            "owner": pl.String(),
            "log_group": pl.String(),
            "log_stream": pl.String(),
            "event_id": pl.String(),
            "event_time": TIMESTAMP,
        }
    )
    body: ClassVar[str] = "message"

    compression: Compression | None = Field(
        default=Compression(codec=Codec.GZIP), description="How each record is compressed: gzip as CloudWatch sends it, or none."
    )

    def opener(self, kernel: Any) -> Callable[[pl.Series], Opened]:
        """Opens data messages and filters control messages."""
        envelopes = Envelopes(kernel, _MEMBERS)

        def opened(records: pl.Series) -> Opened:
            found, bad = envelopes.read(records)
            rows = as_mask(found["messageType"] == "DATA_MESSAGE")
            marked = ~rows & ~as_mask(found["messageType"] == "CONTROL_MESSAGE") | bad
            parents = np.repeat(np.arange(len(rows), dtype=np.uint32), found["logEvents"].to_numpy())
            events = [found[f"logEvents.{part}"] for part in ("id", "timestamp", "message")]
            if not rows.all():
                wanted = pl.Series(rows[parents])
                parents, events = parents[wanted.to_numpy()], [column.filter(wanted) for column in events]
            places = pl.Series(parents)
            shared = [found[part].gather(places) for part in ("owner", "logGroup", "logStream")]
            head = [column.alias(name) for column, name in zip((*shared, *events[:2]), self.head, strict=True)]
            return Opened(parents, pl.DataFrame(head), events[2], marked if marked.any() else None)

        return opened

    def open(self, record: bytes) -> Sequence[Payload]:
        """One payload per log event."""
        document = _DECODER.decode(record)
        if document.message_type == "CONTROL_MESSAGE":
            return ()
        if document.message_type != "DATA_MESSAGE":
            raise BadEnvelopeError
        common = (document.owner, document.log_group, document.log_stream)
        return [
            Payload((*common, event.id, checked_micros(event.timestamp * 1000)), event.message.encode()) for event in document.log_events
        ]
