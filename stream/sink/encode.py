"""Encodes rows as files: equal rows give equal bytes, whatever their layout in memory."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, cast

import numpy as np
import polars as pl
import polars.selectors as cs
import pyarrow as pa
import pyarrow.parquet as pq

from stream.native import arrays, few_distinct
from stream.sink.arrow import arrow
from stream.sink.avro import avro
from stream.sink.csv import SeparatedValues, separated

ROW_GROUP_ROWS: Final = 250_000
"""Rows per Parquet row group: some 10 MB of typical events, which query engines read as one task."""

_SAMPLE_ROWS: Final = 4096
_DICTIONARY_SHARE: Final = 8
"""A column is dictionary-encoded if its first rows have at most one distinct value per this many rows."""
_LONGEST_BOUND: Final = 4096
"""Longest text, in bytes, that Arrow's Parquet writer stores as the minimum or maximum of a row group."""
_FLOATS: Final[frozenset[Any]] = frozenset({pl.Float32, pl.Float64})
_TEXTS: Final[frozenset[Any]] = frozenset({pl.String, pl.Binary})
_TOLERANCE: Final = 1.25
_AS_TEXT: Final = frozenset({pl.Categorical, pl.Enum, pl.Int128, pl.UInt128})


class Format(StrEnum):
    """File formats that a sink can write."""

    PARQUET = "parquet"
    NDJSON = "ndjson"
    CSV = "csv"
    AVRO = "avro"
    ARROW = "arrow"


class Compression(StrEnum):
    """Codecs; which of them a format takes: ``COMPRESSIONS``."""

    ZSTD = "zstd"
    GZIP = "gzip"
    SNAPPY = "snappy"
    DEFLATE = "deflate"
    LZ4 = "lz4"
    NONE = "none"


_WHOLE_FILE_CODECS: Final = (Compression.GZIP, Compression.ZSTD, Compression.NONE)
COMPRESSIONS: Final = {
    Format.PARQUET: (Compression.ZSTD, Compression.GZIP, Compression.SNAPPY, Compression.NONE),
    Format.NDJSON: _WHOLE_FILE_CODECS,
    Format.CSV: _WHOLE_FILE_CODECS,
    Format.AVRO: (Compression.DEFLATE, Compression.ZSTD, Compression.SNAPPY, Compression.NONE),
    Format.ARROW: (Compression.ZSTD, Compression.LZ4, Compression.NONE),
}
"""The codecs of each format, its default first."""
DEFAULT_LEVELS: Final = {Compression.ZSTD: 1, Compression.GZIP: 5, Compression.DEFLATE: 5}
LEVELS: Final = {Compression.ZSTD: range(1, 23), Compression.GZIP: range(1, 10), Compression.DEFLATE: range(1, 10)}
_AVRO_CODECS: Final = {Compression.ZSTD: "zstandard", Compression.NONE: "null"}
"""Codecs that Avro calls by another name."""
_CSV: Final = SeparatedValues()
_SUFFIX: Final = {Compression.ZSTD: ".zst", Compression.GZIP: ".gz", Compression.NONE: ""}


@dataclass(frozen=True, slots=True)
class Encoder:
    """A file format with its options; ``level`` None means the codec's default here. ``csv`` counts for that format only."""

    format: Format = Format.PARQUET
    compression: Compression = Compression.ZSTD
    level: int | None = None
    csv: SeparatedValues = _CSV

    @property
    def extension(self) -> str:
        """The file name extension, including its dot."""
        return f".{self.format}" + (_SUFFIX[self.compression] if self.format in {Format.NDJSON, Format.CSV} else "")

    def encode(self, frame: pl.DataFrame) -> bytes:
        """One complete file with the rows of ``frame``, in order.

        The bytes depend on nothing but the values, the column names and types, and the versions of Polars and PyArrow.
        """
        level = self.level if self.level is not None else DEFAULT_LEVELS.get(self.compression)
        if self.format is Format.PARQUET:
            return parquet(frame, self.compression, level)
        if self.format is Format.AVRO:
            return avro(frame, _AVRO_CODECS.get(self.compression, self.compression.value), level)
        if self.format is Format.ARROW:
            return arrow(frame, None if self.compression is Compression.NONE else self.compression.value, level)
        text = separated(frame, self.csv) if self.format is Format.CSV else _ndjson(frame)
        return _compress(text, self.compression, level)

    def encode_split(self, frame: pl.DataFrame, target: int) -> Iterator[tuple[int, bytes]]:
        """Files of about ``target`` encoded bytes that together contain ``frame``, as (rows, bytes), in row order.

        A file exceeds the target by more than a quarter only if it has a single row.
        """
        body = self.encode(frame)
        files = min(frame.height, -(-len(body) // target))
        if files <= 1 or len(body) <= target * _TOLERANCE:
            yield frame.height, body
            return
        del body
        rows = -(-frame.height // files)
        for start in range(0, frame.height, rows):
            yield from self.encode_split(frame.slice(start, rows), target)


def parquet(frame: pl.DataFrame, compression: Compression = Compression.ZSTD, level: int | None = 1) -> bytes:
    """A Parquet file (format 2.6, data page v1) with the columns of ``frame``, in order. Only repetitive columns are dictionary-encoded.

    Categories and 128-bit integers are written as text; all other types are kept.
    """
    if casts := _without_wide_types(frame):
        frame = frame.with_columns_seq(casts)
    frame = frame.rechunk()
    # Only a stored Arrow schema distinguishes durations from integers. Without one, text can be passed as views, without a copy.
    durations = any(isinstance(dtype, pl.Duration) for dtype in frame.dtypes)
    table = _table(frame, views=not durations)
    out = pa.BufferOutputStream()
    pq.write_table(
        table,
        out,
        version="2.6",
        data_page_version="1.0",
        row_group_size=ROW_GROUP_ROWS,
        compression=compression.value,
        compression_level=level,
        use_dictionary=repetitive(frame),
        write_statistics=_with_statistics(frame),
        store_schema=durations,
    )
    body: bytes = out.getvalue().to_pybytes()
    return body


def _table(frame: pl.DataFrame, *, views: bool) -> pa.Table:
    # Arrow cannot slice lists of string views, as its Parquet writer does with every list.
    plain = [column for column in frame if views and not column.dtype.is_nested()]
    rest = [column for column in frame if not views or column.dtype.is_nested()]
    found = dict(zip((column.name for column in plain), arrays(plain) if plain else (), strict=True))
    if rest:
        found |= zip((column.name for column in rest), arrays(rest, pl.CompatLevel.oldest()), strict=True)
    return pa.table([found[name] for name in frame.columns], frame.columns)


def _without_wide_types(frame: pl.DataFrame) -> list[pl.Expr]:
    names = [name for name, dtype in frame.schema.items() if dtype.base_type() in _AS_TEXT]
    return [pl.col(name).cast(pl.String) for name in names]


def repetitive(frame: pl.DataFrame) -> list[str]:
    """Parquet paths of the leaf columns whose first rows have few distinct values."""
    leaves = (leaf for column in frame.head(_SAMPLE_ROWS) for leaf in _leaves(column, column.name, _SAMPLE_ROWS))
    candidates = [(path, values) for path, values in leaves if values.dtype.base_type() not in {pl.Boolean, pl.Null}]
    few = few_distinct([values for _, values in candidates], _DICTIONARY_SHARE)
    return [path for (path, _), has_few in zip(candidates, few, strict=True) if has_few]


def _with_statistics(frame: pl.DataFrame) -> bool | list[str]:
    """Parquet paths of the leaf columns that get statistics; True for all of them.

    Statistics ignore NaN, so engines that prune by them would miss rows with NaN, which match ``x <> 1`` and, in some engines, ``x > 1``.
    For a row group with long texts, Arrow writes no statistics; readers that merge those of the other row groups into the file's, as
    PyIceberg does, would then miss the long texts.
    """
    suspects = [column for column in frame if _has_type(column.dtype, _FLOATS if frame.height <= ROW_GROUP_ROWS else _FLOATS | _TEXTS)]
    misleading = {path for column in suspects for path, values in _leaves(column, column.name) if _misleads(values)}
    return not misleading or [path for column in frame.clear() for path, _ in _leaves(column, column.name) if path not in misleading]


def _misleads(values: pl.Series) -> bool:
    """Whether statistics of these values would make engines skip matching rows."""
    if values.dtype.is_float():
        return bool(np.isnan((values.drop_nulls() if values.null_count() else values).to_numpy()).any())
    lengths = values.str.len_bytes() if values.dtype == pl.String() else values.bin.size() if values.dtype == pl.Binary() else None
    return lengths is not None and cast("int", lengths.max() or 0) > _LONGEST_BOUND


def _has_type(kind: Any, wanted: frozenset[Any]) -> bool:
    if isinstance(kind, pl.Struct):
        return any(_has_type(field.dtype, wanted) for field in kind.fields)
    return _has_type(kind.inner, wanted) if isinstance(kind, pl.List | pl.Array) else kind.base_type() in wanted


def _leaves(column: pl.Series, path: str, most: int | None = None) -> Iterator[tuple[str, pl.Series]]:
    """The Parquet path and the values of each leaf of a column; of lists, at most ``most`` items."""
    kind = column.dtype
    if isinstance(kind, pl.Struct):
        for field in kind.fields:
            yield from _leaves(column.struct.field(field.name), f"{path}.{field.name}", most)
    elif isinstance(kind, pl.List | pl.Array):
        yield from _leaves(column.explode().head(most) if most is not None else column.explode(), f"{path}.list.element", most)
    else:
        yield path, column


def _ndjson(frame: pl.DataFrame) -> bytes:
    out = io.BytesIO()
    frame.with_columns(cs.binary().bin.encode("base64")).rechunk().write_ndjson(out)
    return out.getvalue()


def _compress(body: bytes, compression: Compression, level: int | None) -> bytes:
    if compression is Compression.GZIP:
        return gzip.compress(body, compresslevel=level or DEFAULT_LEVELS[compression], mtime=0)
    if compression is Compression.ZSTD:
        packed: bytes = pa.Codec("zstd", compression_level=level).compress(body, asbytes=True)
        return packed
    return body
