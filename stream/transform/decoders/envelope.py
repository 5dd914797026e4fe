"""The base of decoders for envelopes: JSON documents around one or more payloads, with columns of their own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import msgspec
import numpy as np
import polars as pl
from pydantic import Field

from stream.batch import DATA, ROW
from stream.native import KERNEL
from stream.transform.decode import DecoderConfig, Unknown
from stream.transform.decoders.depth import too_deep
from stream.transform.decoders.envelope_kernel import Opened
from stream.transform.decoders.json import Json
from stream.transform.decoders.json_rows import EMPTY, TOO_DEEP
from stream.transform.decoders.nested import merged, read_payloads
from stream.transform.shorthands import no_options
from stream.transform.stage import Applied, BoundStage, SchemaMismatch
from stream.transform.types import SYSTEM, TIMESTAMP, RecordSchema, optional
from stream.transform.values import FIRST_US, LAST_US

BAD_ENVELOPE: Final = "bad_envelope"
BEFORE: Final = "before"
"""The column with the row as it was before a change."""


@dataclass(frozen=True, slots=True)
class Payload:
    """One payload and the values of the envelope's columns for its row; ``before``: the payload before the change, if it is known."""

    values: tuple[Any, ...]
    data: bytes
    before: bytes | None = None


class BadEnvelopeError(ValueError):
    """The record is not the expected envelope."""


def checked_micros(micros: int) -> int:
    """``micros`` since 1970, if that is between the years 1 and 9999.

    Raises:
        BadEnvelopeError: it is not.
    """
    if not FIRST_US <= micros <= LAST_US:
        raise BadEnvelopeError
    return micros


class Envelope(DecoderConfig):
    """Base of decoders that open an envelope. The payload is read as JSON if there is a schema, and kept as text if not."""

    window_bytes: ClassVar[int | None] = 4 * 1024 * 1024
    head: ClassVar[pl.Schema]
    """Columns of the envelope."""
    body: ClassVar[str]
    """Column of the payload's text where there is no schema."""

    unknown: Unknown = Field(
        default=Unknown.IGNORE,
        description="Fields of the payload that the schema does not name: ignore them, reject the record, or capture them in `_extra`.",
    )

    _short_form = no_options()

    @abstractmethod
    def open(self, record: bytes) -> Sequence[Payload]:
        """The payloads of a record; if there are none, the record is filtered.

        Raises:
            BadEnvelopeError, msgspec.MsgspecError: it is not such an envelope.
        """

    def repeated(self) -> str | None:
        """``before``, if this decoder reads the row before a change; its type is an object of the schema's columns, or text."""
        return None

    def documents(self, record: bytes) -> Sequence[tuple[str, bytes]]:
        """The payload and the one before the change; of several payloads, nobody can say which a reason is about."""
        found = self._opened(record)
        if isinstance(found, str) or len(found) != 1:
            return []
        [payload] = found
        return [("", payload.data)] if payload.before is None else [("", payload.data), (f"{BEFORE}.", payload.before)]

    def output(self, schema: RecordSchema | None) -> pl.Schema:
        """The envelope's columns, then the schema's or the payload as text."""
        columns: dict[str, pl.DataType] = dict(self.head)
        if (before := self.repeated()) is not None:
            columns[before] = pl.String() if schema is None else pl.Struct(schema.polars())
        added = ", ".join(columns)
        inner = {self.body: pl.String()} if schema is None else dict(Json(unknown=self.unknown).output(schema))
        for name, kind in inner.items():
            if name in columns:
                message = f"column {name!r} is one of those that the decoder {self.name} adds: {added}"
                raise SchemaMismatch((name,), message, "a field of the payload with this name cannot be read; remove it from the schema")
            columns[name] = kind
        return pl.Schema(columns)

    @abstractmethod
    def opener(self, kernel: Any) -> Callable[[pl.Series], Opened]:
        """A function that opens records (Binary, no nulls) with the kernel: each exactly as ``open`` does, or it marks the record."""

    def bind(self, schema: RecordSchema | None) -> BoundStage:
        """A function that opens all records, with the kernel or one by one, and then reads all payloads at once."""
        declared = list(self.output(schema))
        read = _as_text(self.body) if schema is None else Json(unknown=self.unknown).bind(schema)
        read_before = None if self.repeated() is None else _before(schema)

        def around(head: pl.DataFrame, before: pl.Series | None) -> BoundStage:
            def inner(opened: pl.DataFrame) -> Applied:
                applied = read(opened)
                whole = applied.frame.height == head.height
                kept = head if whole else head[applied.frame[ROW]]
                applied = Applied(applied.frame.hstack(kept), applied.rejects)
                if read_before is not None and before is not None:
                    applied = read_before(applied, before if whole else before.gather(applied.frame[ROW]))
                return Applied(applied.frame[[*SYSTEM, *declared]], applied.rejects)

            return inner

        def ordinary(frame: pl.DataFrame) -> Applied:
            parents: list[int] = []
            payloads: list[Payload] = []
            reasons: dict[int, str] = {}
            for at, record in enumerate(frame[DATA].to_list()):
                found = self._opened(record)
                if isinstance(found, str):
                    reasons[at] = found
                    continue
                parents += [at] * len(found)
                payloads += found
            rows = [payload.values for payload in payloads]
            head = pl.DataFrame(rows, schema=_wire(self.head), orient="row") if rows else _wire(self.head).to_frame()
            data, before = (pl.Series(texts, dtype=pl.Binary()) for texts in ([p.data for p in payloads], [p.before for p in payloads]))
            return read_payloads(frame, np.array(parents, np.uint32), data, around(head.cast(self.head), before), reasons)

        opener = kernel_opener(self)
        if opener is None:
            return ordinary

        def quick(frame: pl.DataFrame) -> Applied:
            opened = opener(frame[DATA])
            applied = read_payloads(frame, opened.parents, opened.payloads, around(opened.head, opened.before), {})
            return applied if opened.marked is None else merged(applied, ordinary(frame[np.flatnonzero(opened.marked)]))

        return quick

    def _opened(self, record: bytes) -> Sequence[Payload] | str:
        if not record.strip(b" \t\r\n"):
            return EMPTY
        if too_deep(record):
            return TOO_DEEP
        try:
            return self.open(record)
        except (BadEnvelopeError, msgspec.MsgspecError, UnicodeDecodeError):
            return BAD_ENVELOPE


def kernel_opener(envelope: Envelope) -> Callable[[pl.Series], Opened] | None:
    """The envelope's opener; None without a kernel."""
    return None if KERNEL is None else envelope.opener(KERNEL)


def _before(schema: RecordSchema | None) -> Callable[[Applied, pl.Series], Applied]:
    """A function that adds the column ``before``, read from the payloads before the change (Binary), of which any may be null.

    A row whose earlier payload has a value of the wrong type is rejected, with a reason such as ``wrong_type:before.amount``.
    """
    if schema is None:
        return lambda applied, payloads: Applied(applied.frame.with_columns(payloads.cast(pl.String()).alias(BEFORE)), applied.rejects)
    columns = schema.polars()
    read = Json().bind(optional(schema))

    def add(applied: Applied, payloads: pl.Series) -> Applied:
        frame = applied.frame
        known = payloads.is_not_null()
        places = known.arg_true().cast(pl.UInt32())
        found = read(frame[[*SYSTEM]].filter(known).with_columns(places.alias(ROW), payloads.filter(known).alias(DATA)))
        # For each row its line in `found`; null where nothing is known of the row before the change.
        lines = pl.repeat(None, frame.height, dtype=pl.UInt32(), eager=True)
        lines = lines.scatter(found.frame[ROW], np.arange(found.frame.height, dtype=np.uint32))
        values = found.frame[list(columns)].to_struct(BEFORE).gather(lines)
        frame = frame.with_columns(values)
        if found.rejects is None or not found.rejects.height:
            return Applied(frame, applied.rejects)
        bad = found.rejects[ROW]
        reasons = found.rejects["reason"].str.replace(":", f":{BEFORE}.", literal=True)
        rejects = pl.DataFrame([frame[ROW].gather(bad), reasons])
        fine = pl.Series(np.isin(np.arange(frame.height), bad.to_numpy(), invert=True))
        both = [rejects] if applied.rejects is None else [applied.rejects, rejects]
        return Applied(frame.filter(fine), pl.concat(both))

    return add


def _wire(schema: pl.Schema) -> pl.Schema:
    """``schema`` with times as Int64, the microseconds that ``open`` returns."""
    return pl.Schema({name: pl.Int64() if kind == TIMESTAMP else kind for name, kind in schema.items()})


def _as_text(column: str) -> BoundStage:
    def read(frame: pl.DataFrame) -> Applied:
        return Applied(frame[[*SYSTEM]].hstack([frame[DATA].cast(pl.String()).alias(column)]))

    return read
