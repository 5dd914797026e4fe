"""The optional compiled inner loops ("the kernel"), from the distribution ``kinesis-stream-native`` (folder ``native``).

They change speed and nothing else: a function of the kernel either gives the result of the Python path or declines, and then the Python
path is taken. Everything therefore works without the kernel.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable, Sequence
from typing import Any, Final

import polars as pl
import pyarrow as pa

INTERFACE: Final = 11
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


def frame(names: Sequence[str], values: Sequence[pa.Array]) -> pl.DataFrame:
    """Arrays of equal length as columns, without a copy.

    Each passage from Arrow to Polars or back gives the interpreter's lock away up to four times, which costs little unless another thread
    waits for it. So columns pass together, as the fields of one array of structs.
    """
    fields = [pa.field(name, each.type) for name, each in zip(names, values, strict=True)]
    together = array(pa.struct(fields), len(values[0]), None, children=values)
    return pl.Series(values=_Exported(together)).struct.unnest()


def arrays(columns: Iterable[pl.Series], level: pl.CompatLevel | None = None) -> list[pa.Array]:
    """Columns of equal length as Arrow arrays, without a copy of those that are one chunk; they pass together, as in ``frame``.

    ``level``: the types of texts, views by default.
    """
    numbered = [column.alias(str(index)) for index, column in enumerate(columns)]
    together = pl.DataFrame(numbered).to_struct().to_arrow(compat_level=level or pl.CompatLevel.newest())
    return [together.field(index) for index in range(len(numbered))]


def views(column: pl.Series) -> tuple[pa.Buffer, tuple[pa.Buffer, ...]]:
    """The views of a String or Binary column without nulls, 16 bytes for each row, and the buffers that they refer to."""
    return views_of(column.to_arrow(compat_level=pl.CompatLevel.newest()))


def views_of(arrow: pa.Array) -> tuple[pa.Buffer, tuple[pa.Buffer, ...]]:
    """As ``views``, of an array of views."""
    _, own, *data = arrow.buffers()
    return own.slice(16 * arrow.offset, 16 * len(arrow)), tuple(data)


def few_distinct(columns: Sequence[pl.Series], share: int) -> list[bool]:
    """For each column, which is not nested and has at most 65,534 rows, whether there are at least ``share`` rows for a distinct value.

    Null is a value, too.
    """
    by_length: dict[int, list[tuple[int, pl.Series, int]]] = {}
    found = {}
    for index, column in enumerate(columns):
        if KERNEL is None or not _has_bits_for_values(column.dtype):
            found[index] = column.n_unique() * share <= len(column)
        elif (most := len(column) // share - bool(column.null_count())) < 0:
            found[index] = False
        else:
            # Polars looks the name up, and takes some names for patterns.
            values = column.alias("").drop_nulls() if column.null_count() else column
            by_length.setdefault(len(values), []).append((index, values, most))
    for same in by_length.values():
        passed = arrays([values for _, values, _ in same])
        few = KERNEL.few(tuple((*_values(array), most) for array, (_, _, most) in zip(passed, same, strict=True)))
        found.update(zip((index for index, _, _ in same), few, strict=True))
    return [found[index] for index in range(len(columns))]


def _has_bits_for_values(kind: pl.DataType) -> bool:
    """Whether values are equal if and only if their bytes are."""
    texts = {pl.String(), pl.Binary()}
    return kind in texts or kind.is_decimal() or kind.is_temporal() or (kind.is_integer() and kind not in {pl.Int128(), pl.UInt128()})


def _values(arrow: pa.Array) -> tuple[pa.Buffer, int, tuple[pa.Buffer, ...] | None]:
    """An array without nulls as ``KERNEL.few`` takes it."""
    if arrow.type in {pa.string_view(), pa.binary_view()}:
        own, data = views_of(arrow)
        return own, 0, data
    width = arrow.type.bit_width // 8
    return arrow.buffers()[1].slice(width * arrow.offset, width * len(arrow)), width, None
