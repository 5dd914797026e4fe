"""Opens envelopes with the compiled kernel: the values around payloads become columns, and the payloads views.

Records that the kernel marks are opened one by one by the decoder, which alone says what is wrong with a record. So the description of
members for the kernel must be at least as strict as the decoder's own types.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from stream import native
from stream.native import Kind


class Presence(IntEnum):
    """Whether a member may be absent or null, as the kernel numbers it (native/src/plan.h)."""

    ANY = 0
    REQUIRED = 1
    NEVER_NULL = 2


class Form(Enum):
    """What a member holds: the kernel's kind and unit (native/src/plan.h), and the type that it gives."""

    TEXT = (0, 1, Kind.TEXT)
    STRING = (0, 1, Kind.BINARY)
    """Text, as bytes."""
    WHOLE = (5, 1, Kind.INT64)
    MOMENT = (12, 2, Kind.MICROSECONDS)
    """ISO 8601 text that Python's ``fromisoformat`` reads too."""
    MILLISECONDS = (13, 1000, Kind.MICROSECONDS)
    VALUE = (16, 1, Kind.BINARY)
    """Any value, as its JSON text."""
    ITEM = (18, 1, Kind.BINARY)
    """An item of DynamoDB, as plain JSON."""
    IMAGE = (19, 1, Kind.BINARY)
    """A value that may be such an item, as its JSON text."""
    LIST = (20, 1, None)
    OBJECT = (21, 1, None)


@dataclass(frozen=True, slots=True)
class Member:
    """A member of an object; ``members`` are those of an object, or of the objects in a list."""

    name: str
    form: Form = Form.TEXT
    presence: Presence = Presence.REQUIRED
    members: tuple[Member, ...] = ()

    @property
    def spec(self) -> tuple[Any, ...]:
        """The description of the member that the kernel takes."""
        number, unit, _ = self.form.value
        inner = tuple(each.spec for each in self.members)
        if self.form is Form.LIST:
            inner = ((Form.OBJECT.value[0], b"", Presence.REQUIRED, False, 1, inner),)
        return number, self.name.encode(), int(self.presence), False, unit, inner


@dataclass(frozen=True, slots=True)
class Opened:
    """The payloads of records and the columns around them, row by row.

    ``parents``: the index of each payload's record, ascending; None: one payload per record. ``marked``: a mask of records that Python has
    to open, which have no payload here; None: there are none. ``before``: for each payload, the one before the change (null: unknown);
    None: not asked for.
    """

    parents: npt.NDArray[Any] | None
    head: pl.DataFrame
    payloads: pl.Series
    marked: npt.NDArray[np.bool_] | None
    before: pl.Series | None = None


class Envelopes:
    """Reads envelopes with the kernel: the values of each member by its path, such as ``metadata.operation``."""

    def __init__(self, kernel: Any, members: tuple[Member, ...]) -> None:
        self._kernel = kernel
        self._members = members
        self._plan = kernel.plan(Member("", Form.OBJECT, members=members).spec)

    def read(self, records: pl.Series) -> tuple[dict[str, pl.Series], npt.NDArray[np.bool_]]:
        """The values, and a mask of the records that the kernel marks, whose values are null.

        The path of a list has the number of objects in it; the paths of their members have one row per object, over all records.
        """
        views, data = native.views(records)
        bad, _, side, (_, _, _, _, columns) = self._kernel.decode(self._plan, views, data)
        found: dict[str, pl.Series] = {}
        self._gather(found, self._members, columns, (*data, side), "")
        return found, np.frombuffer(bad, np.bool_)

    def _gather(
        self, found: dict[str, pl.Series], members: tuple[Member, ...], columns: tuple[Any, ...], texts: tuple[Any, ...], path: str
    ) -> None:
        for member, (rows, nulls, validity, values, children) in zip(members, columns, strict=True):
            name = path + member.name
            if member.form is Form.OBJECT:
                self._gather(found, member.members, children, texts, f"{name}.")
            elif member.form is Form.LIST:
                ends = np.frombuffer(values, np.int64)
                found[name] = pl.Series(name, ends[1:] - ends[:-1])
                self._gather(found, member.members, children[0][4], texts, f"{name}.")
            else:
                kind = member.form.value[2]
                more = texts if kind in {Kind.BINARY, Kind.TEXT} else ()
                found[name] = native.series(name, native.Memory(kind, rows, validity, (values, *more), nulls))


def first_bytes(column: pl.Series) -> npt.NDArray[np.uint8]:
    """The first byte of each value of a Binary column; zero for null and empty values."""
    views, _ = native.views(column.fill_null(b"") if column.null_count() else column)
    return np.frombuffer(views, np.uint8)[4::16]


def as_mask(column: pl.Series) -> npt.NDArray[np.bool_]:
    """A Boolean column as an array, with false for null."""
    return (column.fill_null(value=False) if column.null_count() else column).to_numpy()


def one_payload_each(
    head: pl.DataFrame,
    payloads: pl.Series,
    rows: npt.NDArray[np.bool_],
    marked: npt.NDArray[np.bool_],
    before: pl.Series | None = None,
) -> Opened:
    """One payload for each record for which ``rows`` is true."""
    if rows.all():
        return Opened(None, head, payloads, None, before)
    places = np.flatnonzero(rows)
    chosen = pl.Series(rows)
    earlier = None if before is None else before.filter(chosen)
    return Opened(places, head.filter(chosen), payloads.filter(chosen), marked if marked.any() else None, earlier)
