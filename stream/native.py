"""The optional compiled inner loops ("the kernel"), from the distribution ``kinesis-stream-native`` (folder ``native``).

They change speed and nothing else: a function of the kernel either gives the result of the Python path or declines, and then the Python
path is taken. Everything therefore works without the kernel.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from typing import Any, Final

import polars as pl
import pyarrow as pa

INTERFACE: Final = 9
"""Version of the interface that this build knows; a kernel with another version is not used."""

SWITCH: Final = "STREAM_NATIVE"
"""Environment variable; ``off`` disables the kernel even if it is installed."""


def _load() -> Any:
    if os.environ.get(SWITCH, "").lower() == "off":
        return None
    try:
        package = importlib.import_module("stream_native")
    except ImportError:
        return None
    return package._kernel if package.INTERFACE == INTERFACE else None  # noqa: SLF001 - made for this module


KERNEL: Final[Any] = _load()
"""The module of compiled functions, or None."""


def array(kind: pa.DataType, rows: int, validity: Any, *buffers: Any, nulls: int = 0, children: Sequence[pa.Array] = ()) -> pa.Array:
    """An Arrow array over memory that the kernel made, without a copy; ``validity`` may be None if nothing is null."""
    wrapped = [
        None if buffer is None else buffer if isinstance(buffer, pa.Buffer) else pa.py_buffer(buffer) for buffer in (validity, *buffers)
    ]
    return pa.Array.from_buffers(kind, rows, wrapped, null_count=nulls, children=list(children))


class _Exported:
    """An array that shows only Arrow's C interface: given one of pyarrow's own, Polars loads ``pyarrow.compute``, 9 MiB."""

    __slots__ = ("_array",)

    def __init__(self, array: pa.Array) -> None:
        self._array = array

    def __arrow_c_array__(self, requested_schema: object = None) -> tuple[object, object]:
        exported: tuple[object, object] = self._array.__arrow_c_array__(requested_schema)
        return exported


def series(name: str, values: pa.Array) -> pl.Series:
    """``values`` as a column, without a copy."""
    return pl.Series(values=_Exported(values)).alias(name)


def views(column: pl.Series) -> tuple[pa.Buffer, tuple[pa.Buffer, ...]]:
    """The views of a String or Binary column without nulls, 16 bytes for each row, and the buffers that they refer to."""
    arrow = column.to_arrow(compat_level=pl.CompatLevel.newest())
    _, own, *data = arrow.buffers()
    return own.slice(16 * arrow.offset, 16 * len(arrow)), tuple(data)
