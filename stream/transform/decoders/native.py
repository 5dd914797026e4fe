"""The optional compiled reader of JSON records: quick about what is plain, silent about everything else.

It is in the distribution ``kinesis-stream-native`` and is used where that is installed, for schemas of flat columns. For each record it
either vouches for the values it read or says nothing, and then ``rows.Reader`` decides. It vouches only for records on which no two JSON
readers differ, so columns, rejects and reasons are the same with it and without; tests compare them.
"""

from __future__ import annotations

import ctypes
import importlib
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from stream.transform.types import Kind, RecordSchema

INTERFACE: Final = 1
_TYPES: Final = {pa.string(): 0, pa.int64(): 1, pa.float64(): 2, pa.bool_(): 3}
_SIZES: Final = (16, 8, 8, 1)
_LARGEST: Final = 2**31 - 1
"""Bytes of a window: offsets inside text views have 32 bits."""


class _Field(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("size", ctypes.c_int64),
        ("type", ctypes.c_int64),
        ("values", ctypes.c_void_p),
        ("valid", ctypes.c_void_p),
    )


@cache
def _kernel() -> Any:
    """``stream_decode`` of the library, or None where it is not installed or belongs to another version."""
    try:
        package = importlib.import_module("stream_native")
        library = ctypes.CDLL(package.LIBRARY)
    except (ImportError, OSError):
        return None
    if package.INTERFACE != INTERFACE:
        return None
    function = library.stream_decode
    function.restype = ctypes.c_int64
    function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p]
    return function


def installed() -> bool:
    """Whether the compiled reader can be used."""
    return _kernel() is not None


@dataclass(frozen=True, slots=True)
class NativeReader:
    """Reads records of one flat schema; thread-safe, and lets other threads run meanwhile."""

    names: tuple[bytes, ...]
    kinds: tuple[int, ...]

    def read(self, records: pa.LargeBinaryArray) -> tuple[pl.DataFrame, npt.NDArray[np.bool_]] | None:
        """Columns of wire types, one row per record, and which rows to read in another way: their values mean nothing.

        None where ``records`` are more than one call can take.
        """
        _, offsets, data = records.buffers()
        rows, base = len(records), records.offset * 8
        if data is None or data.size > _LARGEST:
            return None
        fields = (_Field * len(self.names))()
        columns = []
        for at, (name, kind) in enumerate(zip(self.names, self.kinds, strict=True)):
            values, valid = np.zeros(rows * _SIZES[kind], np.uint8), np.zeros(rows, np.bool_)
            fields[at] = _Field(name, len(name), kind, values.ctypes.data, valid.ctypes.data)
            columns.append((values, valid))
        bad = np.zeros(rows, np.bool_)
        wrong = _kernel()(data.address, offsets.address + base, rows, fields, len(fields), bad.ctypes.data)
        if wrong < 0:
            return None
        arrays = [_array(kind, *column, data) for kind, column in zip(self.kinds, columns, strict=True)]
        frame = pl.DataFrame(pa.table(arrays, names=[name.decode() for name in self.names]))
        return frame, bad


def native_reader(schema: RecordSchema, *, strict: bool) -> NativeReader | None:
    """A reader for ``schema``, or None where the compiled reader is not installed or cannot read such columns."""
    wires = [(name.encode(), _TYPES.get(kind.wire)) for name, kind in schema if kind.kind is not Kind.JSON]
    if strict or len(wires) < len(schema.fields) or not installed():
        return None
    kinds = tuple(kind for _, kind in wires if kind is not None)
    return NativeReader(tuple(name for name, _ in wires), kinds) if len(kinds) == len(wires) else None


def _array(kind: int, values: npt.NDArray[np.uint8], valid: npt.NDArray[np.bool_], data: pa.Buffer) -> pa.Array:
    present = None if valid.all() else pa.py_buffer(np.packbits(valid, bitorder="little"))
    if kind == 0:
        return pa.Array.from_buffers(pa.string_view(), len(valid), [present, pa.py_buffer(values), data])
    if kind == 3:
        values = np.packbits(values.view(np.bool_), bitorder="little")
    wire = (None, pa.int64(), pa.float64(), pa.bool_())[kind]
    return pa.Array.from_buffers(wire, len(valid), [present, pa.py_buffer(values)])
