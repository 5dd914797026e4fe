"""Decodes lines of separated values."""

from __future__ import annotations

import csv
import io
import re
from enum import StrEnum
from typing import Any, ClassVar, Final

import numpy as np
import polars as pl
from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from stream.batch import DATA, ROW
from stream.transform.decode import DecoderConfig, Unknown
from stream.transform.decoders.json_kernel import csv_reader
from stream.transform.decoders.json_rows import DUPLICATE_FIELD, EMPTY, INVALID_UTF8, UNKNOWN_FIELD
from stream.transform.decoders.nested import merged, rejected, repeated_indexes, system_rows
from stream.transform.shorthands import no_options, one_or_more
from stream.transform.stage import Applied, BoundStage, Example, SchemaMismatch
from stream.transform.text_values import MISSING_FIELD, check_text_type, readers, typed
from stream.transform.types import SYSTEM, SYSTEM_SCHEMA, Kind, RecordSchema

SYNTAX: Final = "csv_syntax"
FIELDS: Final = "csv_fields"

_LINE_END: Final = re.compile(r"\r\n|\n|\r")
_LINE_END_BYTES: Final = re.compile(rb"[\r\n]")
_LINE: Final = re.compile(r"[^\r\n]*(?:\r\n|\n|\r)|[^\r\n]+")
_NEVER: Final = 0xFF
"""A byte that UTF-8 never has, as the quote of values that are not quoted."""
_HEADERS: Final = 8
"""How many records are searched for a usable header line. The kernel reads all records of the batch that begin with that line."""


class _BadRecordError(Exception):
    """The record cannot be split into fields; the argument is the reason."""


class Surplus(StrEnum):
    """What to do with values beyond those that the schema names."""

    REJECT = "reject"
    IGNORE = "ignore"


class Csv(DecoderConfig):
    """Read each line of a record as separated values, in the order of the schema or of a header line.

    Reasons: ``empty_record``, ``invalid_utf8``, ``csv_syntax`` (quotes; a quoted field beyond 131,072 characters), ``csv_fields``
    (their number), ``unknown_field`` and ``duplicate_field`` (in a header), ``missing_field:<column>``, ``wrong_type:<column>``. A
    record with a bad line is rejected as a whole.
    """

    name: ClassVar[str] = "csv"
    window_bytes: ClassVar[int | None] = 4 * 1024 * 1024
    expands: ClassVar[bool] = True
    example: ClassVar[Example] = Example(
        config={}, given=[{"_data": '1,x\n2,"y, z"\n'}], expect=[{"a": 1, "b": "x"}, {"a": 2, "b": "y, z"}]
    )

    delimiter: str = Field(default=",", min_length=1, max_length=1, description="The character between two values.")
    quote: str | None = Field(
        default='"',
        min_length=1,
        max_length=1,
        description="The character around values that contain special characters; doubled inside them. `null`: there is none.",
    )
    comment: str | None = Field(default=None, min_length=1, description="Lines that begin with this text are left out, such as `#`.")
    header: bool = Field(default=False, description="Whether the first line of each record names its columns.")
    null: tuple[str, ...] = Field(
        default=("",), description="Texts that mean null; empty text stays text in a `string` that may not be null."
    )
    unknown: Unknown = Field(default=Unknown.IGNORE, description="Columns of a header that the schema does not name: ignore or reject.")
    surplus: Surplus = Field(
        default=Surplus.REJECT,
        description="Lines without a header that have more values than the schema has columns: reject, or ignore what is beyond them.",
    )

    _short_form = no_options()

    _single = one_or_more("null")

    @field_validator("unknown")
    @classmethod
    def _no_capture(cls, value: Unknown) -> Unknown:
        if value is Unknown.CAPTURE:
            msg = "csv cannot capture unknown columns; allowed: ignore, reject"
            raise ValueError(msg)
        return value

    @field_validator("delimiter", "quote")
    @classmethod
    def _one_byte(cls, value: str | None) -> str | None:
        if value is None:
            return value
        if not value.isascii() or value in "\r\n\0":
            msg = f"{value!r} cannot separate values; use a single ASCII character that is not a line break"
            raise ValueError(msg)
        return value

    @field_validator("comment")
    @classmethod
    def _in_a_line(cls, value: str | None) -> str | None:
        if value is not None and (_LINE_END.search(value) or not value.strip()):
            msg = f"{value!r} cannot begin a line that has text; use a text such as #"
            raise ValueError(msg)
        return value

    @model_serializer(mode="wrap")
    def _without_absent_options(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave the newer options out where they are not used, so that recorded definitions without them never change."""
        data: dict[str, Any] = handler(self)
        unused = {"comment": None, "surplus": Surplus.REJECT}
        return {key: value for key, value in data.items() if key not in unused or value != unused[key]}

    @model_validator(mode="after")
    def _different(self) -> Csv:
        if self.delimiter == self.quote:
            msg = f"delimiter and quote are both {self.quote!r}"
            raise ValueError(msg)
        if self.header and self.surplus is Surplus.IGNORE:
            msg = "with a header, lines have as many values as the header; remove surplus"
            raise ValueError(msg)
        return self

    def output(self, schema: RecordSchema | None) -> pl.Schema:
        """The schema's columns in the order written."""
        if schema is None:
            raise SchemaMismatch((), "decoder csv needs a schema", "list the columns under `schema`, in the order of the values")
        for name, kind in schema:
            check_text_type(kind, (name,))
        return schema.polars()

    def bind(self, schema: RecordSchema | None) -> BoundStage:
        """A function that splits record by record and converts all rows at once."""
        self.output(schema)
        assert schema is not None  # noqa: S101 - output() has refused None
        names = [name for name, _ in schema]
        nulls, reading = self._nulls(schema), readers(schema)

        def ordinary(frame: pl.DataFrame) -> Applied:
            reasons: dict[int, str] = {}
            parents: list[int] = []
            rows: list[list[str]] = []
            for at, record in enumerate(frame[DATA].to_list()):
                try:
                    found = self._rows(record, names)
                except _BadRecordError as error:
                    reasons[at] = str(error)
                    continue
                parents += [at] * len(found)
                rows += found
            text = pl.DataFrame(rows, schema=dict.fromkeys(names, pl.String), orient="row") if rows else _nothing(names)
            columns, bad = typed(text.with_columns(nulls), schema, reading)
            head = frame.select(SYSTEM)[parents] if parents else SYSTEM_SCHEMA.to_frame()
            good = pl.concat([head, columns], how="horizontal")
            parts = [rejected(frame, reasons)]
            if bad is not None:
                refused = bad.is_not_null()
                wrong = good.select(ROW, bad).filter(refused)
                parts.append(wrong.unique(ROW, keep="first", maintain_order=True))
                good = good.filter(~refused)
            return Applied(good, pl.concat(parts).sort(ROW, maintain_order=True))

        quick = csv_reader(schema, self.null)
        if quick is None:
            return ordinary
        marks = ord(self.delimiter), _NEVER if self.quote is None else ord(self.quote)
        words = tuple(word.encode() for word in self.null)

        def decode(frame: pl.DataFrame) -> Applied:
            records = frame[DATA]
            header = self._header(records, names)
            if header is None or self._has_comments(records):
                return ordinary(frame)
            columns, counts, marked = quick.read(records, *marks, *header, words)
            read = Applied(system_rows(frame, repeated_indexes(counts)).hstack(columns))
            return read if marked is None else merged(read, ordinary(frame[np.flatnonzero(marked)]))

        return decode

    def _header(self, records: pl.Series, names: list[str]) -> tuple[bytes | None, tuple[int, ...]] | None:
        """The header line, and the column of each field or -1; None if none of the first records has a usable header."""
        if not self.header:
            return None, (*range(len(names)), *([-1] * self._beyond(records, len(names))))
        for record in records.head(_HEADERS):
            line = _LINE_END_BYTES.split(record, 1)[0]
            if len(line) > csv.field_size_limit():
                continue
            try:
                fields = self._split(line.decode("utf-8"))
                places = self._places(fields[0] if fields else [], names)
            except (UnicodeDecodeError, csv.Error, _BadRecordError):
                continue
            of_field = [-1] * len(fields[0])
            for column, place in enumerate(places):
                of_field[place] = column
            return line, tuple(of_field)
        return None

    def _beyond(self, records: pl.Series, width: int) -> int:
        """How many values the first records have beyond the schema's columns, if these do not count."""
        if self.surplus is Surplus.REJECT:
            return 0
        for record in records.head(_HEADERS):
            line = _LINE_END_BYTES.split(record, 1)[0]
            try:
                fields = self._split(line.decode("utf-8"))
            except (UnicodeDecodeError, csv.Error):
                continue
            if fields and len(fields[0]) >= width:
                return len(fields[0]) - width
        return 0

    def _has_comments(self, records: pl.Series) -> bool:
        if self.comment is None:
            return False
        mark = self.comment.encode()
        begun = records.bin.starts_with(mark)
        for end in (b"\n", b"\r"):
            begun = begun | records.bin.contains(end + mark)
        return bool(begun.any())

    def _nulls(self, schema: RecordSchema) -> list[pl.Expr]:
        changed = []
        for name, kind in schema:
            text = kind.kind is Kind.PLAIN and kind.polars == pl.String() and not kind.nullable
            words = [word for word in self.null if word or not text]
            if words:
                changed.append(pl.when(~pl.col(name).is_in(words)).then(pl.col(name)).alias(name))
        return changed

    def _rows(self, record: bytes, names: list[str]) -> list[list[str]]:
        """The record's lines, each with one text per column.

        Raises:
            _BadRecordError: with the reason.
        """
        try:
            lines = self._split(record.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise _BadRecordError(INVALID_UTF8) from error
        except csv.Error as error:
            raise _BadRecordError(SYNTAX) from error
        if not lines and self.comment is not None and record.strip():
            return []
        if not lines:
            raise _BadRecordError(EMPTY)
        if not self.header:
            if self.surplus is Surplus.IGNORE:
                lines = [line[: len(names)] for line in lines]
            if any(len(line) != len(names) for line in lines):
                raise _BadRecordError(FIELDS)
            return lines
        places = self._places(lines[0], names)
        if any(len(line) != len(lines[0]) for line in lines):
            raise _BadRecordError(FIELDS)
        return [[line[place] for place in places] for line in lines[1:]]

    def _split(self, text: str) -> list[list[str]]:
        if self.comment is not None:
            text = self._without_comments(text)
        if self.quote is None or self.quote not in text:
            return [line.split(self.delimiter) for line in _LINE_END.split(text) if line]
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=self.delimiter, quotechar=self.quote, strict=True)
        return [line for line in reader if line]

    def _without_comments(self, text: str) -> str:
        """``text`` without the lines that begin with ``comment``, except inside of quotes."""
        mark, quote = self.comment or "", self.quote
        kept, inside = [], False
        for line in _LINE.findall(text):
            if inside or not line.startswith(mark):
                kept.append(line)
                inside ^= quote is not None and line.count(quote) % 2 == 1
        return "".join(kept)

    def _places(self, header: list[str], names: list[str]) -> list[int]:
        if len(set(header)) != len(header):
            raise _BadRecordError(DUPLICATE_FIELD)
        if self.unknown is Unknown.REJECT and set(header) - set(names):
            raise _BadRecordError(UNKNOWN_FIELD)
        places = {name: place for place, name in enumerate(header)}
        for name in names:
            if name not in places:
                reason = f"{MISSING_FIELD}:{name}"
                raise _BadRecordError(reason)
        return [places[name] for name in names]


def _nothing(names: list[str]) -> pl.DataFrame:
    return pl.DataFrame(schema=dict.fromkeys(names, pl.String))
