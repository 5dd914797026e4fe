"""Reads windows of JSON records into Arrow columns, and decides for each record by itself whether it is bad.

The columns come from Arrow's JSON reader, which reads a stream of documents and knows nothing of record boundaries. Each record is
therefore wrapped as one line, ``{"r":`` record ``}`` newline. Why no row can shift:

* A line holds at least one document. If it did not, a document would continue across ``}`` newline ``{``; inside a string the raw
  newline is an error, and outside strings no JSON text has ``}`` followed by ``{``. So n lines that parse give n documents or
  more, and exactly n only if each line is exactly one.
* That one document may still contain more than the record: ``1},"r":{`` cannot, because of the count, but ``{},"q":{}`` can. So msgspec
  reads the same lines as objects whose only member is ``r``, an object. It is also the stricter reader (``NaN`` is not JSON).

A record is accepted if and only if it is valid UTF-8, not too deep, and accepted by both msgspec and Arrow. Each of the four checks
looks at one record only, so the result does not depend on a record's neighbours, and how a window is searched for bad rows affects only
speed. First everything is read at once. Only if that fails is each record checked with msgspec, which finds nearly all bad ones at a few
microseconds each; what remains is left to Arrow, whose errors name a row, or else the row is found by halving.
"""

from __future__ import annotations

import bisect
import itertools
import json
import re
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.json as pj

from stream.transform.decoders.depth import any_deep, too_deep
from stream.transform.decoders.msgspec_types import fitting, kept_type, requested_type, struct
from stream.transform.decoders.numbers import within_doubles
from stream.transform.types import Kind, RecordSchema

EMPTY: Final = "empty_record"
INVALID_UTF8: Final = "invalid_utf8"
TOO_DEEP: Final = "json_too_deep"
SYNTAX: Final = "json_syntax"
NOT_OBJECT: Final = "json_not_object"
UNKNOWN_FIELD: Final = "unknown_field"
DUPLICATE_FIELD: Final = "duplicate_field"
WRONG_TYPE: Final = "wrong_type"

_OPEN: Final = b'{"r":'
_CLOSE: Final = b"}\n"
_TWICE: Final = re.compile(r"Column\(/r/([^/]+)\) was specified twice")
_ROW: Final = re.compile(r" in row (\d+)$")
_LINE: Final = re.compile(r" at `\$\[(\d+)\]")
_BYTE: Final = re.compile(r"\(byte (\d+)\)$")
_TINY: Final = r"[0-9]{38}[eE]-|[eE]-0*(?:[2-9][0-9]|[1-9][0-9]{2})"
"""Found in numbers that Arrow may read as zero although no decimal has their digits: more than 76 after those of the scale."""
_FEW: Final = 64
"""Bad records of a window that are found by a reader's error message; if there are more, every record is checked by itself."""
_BLOCK: Final = 128 * 1024
"""Bytes that Arrow reads at a time, which is the work lost when one of the records in them is bad."""


@dataclass(frozen=True, slots=True)
class Window:
    """The accepted records as one frame of wire types, and ``(index, reason)`` of the others, ascending."""

    frame: pl.DataFrame
    rejects: list[tuple[int, str]]


class _Anything(msgspec.Struct, gc=False):
    """An object with any members."""


class Reader:
    """Reads windows of records for one schema; ``strict`` refuses fields that the schema does not name, at every level."""

    def __init__(self, schema: RecordSchema, *, strict: bool) -> None:
        self._names = [name for name, _ in schema]
        wire = [pa.field(name, kind.wire) for name, kind in schema if kind.kind is not Kind.JSON]
        self._wire = pa.schema(wire)
        self._frame = pl.DataFrame(_held(self._wire).empty_table()).schema
        self._typed = msgspec.json.Decoder(struct("Record", schema.fields, strict=strict))
        checks = ((f"f{index}", name, fitting(kind)) for index, (name, kind) in enumerate(schema))
        self._decimals = [(member, name, check) for member, name, check in checks if check is not None]
        self._any = msgspec.json.Decoder(_Anything)
        shape = self._typed.type if strict else _Anything
        line = msgspec.defstruct("Line", [("r", shape)], forbid_unknown_fields=True, gc=False)
        self._lines: msgspec.json.Decoder[Any] = msgspec.json.Decoder(line)

    def read(self, records: pa.LargeBinaryArray) -> Window:
        """Read ``records``; never raises because of their content."""
        if len(records) < _FEW:
            return self._sift(records)
        try:
            return self._forward(records)
        except (UnicodeDecodeError, msgspec.DecodeError, RecursionError, pa.ArrowInvalid, _NotInOnePassError):
            return self._sift(records)

    def _forward(self, records: pa.LargeBinaryArray) -> Window:
        """Read ``records`` in order, and skip those that stop a reader, as long as they are few.

        Raises:
            _NotInOnePassError: there are too many of them, or one that cannot be found.
        """
        try:
            texts = records.cast(pa.large_string())
        except pa.ArrowInvalid:
            return self._without_bytes(records)
        buffer, starts = _join(records), _starts(records)
        if any_deep(texts, buffer) or (self._decimals and pl.Series(texts).str.contains(_TINY).any()):
            raise _NotInOnePassError
        reasons: dict[int, str] = {}
        parts = []
        begin, end = 0, len(records)
        while begin < end:
            stop = self._first_stop(records, buffer, starts, begin, reasons)
            parts += self._by_blocks(records, buffer, starts, (begin, stop), reasons)
            if len(reasons) > _FEW:
                raise _NotInOnePassError
            begin = stop + 1
        frame = pl.concat(parts) if parts else self._frame.to_frame()
        return Window(frame, sorted(reasons.items()))

    def _without_bytes(self, records: pa.LargeBinaryArray) -> Window:
        """``_forward`` over the records that are valid UTF-8."""
        reasons = {at: INVALID_UTF8 for at, record in enumerate(records.to_pylist()) if not _is_text(record)}
        kept = np.delete(np.arange(len(records)), list(reasons))
        if len(reasons) > _FEW:
            raise _NotInOnePassError
        window = self._forward(records.take(pa.array(kept)))
        return Window(window.frame, sorted([*reasons.items(), *((int(kept[at]), reason) for at, reason in window.rejects)]))

    def _first_stop(self, records: pa.LargeBinaryArray, buffer: pa.Buffer, starts: list[int], begin: int, reasons: dict[int, str]) -> int:
        """The index of the first record from ``begin`` on that is not one JSON object, or of the end; adds the record's reason."""
        lines = memoryview(buffer)[starts[begin] :]
        try:
            if len(self._lines.decode_lines(lines)) != len(records) - begin:
                raise _NotInOnePassError
        except msgspec.DecodeError as error:
            named, byte = _LINE.search(str(error)), _BYTE.search(str(error))
            found = len(records) - 1  # an error without a position means that the input ended too early
            if named is not None:
                found = begin + int(named[1])
            elif byte is not None:
                found = bisect.bisect_right(starts, starts[begin] + int(byte[1])) - 1
            # If a record ends too early, the error names the beginning of the next one.
            for at in (found - 1, found):
                reason = self._verdict(records[at].as_py()) if begin <= at < len(records) else None
                if reason is not None and len(self._lines.decode_lines(lines[: starts[at] - starts[begin]])) == at - begin:
                    reasons[at] = reason
                    return at
            raise _NotInOnePassError from error
        return len(records)

    def _by_blocks(
        self, records: pa.LargeBinaryArray, buffer: pa.Buffer, starts: list[int], span: tuple[int, int], reasons: dict[int, str]
    ) -> list[pl.DataFrame]:
        """Columns of the records of ``span``, each one JSON object on a line; adds the reasons of those that Arrow refuses."""
        parts: list[pl.DataFrame] = []
        begin, end = span
        block = self._block(buffer, starts[begin : end + 1])
        while begin < end:
            if len(reasons) > _FEW:
                raise _NotInOnePassError
            done, complaint = self._as_far(buffer.slice(starts[begin], starts[end] - starts[begin]), block)
            parts += [done] if done.height else []
            begin += done.height
            if complaint is None:
                break
            named = _ROW.search(complaint)
            bad = begin + int(named[1]) if named else end
            if bad >= end:
                raise _NotInOnePassError
            if bad > begin:
                parts.append(self._columns(buffer.slice(starts[begin], starts[bad] - starts[begin]), bad - begin, self._wire))
            reasons[bad] = self._refused(records[bad].as_py(), buffer.slice(starts[bad], starts[bad + 1] - starts[bad]), complaint)
            begin = bad + 1
        return parts

    @staticmethod
    def _block(buffer: pa.Buffer, starts: list[int]) -> int:
        """Bytes to read at a time: a record must fit, and no block may end at a line break inside a record."""
        if len(starts) < 2:
            return _BLOCK
        whole = np.frombuffer(buffer, np.uint8)[starts[0] : starts[-1]]
        if np.count_nonzero(whole == ord("\n")) != len(starts) - 1:
            return len(whole) + 1
        return max(_BLOCK, 1 + int(np.diff(starts).max()))

    def _refused(self, record: bytes, line: pa.Buffer, complaint: str) -> str:
        """Why ``record``, which Arrow has named in an error, is bad.

        Raises:
            _NotInOnePassError: it is not bad.
        """
        reason = self._verdict(record)
        if reason is not None:
            return reason
        if within_doubles(record) != record:
            raise _NotInOnePassError
        try:
            self._columns(line, 1, self._wire)
        except pa.ArrowInvalid:
            return self._arrow_reason(line, complaint)
        raise _NotInOnePassError

    def _as_far(self, buffer: pa.Buffer, block: int) -> tuple[pl.DataFrame, str | None]:
        """What Arrow reads of lines of one object each, block by block, and its error on the first block that it cannot read."""
        batches: list[pa.RecordBatch] = []
        complaint = None
        try:
            reader = pj.open_json(
                pa.BufferReader(buffer),
                read_options=pj.ReadOptions(use_threads=False, block_size=block),
                parse_options=_parsing(self._wire),
            )
            batches += reader
        except pa.ArrowInvalid as error:
            complaint = str(error)
        return self._members(batches, self._wire), complaint

    @staticmethod
    def _members(batches: list[pa.RecordBatch], wire: pa.Schema) -> pl.DataFrame:
        if not len(wire):
            return pl.DataFrame(height=sum(batch.num_rows for batch in batches))
        found = (pa.RecordBatch.from_struct_array(batch.column(0)) for batch in batches)
        table, kept = pa.Table.from_batches(found, _asked(wire)), _held(wire)
        return pl.DataFrame(table if table.schema.equals(kept) else table.cast(kept))

    @staticmethod
    def _columns(buffer: pa.Buffer, rows: int, wire: pa.Schema) -> pl.DataFrame:
        table = pj.read_json(
            pa.BufferReader(buffer),
            read_options=pj.ReadOptions(use_threads=False, block_size=len(buffer) + 1),
            parse_options=_parsing(wire),
        )
        if table.num_rows != rows:
            raise _NotInOnePassError
        return Reader._members(table.to_batches(), wire)

    def _sift(self, records: pa.LargeBinaryArray) -> Window:
        reasons: dict[int, str] = {}
        good = {}
        for index, record in enumerate(records.to_pylist()):
            reason = self._verdict(record)
            if reason is None:
                good[index] = within_doubles(record)
            else:
                reasons[index] = reason
        parts = self._halve(pa.array(good.values(), records.type), list(good), reasons)
        frame = pl.concat(parts) if parts else self._frame.to_frame()
        return Window(frame, sorted(reasons.items()))

    def refuses(self, record: bytes) -> str | None:
        """Why ``record`` is bad, as far as that shows without converting its values; None if it may be good."""
        return self._verdict(record)

    def _verdict(self, record: bytes) -> str | None:  # noqa: PLR0911 - one per reason
        if not record.strip(b" \t\r\n"):
            return EMPTY
        if not _is_text(record):
            return INVALID_UTF8
        if too_deep(record):
            return TOO_DEEP
        try:
            decoded = self._typed.decode(record)
        except msgspec.ValidationError as error:
            return self._typed_reason(record, str(error))
        except msgspec.DecodeError:
            return SYNTAX
        for member, name, check in self._decimals:
            if not check(getattr(decoded, member)):
                return f"{WRONG_TYPE}:{name}"
        return None

    def _typed_reason(self, record: bytes, message: str) -> str:
        try:
            self._any.decode(record)
        except msgspec.ValidationError:
            return NOT_OBJECT
        except msgspec.DecodeError:
            return SYNTAX
        if "unknown field" in message:
            return UNKNOWN_FIELD
        path = message.rpartition("`$.")[2].removesuffix("`")
        named = [name for name in self._names if path == name or path.startswith((name + ".", name + "["))]
        return f"{WRONG_TYPE}:{max(named, key=len)}" if named else WRONG_TYPE

    def _halve(
        self, records: pa.LargeBinaryArray, index: list[int], reasons: dict[int, str], scanned: tuple[str, ...] = ()
    ) -> list[pl.DataFrame]:
        """Read ``records``; adds those that Arrow refuses to ``reasons``, by their number in ``index``."""
        parts = []
        whole, starts = _join(records), _starts(records)
        todo = [(0, len(records))] if len(records) else []
        while todo:
            low, high = todo.pop()
            buffer = whole.slice(starts[low], starts[high] - starts[low])
            try:
                parts.append(self._columns(buffer, high - low, self._wire))
                continue
            except pa.ArrowInvalid as error:
                message = str(error)
            if high - low == 1:
                reasons[index[low]] = self._arrow_reason(buffer, message)
                continue
            twice = _TWICE.search(message)
            if twice and twice.group(1) not in scanned:
                kept = self._without_repeats(records, twice.group(1), low, index, reasons)
                rest = records.take(pa.array(kept, pa.int64()))
                return parts + self._halve(rest, [index[at] for at in kept], reasons, (*scanned, twice.group(1)))
            named = _ROW.search(message)
            if named:
                # What follows a bad row is halved: bad rows come in groups, and a failed attempt costs as much as it was given.
                bad = low + int(named.group(1))
                cuts = [low, bad, bad + 1, (bad + 1 + high) // 2, high]
            else:
                cuts = [low, (low + high) // 2, high]
            todo += [(start, end) for start, end in reversed(list(itertools.pairwise(cuts))) if start < end]
        return parts

    @staticmethod
    def _without_repeats(records: pa.LargeBinaryArray, name: str, low: int, index: list[int], reasons: dict[int, str]) -> list[int]:
        """Which of ``records`` from ``low`` on do not repeat column ``name``; adds the others to ``reasons``.

        If one record repeats a field, usually all records of its producer do, and Arrow reports them one by one, at a millisecond each.
        """
        kept = []
        key = f'"{name}"'.encode()
        for at in range(low, len(records)):
            record = records[at].as_py()
            if record.count(key) > 1:
                names = json.loads(record, object_pairs_hook=_names, parse_int=str, parse_float=str)
                if names.count(name) > 1:
                    reasons[index[at]] = DUPLICATE_FIELD
                    continue
            kept.append(at)
        return kept

    def _arrow_reason(self, buffer: pa.Buffer, message: str) -> str:
        if "specified twice" in message:
            return DUPLICATE_FIELD
        if _ROW.search(message) and "Column(" not in message:
            return SYNTAX
        for field in self._wire:
            try:
                self._columns(buffer, 1, pa.schema([field]))
            except pa.ArrowInvalid:
                return f"{WRONG_TYPE}:{field.name}"
        return SYNTAX


class _NotInOnePassError(Exception):
    """The window cannot be read in one pass: a line is not one document, a record is nested too deeply, or too many are bad."""


def _join(records: pa.LargeBinaryArray) -> pa.Buffer:
    """All records as wrapped lines in one buffer."""
    # Loaded here because it takes 9 MiB, which workers with the kernel do not need.
    import pyarrow.compute as pc

    ends = [pa.scalar(text, records.type) for text in (_OPEN, _CLOSE, b"")]
    lines = pc.binary_join_element_wise(ends[0], records, ends[1], ends[2])
    if not len(lines):
        return pa.py_buffer(b"")
    _, offsets, data = lines.buffers()
    bounds = memoryview(offsets).cast("q")
    first, last = bounds[lines.offset], bounds[lines.offset + len(lines)]
    return data.slice(first, last - first)


def _is_text(record: bytes) -> bool:
    try:
        record.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _names(pairs: list[tuple[str, Any]]) -> list[str]:
    return [name for name, _ in pairs]


def _starts(records: pa.LargeBinaryArray) -> list[int]:
    """Where each line begins in the joined buffer, and where the last one ends."""
    bounds = np.frombuffer(records.buffers()[1], np.int64)[records.offset :][: len(records) + 1]
    ends = np.cumsum(np.diff(bounds) + (len(_OPEN) + len(_CLOSE)))
    return [0, *ends.tolist()]


def _asked(wire: pa.Schema) -> pa.Schema:
    return pa.schema([field.with_type(requested_type(field.type)) for field in wire])


def _held(wire: pa.Schema) -> pa.Schema:
    return pa.schema([field.with_type(kept_type(field.type)) for field in wire])


def _parsing(wire: pa.Schema) -> pj.ParseOptions:
    explicit = pa.schema([pa.field("r", pa.struct(list(_asked(wire))))])
    return pj.ParseOptions(explicit_schema=explicit, unexpected_field_behavior="ignore")
