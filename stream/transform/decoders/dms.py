"""Rows and changes of a database as the Database Migration Service sends them to a Kinesis stream."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Final

import msgspec
import polars as pl
from pydantic import Field

from stream.transform.decoders.envelope import BadEnvelopeError, Envelope, Payload, checked_micros
from stream.transform.decoders.envelope_kernel import Envelopes, Form, Member, Opened, Presence, as_mask, first_bytes, one_payload_each
from stream.transform.stage import Example
from stream.transform.types import TIMESTAMP

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class _Metadata(msgspec.Struct, rename="kebab"):
    record_type: str
    operation: str
    timestamp: str | None = None
    commit_timestamp: str | None = None
    schema_name: str | None = None
    table_name: str | None = None
    transaction_id: int | None = None


class _Document(msgspec.Struct):
    """https://docs.aws.amazon.com/dms/latest/userguide/CHAP_Target.Kinesis.html."""

    metadata: _Metadata
    data: msgspec.Raw = msgspec.Raw(b"")


_DECODER: Final = msgspec.json.Decoder(_Document)
_MEMBERS: Final = (
    Member("data", Form.VALUE, Presence.ANY),
    Member(
        "metadata",
        Form.OBJECT,
        members=(
            Member("timestamp", Form.MOMENT, Presence.ANY),
            Member("record-type"),
            Member("operation"),
            Member("schema-name", presence=Presence.ANY),
            Member("table-name", presence=Presence.ANY),
            Member("transaction-id", Form.WHOLE, Presence.ANY),
            Member("commit-timestamp", Form.MOMENT, Presence.ANY),
        ),
    ),
)


class Dms(Envelope):
    """Read what the Database Migration Service sends: one row per row loaded, inserted, updated or deleted.

    With a schema, the table's columns are read. Control records (`create-table` and the like) and tables other than `table` are
    filtered. Reasons: ``bad_envelope``, ``json_too_deep``, and those of ``json``.
    """

    name: ClassVar[str] = "dms"
    example: ClassVar[Example] = Example(
        config={"table": "public.flights"},
        given=[
            {
                "_data": '{"data": {"a": 1, "b": "x"}, "metadata": {"timestamp": "2013-01-01T06:00:00.000000Z", "record-type": "data", '
                '"operation": "insert", "partition-key-type": "schema-table", "schema-name": "public", "table-name": "flights", '
                '"transaction-id": 7}}'
            },
            {"_data": '{"metadata": {"record-type": "control", "operation": "create-table", "schema-name": "public"}}'},
        ],
        expect=[
            {
                "operation": "insert",
                "schema_name": "public",
                "table_name": "flights",
                "transaction_id": 7,
                "changed_at": "2013-01-01T06:00:00Z",
                "a": 1,
                "b": "x",
            }
        ],
    )
    head: ClassVar[pl.Schema] = pl.Schema(
        {
            "operation": pl.String(),
            "schema_name": pl.String(),
            "table_name": pl.String(),
            "transaction_id": pl.Int64(),
            "changed_at": TIMESTAMP,
        }
    )
    body: ClassVar[str] = "data"

    table: str | None = Field(
        default=None, pattern=r"^[^.]+\.[^.]+$", description="The one table to read, as `schema.table`; by default, all."
    )

    def opener(self, kernel: Any) -> Callable[[pl.Series], Opened]:
        """Opens data records and filters control records and those of other tables."""
        envelopes = Envelopes(kernel, _MEMBERS)
        wanted = None if self.table is None else self.table.split(".")

        def opened(records: pl.Series) -> Opened:
            found, bad = envelopes.read(records)
            kind, payload = found["metadata.record-type"], found["data"]
            rows = as_mask(kind == "data") & (first_bytes(payload) == ord("{"))
            marked = ~rows & ~as_mask(kind == "control") | bad
            if wanted is not None:
                schema, table = (found[f"metadata.{part}-name"] for part in ("schema", "table"))
                marked |= rows & as_mask(schema.is_null() | table.is_null())
                rows &= as_mask((schema == wanted[0]) & (table == wanted[1]))
            moment = found["metadata.commit-timestamp"]
            head = pl.DataFrame(
                [
                    found["metadata.operation"].alias("operation"),
                    found["metadata.schema-name"].alias("schema_name"),
                    found["metadata.table-name"].alias("table_name"),
                    found["metadata.transaction-id"].alias("transaction_id"),
                    (moment.zip_with(moment.is_not_null(), found["metadata.timestamp"])).alias("changed_at"),
                ]
            )
            return one_payload_each(head, payload, rows & ~marked, marked)

        return opened

    def open(self, record: bytes) -> Sequence[Payload]:
        """The row as it was sent."""
        document = _DECODER.decode(record)
        meta = document.metadata
        if meta.record_type == "control":
            return ()
        data = bytes(document.data)
        if meta.record_type != "data" or not data.lstrip().startswith(b"{"):
            raise BadEnvelopeError
        if self.table is not None and self.table != f"{meta.schema_name}.{meta.table_name}":
            return ()
        moment = meta.commit_timestamp or meta.timestamp
        transaction = meta.transaction_id
        if transaction is not None and not -(2**63) <= transaction < 2**63:
            raise BadEnvelopeError
        values = (meta.operation, meta.schema_name, meta.table_name, transaction, None if moment is None else _micros(moment))
        data.decode("utf-8")
        return [Payload(values, data)]


def _micros(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
        aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return checked_micros((aware - _EPOCH) // timedelta(microseconds=1))
    except (ValueError, OverflowError) as error:
        raise BadEnvelopeError from error
