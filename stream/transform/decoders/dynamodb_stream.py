"""Changes of a DynamoDB table as it sends them to a Kinesis stream."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any, ClassVar, Final

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import Field

from stream.transform.decoders.envelope import BEFORE, BadEnvelopeError, Envelope, Payload, checked_micros
from stream.transform.decoders.envelope_kernel import Envelopes, Form, Member, Opened, Presence, as_mask, one_payload_each
from stream.transform.stage import Example
from stream.transform.types import TIMESTAMP
from stream.transform.values import FIRST_US, LAST_US

_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")


class _Change(msgspec.Struct, rename="pascal"):
    approximate_creation_date_time: int
    keys: dict[str, dict[str, Any]]
    new_image: dict[str, dict[str, Any]] | None = None
    old_image: dict[str, dict[str, Any]] | None = None
    approximate_creation_date_time_precision: str = "MILLISECOND"


class _Document(msgspec.Struct, rename="camel"):
    """https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/kds.html."""

    event_name: str
    table_name: str
    dynamodb: _Change
    event_id: str = msgspec.field(name="eventID", default="")


_DECODER: Final = msgspec.json.Decoder(_Document)
_TICKS: Final[Mapping[str, int]] = {"MILLISECOND": 1000, "MICROSECOND": 1}
_NAMES: Final = ("INSERT", "MODIFY", "REMOVE")
_MEMBERS: Final = (Member("eventName"), Member("tableName"), Member("eventID", presence=Presence.NEVER_NULL))


def _change(image: str, other: str, *, both: bool) -> Member:
    """The members of a change that the kernel reads; ``image`` is the wanted state, ``other`` is only checked unless both are wanted."""
    return Member(
        "dynamodb",
        Form.OBJECT,
        members=(
            Member("ApproximateCreationDateTime", Form.WHOLE),
            Member("ApproximateCreationDateTimePrecision", presence=Presence.NEVER_NULL),
            Member("Keys", Form.ITEM),
            Member(image, Form.ITEM, Presence.ANY),
            Member(other, Form.ITEM if both else Form.IMAGE, Presence.ANY),
        ),
    )


class Image(StrEnum):
    """Which state of an item becomes columns."""

    NEW = "new"
    OLD = "old"
    BOTH = "both"


class DynamodbStream(Envelope):
    """Read changes of a DynamoDB table, one row each: what happened, and with a schema the item's attributes as columns.

    If a change lacks the image (a removed item has no new one), only the key columns are filled, so all others should be nullable.
    With `image: both`, the column `before` is an object with the item's attributes before the change, and null without an old image.
    DynamoDB may send a change twice, and out of order: see [Changes of a database](../../changes.md).
    Numbers are read as JSON numbers, binary as base64, sets as lists. Reasons: ``bad_envelope``, ``json_too_deep``, and those of ``json``.
    """

    name: ClassVar[str] = "dynamodb_stream"
    example: ClassVar[Example] = Example(
        config={},
        given=[
            {
                "_data": '{"eventID": "e1", "eventName": "MODIFY", "tableName": "flights", "dynamodb": {"ApproximateCreationDateTime": '
                '1357020000000, "Keys": {"a": {"N": "1"}}, "NewImage": {"a": {"N": "1"}, "b": {"S": "x"}}}}'
            }
        ],
        expect=[
            {"event_id": "e1", "event_name": "MODIFY", "table_name": "flights", "changed_at": "2013-01-01T06:00:00Z", "a": 1, "b": "x"}
        ],
    )
    head: ClassVar[pl.Schema] = pl.Schema(
        {"event_id": pl.String(), "event_name": pl.String(), "table_name": pl.String(), "changed_at": TIMESTAMP}
    )
    body: ClassVar[str] = "item"

    image: Image = Field(
        default=Image.NEW,
        description="Which state of the item: `new`; `old`, as before the change; or `both`, with the old one in the column `before`.",
    )

    def repeated(self) -> str | None:
        """``before``, if both images are read."""
        return BEFORE if self.image is Image.BOTH else None

    def opener(self, kernel: Any) -> Callable[[pl.Series], Opened]:
        """Opens changes, and converts their items to plain JSON."""
        chosen, other = ("OldImage", "NewImage") if self.image is Image.OLD else ("NewImage", "OldImage")
        both = self.image is Image.BOTH
        envelopes = Envelopes(kernel, (*_MEMBERS, _change(chosen, other, both=both)))

        def opened(records: pl.Series) -> Opened:
            found, bad = envelopes.read(records)
            name, precision = found["eventName"], found["dynamodb.ApproximateCreationDateTimePrecision"]
            millis = as_mask(precision.is_null() | (precision == "MILLISECOND"))
            moment, known = _micros(found["dynamodb.ApproximateCreationDateTime"], millis)
            rows = as_mask(name.is_in(_NAMES)) & (millis | as_mask(precision == "MICROSECOND")) & known & ~bad
            head = [found["eventID"].fill_null(""), name, found["tableName"], moment]
            columns = [column.alias(alias) for column, alias in zip(head, self.head, strict=True)]
            item = found[f"dynamodb.{chosen}"]
            item = _filled(item, found["dynamodb.Keys"])
            before = _filled(found[f"dynamodb.{other}"], pl.Series([None], dtype=pl.Binary())) if both else None
            return one_payload_each(pl.DataFrame(columns), item, rows, ~rows, before)

        return opened

    def open(self, record: bytes) -> Sequence[Payload]:
        """The change as plain JSON."""
        document = _DECODER.decode(record)
        change = document.dynamodb
        ticks = _TICKS.get(change.approximate_creation_date_time_precision)
        if ticks is None or document.event_name not in _NAMES:
            raise BadEnvelopeError
        image = change.old_image if self.image is Image.OLD else change.new_image
        item = _plain_item(image or change.keys)
        before = _plain_item(change.old_image) if self.image is Image.BOTH and change.old_image else None
        micros = checked_micros(change.approximate_creation_date_time * ticks)
        return [Payload((document.event_id, document.event_name, document.table_name, micros), item, before)]


def _filled(items: pl.Series, others: pl.Series) -> pl.Series:
    """``items``, with ``others`` in place of those without attributes."""
    holds = as_mask(items.bin.size() > len("{}"))
    return items if holds.all() else items.zip_with(pl.Series(holds), others)


def _plain_item(item: Mapping[str, Any]) -> bytes:
    return msgspec.json.encode({name: _plain(value) for name, value in item.items()})


def _micros(ticks: pl.Series, millis: npt.NDArray[np.bool_]) -> tuple[pl.Series, npt.NDArray[np.bool_]]:
    """``ticks`` as times, and which of them ``checked_micros`` would accept."""
    count = ticks.fill_null(0).to_numpy()
    unit = np.where(millis, 1000, 1)
    known = (count >= -(-FIRST_US // unit)) & (count <= LAST_US // unit)
    return pl.Series(np.where(known, count, 0) * unit).cast(TIMESTAMP), known


def _plain(attribute: Any) -> Any:  # noqa: PLR0911 - one per kind
    """The plain value of an AttributeValue such as ``{"N": "5"}``.

    Raises:
        BadEnvelopeError: it is not an AttributeValue.
    """
    if not isinstance(attribute, dict) or len(attribute) != 1:
        raise BadEnvelopeError
    ((kind, value),) = attribute.items()
    if kind == "N" and isinstance(value, str) and _NUMBER.fullmatch(value):
        return msgspec.Raw(value.encode())
    if kind in {"S", "B"} and isinstance(value, str):
        return value
    if kind == "BOOL" and isinstance(value, bool):
        return value
    if kind == "NULL":
        return None
    if kind == "M" and isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if kind == "L" and isinstance(value, list):
        return [_plain(each) for each in value]
    if kind in {"SS", "NS", "BS"} and isinstance(value, list):
        return [_plain({kind[0]: each}) for each in value]
    raise BadEnvelopeError
