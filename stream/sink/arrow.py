"""Writes rows as Arrow IPC files (Feather version 2): equal rows give equal bytes.

The Arrow format leaves open what a buffer has where a value is null, and whether bits without a value are set; a column carries what the
operations before it left there. So every buffer is made anew from the values.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import polars as pl
import pyarrow as pa

BATCH_ROWS: Final = 65_536
"""Rows per record batch, which is what readers decompress at a time."""

_AS_TEXT: Final = frozenset({pl.Categorical, pl.Enum, pl.Int128, pl.UInt128})
_DECIMAL_BYTES: Final = 16


def arrow(frame: pl.DataFrame, codec: str | None, level: int | None) -> bytes:
    """An IPC file with the columns of ``frame``, in order. ``codec``: zstd, lz4 or None.

    Categories and 128-bit integers are written as text, arrays as lists; all other types are kept.
    """
    options = pa.ipc.IpcWriteOptions(compression=None if codec is None else pa.Codec(codec, compression_level=level), use_threads=False)
    out = pa.BufferOutputStream()
    writer = None
    for rows in frame.iter_slices(BATCH_ROWS):
        arrays = [_array(column) for column in rows]
        schema = pa.schema([pa.field(name, array.type) for name, array in zip(frame.columns, arrays, strict=True)])
        writer = writer or pa.ipc.new_file(out, schema, options=options)
        writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))
    if writer is not None:
        writer.close()
    body: bytes = out.getvalue().to_pybytes()
    return body


def _array(column: pl.Series) -> pa.Array:
    """The values of ``column`` in buffers that hold nothing else: zero where a value is null, and in bits beyond the last."""
    kind, count, nulls = column.dtype, len(column), column.null_count()
    if kind.base_type() in _AS_TEXT:
        return _array(column.cast(pl.String))
    if isinstance(kind, pl.Array):
        return _array(column.arr.to_list())
    if isinstance(kind, pl.Null):
        return pa.nulls(count)
    validity = _bits(column.is_not_null()) if nulls else None
    if isinstance(kind, pl.Struct):
        children = [_array(column.struct.field(field.name)) for field in kind.fields]
        fields = [pa.field(field.name, child.type) for field, child in zip(kind.fields, children, strict=True)]
        return pa.Array.from_buffers(pa.struct(fields), count, [validity], nulls, children=children)
    if isinstance(kind, pl.List):
        lengths = column.list.len().fill_null(0)
        offsets = np.concatenate([np.zeros(1, np.int64), lengths.to_numpy().cumsum(dtype=np.int64)])
        items = _array(column.filter(lengths > 0).explode())
        return pa.Array.from_buffers(pa.large_list(items.type), count, [validity, pa.py_buffer(offsets)], nulls, children=[items])
    return pa.Array.from_buffers(_type(column), count, [validity, *_values(column)], nulls)


def _bits(flags: pl.Series) -> pa.Buffer:
    return pa.py_buffer(np.packbits(flags.to_numpy(), bitorder="little"))


def _type(column: pl.Series) -> pa.DataType:
    if column.dtype == pl.String():
        return pa.large_string()
    return pa.large_binary() if column.dtype == pl.Binary() else column.clear().to_arrow(compat_level=pl.CompatLevel.oldest()).type


def _values(column: pl.Series) -> list[pa.Buffer]:
    kind = column.dtype
    if kind == pl.Boolean():
        return [_bits(column.fill_null(value=False))]
    if kind in {pl.String(), pl.Binary()}:
        filled: Any = column.fill_null("" if kind == pl.String() else b"")
        array = filled.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
        _, offsets, data = array.buffers()
        ends = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
        used = data.slice(int(ends[0]), int(ends[-1] - ends[0])) if data is not None else pa.py_buffer(b"")
        return [pa.py_buffer(ends - ends[0]), used]
    if isinstance(kind, pl.Decimal):
        zero = pl.lit(0).cast(kind)
        array = pl.select(pl.lit(column).fill_null(zero)).to_series().rechunk().to_arrow()
        return [array.buffers()[1].slice(array.offset * _DECIMAL_BYTES, len(array) * _DECIMAL_BYTES)]
    return [pa.py_buffer(np.ascontiguousarray(column.to_physical().fill_null(0).to_numpy()))]
