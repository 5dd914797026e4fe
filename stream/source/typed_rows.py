"""Reads the rows of Parquet, Arrow and Avro files, each as a JSON record, a part of a file at a time.

It is made for ``reader_child``: what the libraries do with damaged or hostile files, beyond raising an error, ends that process only.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from datetime import date, timedelta
from typing import Any, BinaryIO, Final, TypeAlias, cast

import fastavro
import fastavro.read
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import ipc

from stream import avro_file
from stream.source.json_rows import NoJson, finite, rows_as_json

Rows: TypeAlias = tuple[int, list[bytes]]
"""The number of the first record, from 1, and the records."""

MOST_ROWS: Final = 4096
_AT_ONCE: Final = 8 * 2**20
"""Bytes of rows that are converted at a time."""
_BUFFERED: Final = 64 * 2**20
"""Bytes of a row group above which its columns are read piece by piece, not each as a whole."""
_PIECE: Final = 4 * 2**20
_EMPTY_ROWS: Final = 4096
"""Rows that a block of Avro may have if they have no bytes: otherwise a few bytes could stand for endless rows."""


class Contradiction(ValueError):
    """A file contradicts itself; the argument says how."""


def typed_rows(kind: str, column: str | None, file: BinaryIO, after: int) -> Iterator[Rows]:
    """The rows of ``file`` in order, from the one after number ``after``. ``column``: the one that holds whole records, or None.

    Numbers depend on the file alone, not on ``after``. Rows before the place where damage shows are given first.

    Raises:
        ValueError, OSError, ArrowException, MemoryError and others: the file is damaged, no such file, or too large in a part.
    """
    number = 0
    for rows in _READERS[kind](file, column, after):
        if isinstance(rows, int):
            number += rows
            continue
        skipped = max(0, min(len(rows), after - number))
        if skipped < len(rows):
            yield number + skipped + 1, rows[skipped:]
        number += len(rows)


def _parquet(file: BinaryIO, column: str | None, after: int) -> Iterator[list[bytes] | int]:
    """Records, or the number of rows of a row group that lies before ``after``."""
    whole = pq.ParquetFile(file, pre_buffer=True, page_checksum_verification=True)
    names = whole.schema_arrow.names
    _check_column(column, names)
    before = 0
    for group in range(whole.num_row_groups):
        about = whole.metadata.row_group(group)
        if about.num_rows < 0:
            msg = f"row group {group} says that it has {about.num_rows} rows"
            raise Contradiction(msg)
        if before + about.num_rows <= after:
            # What was read before it was as many rows as it says.
            before += about.num_rows
            yield about.num_rows
            continue
        stored = sum(about.column(at).total_compressed_size for at in range(about.num_columns))
        piece = max(2**16, min(_PIECE, 4 * _BUFFERED // max(1, about.num_columns)))
        reader = whole
        if stored > _BUFFERED:
            reader = pq.ParquetFile(file, metadata=whole.metadata, buffer_size=piece, pre_buffer=False, page_checksum_verification=True)
        height = max(1, min(MOST_ROWS, _AT_ONCE * max(1, about.num_rows) // max(1, about.total_byte_size)))
        found = 0
        for batch in reader.iter_batches(height, row_groups=[group], columns=None if column is None else [column], use_threads=False):
            found += batch.num_rows
            if found > about.num_rows:
                break
            yield from _records(batch, column)
        if found != about.num_rows:
            msg = f"row group {group} has another number of rows than the {about.num_rows} that the file says"
            raise Contradiction(msg)
        before += found


def _arrow(file: BinaryIO, column: str | None, after: int) -> Iterator[list[bytes] | int]:  # noqa: ARG001 - a stream has no index
    begin = file.read(len(_ARROW_FILE))
    file.seek(0)
    batches: Iterator[pa.RecordBatch]
    if begin == _ARROW_FILE:
        reader = ipc.open_file(file)
        schema, batches = reader.schema, map(reader.get_batch, range(reader.num_record_batches))
    else:
        stream = ipc.open_stream(file)
        schema, batches = stream.schema, iter(stream)
    _check_column(column, schema.names)
    for batch in batches:
        yield from _records(batch, column)


_ARROW_FILE: Final = b"ARROW1"


def _check_column(column: str | None, names: list[str]) -> None:
    if column is not None and names.count(column) != 1:
        msg = f"it has the columns {', '.join(names)}, and records are to be in the column {column!r}; see source.s3.column"
        raise Contradiction(msg)


def _records(batch: pa.RecordBatch, column: str | None) -> Iterator[list[bytes]]:
    """The records of ``batch``, so many at a time that their size stays bounded."""
    height = max(1, min(MOST_ROWS, batch.num_rows * _AT_ONCE // max(1, batch.nbytes)))
    for begin in range(0, batch.num_rows, height):
        part = batch.slice(begin, height)
        if column is None:
            yield rows_as_json(part)
            continue
        values = part.column(part.schema.get_field_index(column))
        values.validate(full=True)
        yield [_whole(value, column) for value in values.to_pylist()]


def _whole(value: Any, column: str) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if value is None or isinstance(value, bytes):
        return value or b""
    msg = f"the column {column!r} holds neither text nor bytes, but {type(value).__name__}; see source.s3.column"
    raise Contradiction(msg)


def _avro(file: BinaryIO, column: str | None, after: int) -> Iterator[list[bytes] | int]:
    buffered = io.BufferedReader(cast("io.RawIOBase", file), _PIECE)
    container = avro_file.Reader(buffered)
    schema = fastavro.parse_schema(container.schema)
    if not isinstance(schema, dict) or schema.get("type") != "record":
        msg = "its rows are no records"
        raise Contradiction(msg)
    _check_column(column, [field["name"] for field in schema["fields"]])
    before = 0
    for number, (rows, packed) in enumerate(container.blocks()):
        if before + rows <= after:
            before += rows
            yield rows
            continue
        before += rows
        yield from _datums(number, rows, container.plain(packed), schema, column)


def _datums(number: int, rows: int, data: bytes, schema: Any, column: str | None) -> Iterator[list[bytes]]:
    """The records of a block, once all of them could be read: few codecs have a checksum, so what precedes damage may be damaged too."""
    if rows > max(len(data), _EMPTY_ROWS):
        msg = f"block {number} says that it has {rows} rows in {len(data)} bytes"
        raise Contradiction(msg)
    at = io.BytesIO(data)
    parts: list[list[bytes]] = [[]]
    held = 0
    try:
        for _ in range(rows):
            datum: Any = fastavro.schemaless_reader(at, schema)
            body = msgspec.json.encode(finite(datum), enc_hook=_encoded) if column is None else _whole(datum[column], column)
            if len(parts[-1]) == MOST_ROWS or held > _AT_ONCE:
                parts.append([])
                held = 0
            parts[-1].append(body)
            held += len(body)
    except MemoryError:
        raise
    except Exception as error:
        # Whatever fastavro raises.
        msg = f"a row of block {number} cannot be read: {type(error).__name__}: {error}"
        raise Contradiction(msg) from error
    if at.tell() != len(data):
        msg = f"block {number} has {len(data) - at.tell()} bytes after its {rows} rows"
        raise Contradiction(msg)
    yield from (part for part in parts if part)


def _encoded(value: Any) -> Any:
    msg = f"a {type(value).__name__} has no form in JSON"
    raise NoJson(msg)


_EPOCH: Final = date(1970, 1, 1)


def _decimal(data: bytes, writer: Any, _reader: Any = None) -> str:
    """All digits: fastavro's own reader rounds to the precision."""
    scale, number = writer.get("scale", 0), int.from_bytes(data, "big", signed=True)
    digits = str(abs(number)).zfill(scale + 1)
    text = f"{digits[:-scale]}.{digits[-scale:]}" if scale else digits
    return f"-{text}" if number < 0 else text


def _day(days: int, _writer: Any = None, _reader: Any = None) -> Any:
    try:
        return (_EPOCH + timedelta(days)).isoformat()
    except OverflowError:
        return days


def _moment(per_second: int, suffix: str) -> Callable[..., Any]:
    digits = len(str(per_second)) - 1

    def read(ticks: int, _writer: Any = None, _reader: Any = None) -> Any:
        seconds, fraction = divmod(ticks, per_second)
        days, seconds = divmod(seconds, 86_400)
        day = _day(days)
        return f"{day}T{_clock(seconds)}.{fraction:0{digits}}{suffix}" if isinstance(day, str) else ticks

    return read


def _time(per_second: int) -> Callable[..., Any]:
    digits = len(str(per_second)) - 1

    def read(ticks: int, _writer: Any = None, _reader: Any = None) -> Any:
        seconds, fraction = divmod(ticks, per_second)
        return f"{_clock(seconds)}.{fraction:0{digits}}" if 0 <= seconds < 86_400 else ticks

    return read


def _clock(seconds: int) -> str:
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"


_LOGICAL: Final[Mapping[str, Callable[..., Any]]] = {
    "bytes-decimal": _decimal,
    "fixed-decimal": _decimal,
    "int-date": _day,
    "int-time-millis": _time(10**3),
    "long-time-micros": _time(10**6),
    **{
        f"long-{zone}timestamp-{unit}": _moment(per_second, "Z" if not zone else "")
        for zone in ("", "local-")
        for unit, per_second in (("millis", 10**3), ("micros", 10**6), ("nanos", 10**9))
    },
}


def read_logical_types_exactly() -> None:
    """Make fastavro, in all of this process, read values of logical types as text without any loss."""
    fastavro.read.LOGICAL_READERS.clear()
    fastavro.read.LOGICAL_READERS.update(_LOGICAL)


_READERS: Final[Mapping[str, Callable[[BinaryIO, str | None, int], Iterator[list[bytes] | int]]]] = {
    "parquet": _parquet,
    "arrow": _arrow,
    "avro": _avro,
}
