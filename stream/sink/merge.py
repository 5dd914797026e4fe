"""Parquet files, one after the other, as one file per schema. Pure: equal files give equal bytes, with one version of PyArrow.

Values and types are copied as they are. Files whose columns differ, because the definition changed in between, are never made equal: their
rows go to different outputs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from stream.sink.encode import ROW_GROUP_ROWS, Compression, repetitive

ROW_GROUP_BYTES: Final = 128 * 2**20
"""Bytes in memory at which a row group is written although it has fewer rows than others, so that wide rows do not fill the memory."""

_READ_ROWS: Final = 65_536
"""Rows that are decoded at a time."""
_MODULUS: Final = 2**128
_SEEDS: Final = (1, 2)


class UnreadableFileError(ValueError):
    """A file is no Parquet file."""


@dataclass(frozen=True, slots=True)
class Content:
    """The rows of a part of a file: their number, and a hash of their values that does not depend on their order.

    The hash is comparable within one process only. It is for what was written a moment ago; it is never stored.
    """

    rows: int = 0
    hash: int = 0

    def __add__(self, other: Content) -> Content:
        """The rows of both."""
        return Content(self.rows + other.rows, (self.hash + other.hash) % _MODULUS)


@dataclass(frozen=True, slots=True)
class Merged:
    """The merged files. ``outputs``: their bytes; ``output_of``: by input, the index of its output; ``contents``: by input, its rows."""

    outputs: tuple[bytes, ...]
    output_of: tuple[int, ...]
    contents: tuple[Content, ...]


def merge(bodies: Sequence[bytes], compression: Compression, level: int | None) -> Merged:
    """The rows of ``bodies``, which are Parquet files, in their order, in one file per schema. One that is alone is copied as it is.

    At most a row group is in memory beside ``bodies`` and the outputs.

    Raises:
        UnreadableFileError: one of them is no Parquet file; its argument is the index.
    """
    files: list[pq.ParquetFile] = []
    for at, body in enumerate(bodies):
        try:
            files.append(_opened(body))
        except (pa.ArrowException, OSError) as error:
            raise UnreadableFileError(at) from error
    schemas: dict[bytes, int] = {}
    output_of = tuple(schemas.setdefault(_identity(file), len(schemas)) for file in files)
    contents: list[Content] = [Content()] * len(files)
    outputs = []
    for output in range(len(schemas)):
        inputs = [at for at, of in enumerate(output_of) if of == output]
        if len(inputs) == 1:
            (only,) = inputs
            outputs.append(bodies[only])
            contents[only] = sum((_content(batch) for batch in _batches(files[only])), Content())
            continue
        writer = _Writer([files[at] for at in inputs], compression, level)
        for at in inputs:
            for batch in _batches(files[at]):
                contents[at] += _content(batch)
                writer.add(batch)
        outputs.append(writer.close())
    return Merged(tuple(outputs), output_of, tuple(contents))


def differs(body: bytes, expected: Sequence[Content]) -> str:
    """How the rows of ``body``, cut in parts of the lengths in ``expected``, differ from these; empty if they do not."""
    try:
        file = _opened(body)
        if file.metadata.num_rows != sum(each.rows for each in expected):
            return f"it has {file.metadata.num_rows} rows instead of {sum(each.rows for each in expected)}"
        parts = [Content()]
        for batch in _batches(file):
            left = batch
            while left.num_rows:
                at = len(parts) - 1
                room = expected[at].rows - parts[at].rows
                if not room:
                    parts.append(Content())
                    continue
                parts[at] += _content(left.slice(0, room))
                left = left.slice(room)
    except (pa.ArrowException, OSError, IndexError) as error:
        return f"it cannot be read: {error}"
    parts += [Content()] * (len(expected) - len(parts))
    wrong = next((at for at, (found, wanted) in enumerate(zip(parts, expected, strict=True)) if found != wanted), None)
    return "" if wrong is None else f"its rows from {sum(each.rows for each in expected[:wrong])} on are others than were compacted"


def digest(body: bytes) -> str:
    """SHA-256 as 64 lower-case hex digits."""
    return hashlib.sha256(body).hexdigest()


def lineage(body: bytes, names: Sequence[str]) -> Iterator[pl.DataFrame]:
    """The columns ``names`` of a Parquet file, some rows at a time; nothing if it lacks one of them."""
    file = _opened(body)
    if set(names) <= set(file.schema_arrow.names):
        for batch in file.iter_batches(_READ_ROWS, columns=list(names)):
            yield pl.DataFrame(pl.from_arrow(batch)).select(names)


def _opened(body: bytes) -> pq.ParquetFile:
    return pq.ParquetFile(pa.BufferReader(body))


def _identity(file: pq.ParquetFile) -> bytes:
    identity: bytes = file.schema_arrow.remove_metadata().serialize().to_pybytes()
    return identity


def _batches(file: pq.ParquetFile) -> Iterator[pa.RecordBatch]:
    return file.iter_batches(_READ_ROWS)  # type: ignore[no-any-return]


def _content(batch: pa.RecordBatch) -> Content:
    if not batch.num_rows:
        return Content()
    frame = pl.DataFrame(pl.from_arrow(batch))
    total = 0
    for seed in _SEEDS:
        hashes = frame.hash_rows(seed=seed)
        values = hashes.to_numpy()
        # The upper and lower halves are summed separately, so that neither sum overflows.
        total = (total << 64) + (int((values >> np.uint64(32)).sum()) << 32) + int((values & np.uint64(2**32 - 1)).sum())
    return Content(batch.num_rows, total % _MODULUS)


class _Writer:
    """Writes batches of one schema as a Parquet file with row groups of the usual size."""

    def __init__(self, files: Sequence[pq.ParquetFile], compression: Compression, level: int | None) -> None:
        self._schema: pa.Schema = files[0].schema_arrow.remove_metadata()
        self._statistics = _with_statistics(files)
        self._compression = compression
        self._level = level
        self._out = pa.BufferOutputStream()
        self._writer: pq.ParquetWriter | None = None
        self._waiting: list[pa.RecordBatch] = []
        self._rows = self._bytes = 0

    def add(self, batch: pa.RecordBatch) -> None:
        self._waiting.append(batch)
        self._rows += batch.num_rows
        self._bytes += batch.nbytes
        while self._rows >= ROW_GROUP_ROWS or (self._rows and self._bytes >= ROW_GROUP_BYTES):
            self._flush()

    def close(self) -> bytes:
        if self._rows or self._writer is None:
            self._flush()
        if self._writer is not None:
            self._writer.close()
        body: bytes = self._out.getvalue().to_pybytes()
        return body

    def _flush(self) -> None:
        table = pa.Table.from_batches(self._waiting, self._schema)
        if self._writer is None:
            self._writer = pq.ParquetWriter(
                self._out,
                self._schema,
                version="2.6",
                data_page_version="1.0",
                compression=self._compression.value,
                compression_level=self._level,
                use_dictionary=repetitive(pl.DataFrame(pl.from_arrow(table))),
                write_statistics=self._statistics,
                store_schema=any(pa.types.is_duration(field.type) for field in self._schema),
            )
        group = table.slice(0, ROW_GROUP_ROWS)
        self._writer.write_table(group, row_group_size=max(1, group.num_rows))
        rest = table.slice(group.num_rows)
        self._waiting = rest.to_batches()
        self._rows, self._bytes = rest.num_rows, rest.nbytes


def _with_statistics(files: Sequence[pq.ParquetFile]) -> list[str]:
    """The columns of which every row group of every file has statistics: where one has none, they would mislead readers."""
    missing: set[str] = set()
    names: dict[str, Any] = {}
    for file in files:
        for group in range(file.metadata.num_row_groups):
            columns = file.metadata.row_group(group)
            for at in range(columns.num_columns):
                column = columns.column(at)
                names[column.path_in_schema] = None
                statistics = column.statistics if column.is_stats_set else None
                # Arrow writes no bounds for long texts, nor for what is null throughout.
                if statistics is None or not (statistics.has_min_max or statistics.null_count == column.num_values):
                    missing.add(column.path_in_schema)
    return [name for name in names if name not in missing]
