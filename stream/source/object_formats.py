"""Reads the records of an object: lines, separated values or rows of Parquet, compressed or not, in bounded memory."""

from __future__ import annotations

import io
import re
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, BinaryIO, Final

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from polars.exceptions import PanicException, PolarsError

from stream.errors import Halted

MAX_RECORD_BYTES: Final = 64 * 2**20
"""A longer line is not a record: Kinesis accepts 10 MiB at most."""

READ_BYTES: Final = 2**20
PARQUET_ROWS: Final = 4096
_SUFFIXES: Final = {".gz": "gzip", ".zst": "zstd", ".zstd": "zstd", ".bz2": "bz2"}


class Unreadable(Halted):
    """The content of an object is not what its layout says, however often it is read."""


class ObjectFormat(StrEnum):
    """The format of an object."""

    NDJSON = "ndjson"
    CSV = "csv"
    PARQUET = "parquet"


class ObjectCodec(StrEnum):
    """How an object is compressed; ``AUTO`` goes by the name's suffix: .gz, .zst, .bz2."""

    AUTO = "auto"
    NONE = "none"
    GZIP = "gzip"
    ZSTD = "zstd"
    BZ2 = "bz2"


@dataclass(frozen=True, slots=True)
class Layout:
    """How an object contains records.

    ``header``: CSV objects begin with a line of names, which is put before each record, so that the decoder finds it. ``quote`` and
    ``delimiter``: for CSV. ``column``: for Parquet, the column that holds whole records; if None, each row becomes a JSON record.
    """

    format: ObjectFormat
    codec: ObjectCodec = ObjectCodec.AUTO
    header: bool = False
    quote: str = '"'
    column: str | None = None
    delimiter: str = ","


Chunk = list[tuple[int, bytes]]
"""Records with their numbers, from 1; for lines, the number of the line."""


def chunks(layout: Layout, file: BinaryIO, name: str, after_number: int, size: int) -> Iterator[Chunk]:
    """The records of ``file`` whose number is greater than ``after_number``, about ``size`` bytes at a time; never an empty chunk.

    Skips blank lines. ``name`` decides ``ObjectCodec.AUTO`` and is named in errors. Blocks while it reads.

    Raises:
        Unreadable: the object is not what ``layout`` says; every record before the place where that shows has been given.
        Halted: this machine lacks what is needed to read it, such as memory.
    """
    read: Callable[[Layout, BinaryIO, str, int], Iterator[tuple[int, bytes]]] = _rows if layout.format is ObjectFormat.PARQUET else _lines
    chunk: Chunk = []
    held = 0
    problem: Exception | None = None
    try:
        for number, body in read(layout, file, name, after_number):
            chunk.append((number, body))
            held += len(body)
            if held >= size:
                yield chunk
                chunk, held = [], 0
    except Unreadable as error:
        problem = error
    except (pa.ArrowException, OSError, EOFError, PolarsError, PanicException) as error:
        what = f"{layout.format}, compression {_codec(layout, name) or 'none'}"
        msg = (
            f"the object {name} cannot be read as {what}: {error}. Correct source.s3.format or source.s3.compression, or put the whole "
            "object back; nothing in it after the last sealed unit has been read."
        )
        if isinstance(error, MemoryError) or getattr(error, "errno", None) is not None:
            raise Halted(msg) from error
        problem = Unreadable(msg)
        problem.__cause__ = error
    if chunk:
        yield chunk
    if problem is not None:
        raise problem


def _codec(layout: Layout, name: str) -> str | None:
    if layout.codec is ObjectCodec.AUTO:
        return next((codec for suffix, codec in _SUFFIXES.items() if name.endswith(suffix)), None)
    return None if layout.codec is ObjectCodec.NONE else layout.codec.value


def _lines(layout: Layout, file: BinaryIO, name: str, after_number: int) -> Iterator[tuple[int, bytes]]:
    # Some programs, Excel among them, begin a file with a UTF-8 byte order mark, which belongs to no record.
    plain = ((number, line.removeprefix(BOM_UTF8) if number == 1 else line) for number, line in _plain(layout, file, name))
    joined = _joined(plain, layout, name) if layout.format is ObjectFormat.CSV else plain
    head = b""
    for number, text in joined:
        line = text.removesuffix(b"\r")
        if not line.strip():
            continue
        if layout.header and not head:
            head = line + b"\n"
            continue
        if number > after_number:
            yield number, head + line


def _plain(layout: Layout, file: BinaryIO, name: str) -> Iterator[tuple[int, bytes]]:
    """Lines without their line feeds, numbered from 1."""
    codec = _codec(layout, name)
    source = pa.CompressedInputStream(pa.PythonFile(file, "r"), codec) if codec else file
    rest: list[bytes] = []
    number, held = 0, 0
    while piece := source.read(READ_BYTES):
        first, *others = piece.split(b"\n")
        rest.append(first)
        held += len(first)
        if held > MAX_RECORD_BYTES:
            raise _too_long(name, number + 1)
        for line in others:
            number += 1
            yield number, b"".join(rest)
            rest, held = [line], len(line)
    if held:
        yield number + 1, b"".join(rest)


def _joined(lines: Iterator[tuple[int, bytes]], layout: Layout, name: str) -> Iterator[tuple[int, bytes]]:
    """Lines of separated values, each joined with the lines that continue it inside quotes; numbered by the first."""
    quote, delimiter = layout.quote.encode(), layout.delimiter.encode()
    # A quote opens where a value begins; further on, as in 5" pipe, it is a character like others.
    opening = re.compile(rb"(?:^|[\r" + re.escape(delimiter) + rb"])" + re.escape(quote))
    parts: list[bytes] = []
    begun, held = 0, 0
    for number, line in lines:
        begun = begun if parts else number
        still_open = (bool(parts) or quote in line) and _is_open(line, opening, quote, inside=bool(parts))
        parts.append(line)
        held += len(line)
        if held > MAX_RECORD_BYTES:
            raise _too_long(name, begun)
        if not still_open:
            yield begun, b"\n".join(parts)
            parts, held = [], 0
    if parts:
        yield begun, b"\n".join(parts)


def _is_open(line: bytes, opening: re.Pattern[bytes], quote: bytes, *, inside: bool) -> bool:
    """Whether a quoted value continues after ``line``. ``inside``: ``line`` begins inside one."""
    at = 0
    while True:
        if not inside:
            found = opening.search(line, at)
            if found is None:
                return False
            at = found.end()
        closing = line.find(quote, at)
        while closing >= 0 and line[closing + 1 : closing + 2] == quote:  # doubled, which means the character itself
            closing = line.find(quote, closing + 2)
        if closing < 0:
            return True
        at, inside = closing + 1, False


def _too_long(name: str, number: int) -> Unreadable:
    return Unreadable(
        f"the object {name} has a record of more than {MAX_RECORD_BYTES} bytes at line {number}: its format is not source.s3.format, "
        "or a quote is never closed. Correct the format, or exclude the object."
    )


def _rows(layout: Layout, file: BinaryIO, name: str, after_number: int) -> Iterator[tuple[int, bytes]]:
    parquet = pq.ParquetFile(file)
    if layout.column is not None and layout.column not in parquet.schema_arrow.names:
        names = ", ".join(parquet.schema_arrow.names)
        msg = (
            f"the object {name} cannot be read as records in the column {layout.column!r}: it has the columns {names}; see source.s3.column"
        )
        raise Unreadable(msg)
    if layout.column is None:
        _refuse_wide_inside(parquet.schema_arrow, name)
    number = 0
    for group in range(parquet.num_row_groups):
        height = parquet.metadata.row_group(group).num_rows
        if number + height <= after_number:
            number += height
            continue
        columns = None if layout.column is None else [layout.column]
        for batch in parquet.iter_batches(PARQUET_ROWS, row_groups=[group], columns=columns):
            for body in _bodies(batch, layout.column):
                number += 1
                if number > after_number:
                    yield number, body


def _bodies(batch: pa.RecordBatch, column: str | None) -> Iterator[bytes]:
    if column is not None:
        for value in batch.column(0).to_pylist():
            yield value.encode() if isinstance(value, str) else value or b""
        return
    frame = pl.DataFrame(pl.from_arrow(_without_wide(batch)))
    out = io.BytesIO()
    frame.select(_writable(pl.col(name), kind).alias(name) for name, kind in frame.schema.items()).write_ndjson(out)
    yield from out.getvalue().splitlines()


def _refuse_wide_inside(schema: pa.Schema, name: str) -> None:
    """Refuse decimals with more than 38 digits inside lists and structs; they can be read at the top level only."""
    for field in schema:
        if not pa.types.is_decimal256(field.type) and _holds_wide(field.type):
            msg = (
                f"the object {name} cannot be read: column {field.name!r} is {field.type}, and inside of lists and objects "
                "decimals may have up to 38 digits. Write them as text or with fewer digits, or exclude the object."
            )
            raise Unreadable(msg)


def _holds_wide(kind: pa.DataType) -> bool:
    return pa.types.is_decimal256(kind) or any(_holds_wide(kind.field(at).type) for at in range(kind.num_fields))


def _without_wide(batch: pa.RecordBatch) -> pa.RecordBatch:
    """``batch`` with text in place of decimals of more than 38 digits, which make Polars panic."""
    for at, field in enumerate(batch.schema):
        if pa.types.is_decimal256(field.type):
            texts = [None if value is None else f"{value:f}" for value in batch.column(at).to_pylist()]
            batch = batch.set_column(at, field.name, pa.array(texts, pa.string()))
    return batch


def _writable(value: pl.Expr, kind: Any) -> pl.Expr:
    """``value`` with bytes in base64, at every level: Polars does not write bytes to JSON, and decoders read them in this form."""
    if kind == pl.Binary():
        return value.bin.encode("base64")
    if isinstance(kind, pl.List) and _holds_bytes(kind):
        return value.list.eval(_writable(pl.element(), kind.inner))
    if isinstance(kind, pl.Struct) and _holds_bytes(kind):
        fields = [_writable(value.struct.field(field.name), field.dtype).alias(field.name) for field in kind.fields]
        return pl.when(value.is_not_null()).then(pl.struct(fields))
    return value


def _holds_bytes(kind: Any) -> bool:
    inner = [field.dtype for field in kind.fields] if isinstance(kind, pl.Struct) else [kind.inner] if isinstance(kind, pl.List) else []
    return kind == pl.Binary() or any(map(_holds_bytes, inner))
