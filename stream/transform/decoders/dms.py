"""Rows and changes of a database as the Database Migration Service sends them to a Kinesis stream."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Final

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import Field, model_validator

from stream.transform.decoders.envelope import BEFORE, BadEnvelopeError, Envelope, Payload, checked_micros
from stream.transform.decoders.envelope_kernel import Envelopes, Form, Member, Opened, Presence, as_mask, first_bytes, one_payload_each
from stream.transform.shorthands import one_or_more
from stream.transform.stage import Example, SchemaMismatch
from stream.transform.types import TIMESTAMP, RecordSchema

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
_PARTS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_UPDATE: Final = "update"
_DELETE: Final = "delete"
_NULL: Final = b"null"
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
    filtered. With `before_image`, the column `before` is an object with the columns of the schema as they were before an update, as far
    as DMS sends them; it is null for rows without a before-image. See [Changes of a database](../../changes.md). Reasons:
    ``bad_envelope``, ``json_too_deep``, and those of ``json``, such as ``wrong_type:before.amount``.
    """

    name: ClassVar[str] = "dms"
    example: ClassVar[Example] = Example(
        config={"table": "public.flights", "before_image": "before-image", "keys": ["a"]},
        given=[
            {
                "_data": '{"data": {"a": 1, "b": "x"}, "metadata": {"timestamp": "2013-01-01T06:00:00.000000Z", "record-type": "data", '
                '"operation": "insert", "partition-key-type": "schema-table", "schema-name": "public", "table-name": "flights", '
                '"transaction-id": 7}}'
            },
            {"_data": '{"metadata": {"record-type": "control", "operation": "create-table", "schema-name": "public"}}'},
            {
                "_data": '{"data": {"a": 2, "b": "y"}, "before-image": {"a": 1, "b": "x"}, '
                '"metadata": {"timestamp": "2013-01-01T06:00:01.000000Z", "record-type": "data", "operation": "update", '
                '"schema-name": "public", "table-name": "flights", "transaction-id": 8}}'
            },
        ],
        expect=[
            {
                "operation": "insert",
                "schema_name": "public",
                "table_name": "flights",
                "transaction_id": 7,
                "changed_at": "2013-01-01T06:00:00Z",
                "before": None,
                "a": 1,
                "b": "x",
            },
            {
                "operation": "delete",
                "schema_name": "public",
                "table_name": "flights",
                "transaction_id": 8,
                "changed_at": "2013-01-01T06:00:01Z",
                "before": {"a": 1, "b": "x"},
                "a": 1,
                "b": "x",
            },
            {
                "operation": "update",
                "schema_name": "public",
                "table_name": "flights",
                "transaction_id": 8,
                "changed_at": "2013-01-01T06:00:01Z",
                "before": {"a": 1, "b": "x"},
                "a": 2,
                "b": "y",
            },
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
    before_image: str | None = Field(
        default=None,
        min_length=1,
        description="Member with the row before an update: the `FieldName` of the task's `BeforeImageSettings`. Adds the column `before`.",
    )
    keys: tuple[str, ...] = Field(
        default=(),
        max_length=16,
        description="With `before_image`: columns that identify a row. An update that changes one of them becomes two rows: a `delete` of "
        "the old key, then the `update`.",
    )

    _one_key = one_or_more("keys")

    @model_validator(mode="after")
    def _consistent(self) -> Dms:
        if self.keys and self.before_image is None:
            msg = "`keys` needs `before_image`: without it, nobody knows which key a row had before an update"
            raise ValueError(msg)
        if self.before_image in {"data", "metadata", "control"}:
            msg = (
                f"`before_image` is the name of the member that DMS adds to records, and {self.before_image!r} is one that each has anyway"
            )
            raise ValueError(msg)
        return self

    def expanding(self) -> bool:
        """An update of a key is two rows."""
        return bool(self.keys)

    def repeated(self) -> str | None:
        """``before``, if before-images are read."""
        return None if self.before_image is None else BEFORE

    def output(self, schema: RecordSchema | None) -> pl.Schema:
        """The columns of the envelope, then the table's or the row as text."""
        columns = super().output(schema)
        for key in self.keys:
            if schema is not None and key not in schema.polars():
                message = f"the decoder dms has {key!r} among its `keys`, and the schema has no such column"
                raise SchemaMismatch((), message, f"columns here: {', '.join(schema.polars())}")
        return columns

    def opener(self, kernel: Any) -> Callable[[pl.Series], Opened]:
        """Opens data records, and filters control records and those of other tables. Leaves updates of keys to ``open``."""
        image = () if self.before_image is None else (Member(self.before_image, Form.VALUE, Presence.ANY),)
        envelopes = Envelopes(kernel, (*_MEMBERS, *image))
        moved = _mover(kernel, self.keys) if self.keys else None
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
            if self.before_image is None:
                return one_payload_each(head, payload, rows & ~marked, marked)
            before = found[self.before_image]
            known = first_bytes(before) == ord("{")
            marked |= rows & ~known & _holds(before)
            if moved is not None:
                places = np.flatnonzero(rows & known & ~marked & as_mask(found["metadata.operation"] == _UPDATE))
                marked[places[moved(before.gather(places), payload.gather(places))]] = True
            earlier = before if known.all() else before.zip_with(pl.Series(known), pl.Series([None], dtype=pl.Binary()))
            return one_payload_each(head, payload, rows & ~marked, marked, earlier)

        return opened

    def open(self, record: bytes) -> Sequence[Payload]:
        """The row as it was sent; for an update of its key, the deletion of the old one first."""
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
        before = self._before(record)
        gone = self._old_row(before, data) if before is not None and meta.operation == _UPDATE else None
        row = Payload(values, data, before)
        return [row] if gone is None else [Payload((_DELETE, *values[1:]), gone, before), row]

    def _before(self, record: bytes) -> bytes | None:
        """The before-image; None if there is none."""
        if self.before_image is None:
            return None
        found = bytes(_PARTS.decode(record).get(self.before_image, msgspec.Raw(_NULL)))
        if found == _NULL:
            return None
        if not found.startswith(b"{"):
            raise BadEnvelopeError
        found.decode("utf-8")
        return found

    def _old_row(self, before: bytes, data: bytes) -> bytes | None:
        """What is known of the row with the old key, if ``before`` shows that the key was another one."""
        if not self.keys:
            return None
        old, new = _PARTS.decode(before), _PARTS.decode(data)
        if not any(key in old and key in new and _differ(old[key], new[key]) for key in self.keys):
            return None
        known = {name: value for name, value in old.items() if name not in self.keys or bytes(value) != _NULL}
        return msgspec.json.encode({key: new[key] for key in self.keys if key in new} | known)


def _differ(old: msgspec.Raw, new: msgspec.Raw) -> bool:
    """Whether two values of a key differ; a null before the change says nothing about the key."""
    return bytes(old) not in {_NULL, bytes(new)} and msgspec.json.decode(old) != msgspec.json.decode(new)


def _holds(values: pl.Series) -> npt.NDArray[np.bool_]:
    """Where there is a value (JSON text) other than null; of all values, only null begins with an n."""
    first = first_bytes(values)
    return np.not_equal(first, 0) & np.not_equal(first, ord("n"))


def _mover(kernel: Any, keys: Sequence[str]) -> Callable[[pl.Series, pl.Series], npt.NDArray[np.bool_]]:
    """A function that marks where a key may differ between two payloads; equal text is the same key."""
    envelopes = Envelopes(kernel, tuple(Member(key, Form.VALUE, Presence.ANY) for key in keys))

    def moved(before: pl.Series, after: pl.Series) -> npt.NDArray[np.bool_]:
        old, bad = envelopes.read(before)
        new, unread = envelopes.read(after)
        found: npt.NDArray[np.bool_] = bad | unread
        for key in keys:
            found = found | (_holds(old[key]) & as_mask(old[key].ne_missing(new[key])))
        return found

    return moved


def _micros(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
        aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return checked_micros((aware - _EPOCH) // timedelta(microseconds=1))
    except (ValueError, OverflowError) as error:
        raise BadEnvelopeError from error
