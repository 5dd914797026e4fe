"""Reads the records of an object: lines, JSON values, or rows of Parquet, Arrow and Avro, compressed or not, in bounded memory."""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import BinaryIO, Final

import pyarrow as pa

from stream.errors import Halted
from stream.source.json_values import JsonProblem, json_elements, json_values
from stream.source.reader_process import BadContent, typed_records

MAX_RECORD_BYTES: Final = 64 * 2**20
"""A longer line is not a record: Kinesis accepts 10 MiB at most."""

READ_BYTES: Final = 2**20
_SUFFIXES: Final = {".gz": "gzip", ".zst": "zstd", ".zstd": "zstd", ".bz2": "bz2"}


class Unreadable(Halted):
    """The content of an object is not what its layout says, however often it is read."""


class ObjectFormat(StrEnum):
    """The format of an object."""

    NDJSON = "ndjson"
    JSON = "json"
    CSV = "csv"
    PARQUET = "parquet"
    ARROW = "arrow"
    AVRO = "avro"


TYPED: Final = frozenset({ObjectFormat.PARQUET, ObjectFormat.ARROW, ObjectFormat.AVRO})
"""Formats of typed columns, which are compressed inside."""


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

    ``header``: CSV objects begin with a line of names, which is put before each record, so that the decoder finds it. ``quote`` (or none),
    ``delimiter`` and ``comment`` (what lines begin with that are no records, or none): for CSV. ``column``: for typed formats, the column
    that holds whole records; if None, each row becomes a JSON record. ``records``: for JSON, the path of the list whose elements are
    records, ``()`` for the document itself; if None, each value is a record.
    """

    format: ObjectFormat
    codec: ObjectCodec = ObjectCodec.AUTO
    header: bool = False
    quote: str = '"'
    column: str | None = None
    delimiter: str = ","
    comment: str = ""
    records: tuple[str, ...] | None = None


Chunk = list[tuple[int, bytes]]
"""Records with their numbers, from 1; for lines and separated values, the number of the line."""


def chunks(layout: Layout, file: BinaryIO, name: str, after_number: int, size: int) -> Iterator[Chunk]:
    """The records of ``file`` whose number is greater than ``after_number``, about ``size`` bytes at a time; never an empty chunk.

    Skips blank lines. ``name`` decides ``ObjectCodec.AUTO`` and is named in errors. Blocks while it reads.

    Raises:
        Unreadable: the object is not what ``layout`` says; every record before the place where that shows has been given.
        Halted: this machine lacks what is needed to read it, such as memory.
    """
    chunk: Chunk = []
    held = 0
    problem: Exception | None = None
    try:
        for number, body in _records(layout, file, name, after_number, size):
            chunk.append((number, body))
            held += len(body)
            if held >= size:
                yield chunk
                chunk, held = [], 0
    except Unreadable as error:
        problem = error
    except (pa.ArrowException, OSError, EOFError, BadContent, JsonProblem) as error:
        packed = "" if layout.format in TYPED else f", compression {_codec(layout, name) or 'none'}"
        msg = (
            f"the object {name} cannot be read as {layout.format}{packed}: {error}. Correct source.s3.format or source.s3.compression, or "
            "put the whole object back; nothing in it after the last sealed unit has been read."
        )
        if isinstance(error, MemoryError) or getattr(error, "errno", None) is not None:
            raise Halted(msg) from error
        problem = Unreadable(msg)
        problem.__cause__ = error
    if chunk:
        yield chunk
    if problem is not None:
        raise problem


def _records(layout: Layout, file: BinaryIO, name: str, after_number: int, size: int) -> Iterator[tuple[int, bytes]]:
    if layout.format in TYPED:
        for first, bodies in typed_records(layout.format, layout.column, file, after_number, size):
            yield from enumerate(bodies, first)
    elif layout.format is ObjectFormat.JSON:
        read = _content(layout, file, name).read
        found = json_values(read, MAX_RECORD_BYTES) if layout.records is None else json_elements(read, MAX_RECORD_BYTES, layout.records)
        for number, body in enumerate(found, 1):
            if number > after_number:
                yield number, body
    else:
        yield from _lines(layout, file, name, after_number)


def _content(layout: Layout, file: BinaryIO, name: str) -> BinaryIO | pa.NativeFile:
    """The object's content, decompressed."""
    codec = _codec(layout, name)
    return pa.CompressedInputStream(pa.PythonFile(file, "r"), codec) if codec else file


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
    source = _content(layout, file, name)
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
    """Lines of separated values without comments, each joined with those that continue it inside quotes; numbered by the first."""
    quote, delimiter, comment = layout.quote.encode(), layout.delimiter.encode(), layout.comment.encode()
    # A quote opens where a value begins; further on, as in 5" pipe, it is a character like others.
    opening = re.compile(rb"(?:^|[\r" + re.escape(delimiter) + rb"])" + re.escape(quote))
    parts: list[bytes] = []
    begun, held = 0, 0
    for number, line in lines:
        if comment and not parts and line.startswith(comment):
            continue
        begun = begun if parts else number
        still_open = bool(quote) and (bool(parts) or quote in line) and _is_open(line, opening, quote, inside=bool(parts))
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
