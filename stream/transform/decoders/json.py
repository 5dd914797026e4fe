"""One JSON object per record."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Final

import msgspec
import numpy as np
import polars as pl
import pyarrow as pa
from pydantic import Field

from stream.batch import DATA, ROW
from stream.transform import values
from stream.transform.decode import DecoderConfig, Unknown
from stream.transform.decoders.json_kernel import json_reader
from stream.transform.decoders.json_rows import WRONG_TYPE, Reader
from stream.transform.decoders.kernel_columns import by_kernel
from stream.transform.shorthands import no_options
from stream.transform.stage import Applied, BoundStage, Example, SchemaMismatch
from stream.transform.types import SYSTEM, Kind, RecordSchema

EXTRA: Final = "_extra"
"""Column of ``unknown: capture``: the fields that the schema does not name, as one JSON object in text, or null."""

MISSING_FIELD: Final = "missing_field"

WINDOW_ROWS: Final = 8192
"""Records read at a time; if one of them is bad, this many may have to be checked one by one."""
WINDOW_BYTES: Final = 8 * 1024 * 1024
"""Payload bytes after which a window ends early; a single larger record is a window of its own."""


_FEW: Final = 256


class Json(DecoderConfig):
    """Read each record as one JSON object and its members as typed columns.

    Reasons: ``empty_record``, ``invalid_utf8``, ``json_syntax``, ``json_too_deep`` (more than 128 levels), ``json_not_object``,
    ``duplicate_field`` (of a column), ``unknown_field``, ``wrong_type:<column>``, ``missing_field:<column>`` (absent or null).
    Numbers are strict: ``1.0`` and ``"1"`` are not integers. If a `json` column or a field of `_extra` occurs twice, the last one counts.
    """

    name: ClassVar[str] = "json"
    example: ClassVar[Example] = Example(config={}, given=[{"_data": '{"a": 1, "b": "x"}'}], expect=[{"a": 1, "b": "x"}])

    unknown: Unknown = Field(
        default=Unknown.IGNORE,
        description="Fields that the schema does not name: ignore them, reject the record, or capture them as text in `_extra`.",
    )

    _short_form = no_options()

    def output(self, schema: RecordSchema | None) -> pl.Schema:
        """The schema's columns in the order written, then ``_extra`` if unknown fields are captured."""
        if schema is None:
            raise SchemaMismatch((), "decoder json needs a schema", "list the columns under `schema`, such as `carrier: string`")
        columns = dict(schema.polars())
        if self.unknown is Unknown.CAPTURE:
            if EXTRA in columns:
                raise SchemaMismatch((EXTRA,), f"column {EXTRA!r} is where unknown fields are captured", "give the column another name")
            columns[EXTRA] = pl.String()
        return pl.Schema(columns)

    def bind(self, schema: RecordSchema | None) -> BoundStage:
        """A function that reads windows of records and puts the columns together."""
        declared = self.output(schema)
        assert schema is not None  # noqa: S101 - output() has refused None
        strict, capture = self.unknown is Unknown.REJECT, self.unknown is Unknown.CAPTURE
        reader, members = Reader(schema, strict=strict), _Members(schema, capture=capture)
        converter = _Converter(schema, capture=capture)
        quick = json_reader(schema, strict=strict, rest=EXTRA if capture else None)

        def ordinary(frame: pl.DataFrame) -> Applied:
            accepted: list[pl.DataFrame] = []
            rejects: list[pl.DataFrame] = []
            for window in _windows(frame):
                good, bad = _decode_window(window, reader, members, converter, declared)
                accepted.append(good)
                rejects.append(bad)
            if not accepted:
                return Applied(frame.select(SYSTEM).with_columns(pl.lit(None, dtype).alias(name) for name, dtype in declared.items()))
            return Applied(pl.concat(accepted), pl.concat(rejects))

        return ordinary if quick is None else by_kernel(quick, lambda frame: _sorted_out(frame, reader, ordinary))


def _sorted_out(frame: pl.DataFrame, reader: Reader, ordinary: BoundStage) -> Applied:
    """As ``ordinary``, but of few records the bad ones are found first: preparing to read columns costs as much as reading thousands."""
    if frame.height > _FEW:
        return ordinary(frame)
    reasons = [reader.refuses(record) for record in frame[DATA].to_list()]
    bad = [at for at, reason in enumerate(reasons) if reason is not None]
    if not bad:
        return ordinary(frame)
    refused = _rejects(frame, bad, [reason for reason in reasons if reason is not None])
    other = ordinary(frame[[at for at, reason in enumerate(reasons) if reason is None]])
    return Applied(other.frame, refused if other.rejects is None else pl.concat([refused, other.rejects]).sort(ROW))


def _windows(frame: pl.DataFrame) -> Iterator[pl.DataFrame]:
    ends = frame[DATA].bin.size().cast(pl.Int64).cum_sum().to_numpy()
    start = held = 0
    while start < frame.height:
        full = int(ends.searchsorted(held + WINDOW_BYTES, side="right"))
        end = max(start + 1, min(start + WINDOW_ROWS, full))
        yield frame[start:end]
        start, held = end, int(ends[end - 1])


def _decode_window(
    window: pl.DataFrame, reader: Reader, members: _Members, converter: _Converter, declared: pl.Schema
) -> tuple[pl.DataFrame, pl.DataFrame]:
    records = window[DATA].to_arrow(compat_level=pl.CompatLevel.oldest())
    read = reader.read(records)
    head = window.select(SYSTEM)
    rejects = [_rejects(head, [index for index, _ in read.rejects], [reason for _, reason in read.rejects])]
    if len(read.rejects) == window.height:
        return head.clear().with_columns(pl.lit(None, kind).alias(name) for name, kind in declared.items()), rejects[0]
    if read.rejects:
        kept = np.delete(np.arange(window.height), [index for index, _ in read.rejects])
        head = head[kept]
        records = records.take(pa.array(kept)) if members.wanted else records
    wire = read.frame.with_columns(members.columns(records)) if members.wanted else read.frame
    columns, reasons = converter.convert(wire)
    frame = pl.concat([head, columns], how="horizontal")
    if reasons is not None:
        refused = reasons.is_not_null()
        rejects.append(frame.filter(refused).select("_row", reasons.filter(refused).alias("reason")))
        frame = frame.filter(~refused)
    return frame, pl.concat(rejects).sort("_row")


def _rejects(head: pl.DataFrame, index: list[int], reasons: list[str]) -> pl.DataFrame:
    return head[index].select("_row", pl.Series("reason", reasons, pl.String()))


class _Converter:
    """Converts wire types to declared types, and finds what cannot be converted. Expressions are built once, since that is slow."""

    def __init__(self, schema: RecordSchema, *, capture: bool) -> None:
        self._columns = [values.read(pl.col(name), kind).alias(name) for name, kind in schema]
        self._columns += [pl.col(EXTRA)] if capture else []
        reasons: list[str] = []
        checks: list[pl.Expr] = []
        self._lost: list[tuple[str, int]] = []
        for name, kind in schema:
            if kind.converts and kind.kind is not Kind.JSON:
                self._lost += [] if kind.fields or kind.item else [(name, len(reasons))]
                reasons.append(f"{WRONG_TYPE}:{name}")
                checks.append(values.unreadable(pl.col(name), kind))
            if values.forbids_null(kind):
                reasons.append(f"{MISSING_FIELD}:{name}")
                checks.append(values.has_forbidden_null(pl.col(name), kind))
        self._reasons, self._checks = reasons, checks

    def convert(self, wire: pl.DataFrame) -> tuple[pl.DataFrame, pl.Series | None]:
        """The columns, and per row the reason of the first column that refuses it; None if no row is refused."""
        frame = wire.select(self._columns)
        # A top-level value was lost where a null has appeared; values inside lists and objects need the expressions.
        alone = {at: name for name, at in self._lost}
        marks = wire.select(check.alias(str(at)) for at, check in enumerate(self._checks) if at not in alone)
        lost = [(at, name) for at, name in alone.items() if frame[name].null_count() > wire[name].null_count()]
        alone_marks = [(wire[name].is_not_null() & frame[name].is_null()).alias(str(at)) for at, name in lost]
        # On a frame without columns, Polars takes the first of these for a table of no rows and refuses the second.
        marks = pl.DataFrame([*marks.get_columns(), *alone_marks])
        found = sorted(int(name) for name in marks.columns if marks[name].any())
        if not found:
            return frame, None
        reason = pl.coalesce(pl.when(pl.col(str(at))).then(pl.lit(self._reasons[at])) for at in found)
        return frame, marks.select(reason.alias("reason")).to_series()


class _Members:
    """Extracts members of accepted records as text: ``json`` columns, and what no column names."""

    def __init__(self, schema: RecordSchema, *, capture: bool) -> None:
        self._json = [name for name, kind in schema if kind.kind is Kind.JSON]
        self._known = frozenset(name for name, _ in schema)
        self._capture = capture
        self.wanted = capture or bool(self._json)
        self._decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])

    def columns(self, records: pa.LargeBinaryArray) -> list[pl.Series]:
        """One String column per ``json`` column and ``_extra``; JSON's null is null."""
        objects = [self._decoder.decode(record) for record in records.to_pylist()]
        found = [pl.Series(name, [_text(each.get(name)) for each in objects], pl.String()) for name in self._json]
        if self._capture:
            found.append(pl.Series(EXTRA, [self._extra(each) for each in objects], pl.String()))
        return found

    def _extra(self, members: dict[str, msgspec.Raw]) -> str | None:
        rest = {name: value for name, value in members.items() if name not in self._known}
        return msgspec.json.encode(rest).decode() if rest else None


def _text(value: msgspec.Raw | None) -> str | None:
    if value is None:
        return None
    text = bytes(value).decode()
    return None if text == "null" else text
