"""The optional compiled inner loops ("the kernel"), from the distribution ``kinesis-stream-native`` (folder ``native``).

They change speed and nothing else: a function of the kernel either gives the result of the Python path or declines, and then the Python
path is taken. Everything therefore works without the kernel.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from typing import Any, Final, NamedTuple

import polars as pl
import pyarrow as pa

INTERFACE: Final = 12
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

_NEWEST: Final = pl.CompatLevel.newest()
"""Texts and payloads pass as views."""
_VIEWS: Final = {pa.string_view(), pa.binary_view()}


class Kind(StrEnum):
    """Types as Arrow's C interface spells them; a decimal is ``d:PRECISION,SCALE``."""

    TEXT = "vu"
    BINARY = "vz"
    BOOL = "b"
    INT8 = "c"
    INT16 = "s"
    INT32 = "i"
    INT64 = "l"
    UINT8 = "C"
    UINT16 = "S"
    UINT32 = "I"
    UINT64 = "L"
    FLOAT32 = "f"
    FLOAT64 = "g"
    DATE = "tdD"
    MILLISECONDS = "tsm:UTC"
    MICROSECONDS = "tsu:UTC"
    LIST = "+L"
    STRUCT = "+s"


_ARROW: Final = {
    Kind.TEXT: pa.string_view(), Kind.BINARY: pa.binary_view(), Kind.BOOL: pa.bool_(), Kind.INT8: pa.int8(), Kind.INT16: pa.int16(),
    Kind.INT32: pa.int32(), Kind.INT64: pa.int64(), Kind.UINT8: pa.uint8(), Kind.UINT16: pa.uint16(), Kind.UINT32: pa.uint32(),
    Kind.UINT64: pa.uint64(), Kind.FLOAT32: pa.float32(), Kind.FLOAT64: pa.float64(), Kind.DATE: pa.date32(),
    Kind.MILLISECONDS: pa.timestamp("ms", "UTC"), Kind.MICROSECONDS: pa.timestamp("us", "UTC"),
}  # fmt: skip


class Memory(NamedTuple):
    """A column's memory as Arrow lays it out: made by the kernel or by NumPy, and not copied when it becomes a column of Polars.

    ``kind``: a ``Kind``, or a decimal. ``buffers`` have the buffer protocol: values or views, and the texts that views
    refer to. ``validity`` may be None if nothing is null. ``children``: the fields of a struct, by name, or the items of a list.
    """

    kind: str
    rows: int
    validity: Any
    buffers: tuple[Any, ...] = ()
    nulls: int = 0
    children: tuple[tuple[str, Memory], ...] = ()


class _Exported:
    """What shows only Arrow's C interface: given an array of pyarrow's own, Polars loads ``pyarrow.compute``, 9 MiB."""

    __slots__ = ("_export",)

    def __init__(self, export: Callable[[], tuple[object, object]]) -> None:
        self._export = export

    def __arrow_c_array__(self, requested_schema: object = None) -> tuple[object, object]:
        return self._export()


def series(name: str, values: Memory | pa.Array) -> pl.Series:
    """``values`` as a column, without a copy."""
    return _imported(values).alias(name)


def frame(names: Sequence[str], values: Sequence[Memory]) -> pl.DataFrame:
    """``values``, of equal length, as columns, without a copy.

    Each passage to Polars or back gives the interpreter's lock away, which costs little unless another thread waits for it. So columns pass
    together, as the fields of one column of structs.
    """
    fields = tuple(zip(names, values, strict=True))
    return _imported(Memory(Kind.STRUCT, values[0].rows, None, children=fields)).struct.unnest()


def _imported(values: Memory | pa.Array) -> pl.Series:
    if not isinstance(values, Memory):
        return pl.Series(values=_Exported(values.__arrow_c_array__))
    if KERNEL is None:
        return pl.Series(values=_Exported(_array(values).__arrow_c_array__))
    described = _described("", values)
    return pl.Series(values=_Exported(lambda: KERNEL.exported(described)))


def _array(values: Memory) -> pa.Array:
    wrapped = [None if each is None else pa.py_buffer(each) for each in (values.validity, *values.buffers)]
    children = {name: _array(each) for name, each in values.children}
    if values.kind == Kind.STRUCT:
        kind: pa.DataType = pa.struct({name: each.type for name, each in children.items()})
    elif values.kind == Kind.LIST:
        kind = pa.large_list(*(each.type for each in children.values()))
    elif values.kind.startswith("d:"):
        kind = pa.decimal128(*map(int, values.kind[2:].split(",")))
    else:
        kind = _ARROW[Kind(values.kind)]
    return pa.Array.from_buffers(kind, values.rows, wrapped, null_count=values.nulls, children=[*children.values()])


def _described(name: str, values: Memory) -> tuple[Any, ...]:
    """A column as ``KERNEL.exported`` takes it."""
    kind, rows, validity, buffers, nulls, children = values
    return name, kind, rows, nulls, (validity, *buffers), tuple(_described(*each) for each in children)


def arrays(columns: Iterable[pl.Series], level: pl.CompatLevel = _NEWEST) -> list[pa.Array]:
    """Columns of equal length as Arrow arrays, without a copy of those that are one chunk; they pass together, as in ``frame``.

    ``level``: the types of texts, views by default.
    """
    numbered = [column.alias(str(index)) for index, column in enumerate(columns)]
    together = pl.DataFrame(numbered).to_struct().to_arrow(compat_level=level)
    return [together.field(index) for index in range(len(numbered))]


class Lent(NamedTuple):
    """The memory of a column of Polars, of a type that Arrow has and that is not nested.

    ``validity`` is a bitmap whose first bit is ``offset``, or None if no row is null. ``values`` has ``width`` bytes for each row; with 0,
    it is a bitmap like ``validity``. Texts and payloads are views, 16 bytes for each row, into ``texts``, which is None for other types.
    All memory has the buffer protocol.
    """

    rows: int
    nulls: int
    offset: int
    validity: Any
    width: int
    values: Any
    texts: tuple[Any, ...] | None


def lent(columns: Sequence[pl.Series]) -> list[Lent]:
    """The memory of ``columns``, without a copy of those that are one chunk."""
    if KERNEL is None:
        return [_lent(column.to_arrow(compat_level=_NEWEST)) for column in columns]
    # An array of pyarrow is made for the columns that the kernel does not take, whatever these are.
    found = KERNEL.lent(tuple(column.rechunk() if column.n_chunks() > 1 else column for column in columns))
    return [
        _lent(column.to_arrow(compat_level=_NEWEST)) if each is None else Lent(*each) for column, each in zip(columns, found, strict=True)
    ]


def _lent(arrow: pa.Array) -> Lent:
    rows, offset, (validity, own, *texts) = len(arrow), arrow.offset, arrow.buffers()
    viewed = arrow.type in _VIEWS
    width = 16 if viewed else arrow.type.bit_width // 8
    values = own.slice(width * offset, width * rows) if width else own
    return Lent(rows, arrow.null_count, offset, validity if arrow.null_count else None, width, values, tuple(texts) if viewed else None)


def views(column: pl.Series) -> tuple[Any, tuple[Any, ...]]:
    """The views of a String or Binary column without nulls, 16 bytes for each row, and the buffers that they refer to."""
    (found,) = lent([column])
    return found.values, found.texts or ()


def same_memory(column: pl.Series, other: pl.Series) -> bool:
    """Whether two columns, which are not nested, are equal because their memory says so: no text is read.

    Equal columns may be told apart, and those with nulls are.
    """
    if KERNEL is not None:
        return bool(KERNEL.same(column, other))
    if column.dtype != other.dtype or column.null_count() or other.null_count():
        return False
    one, two = lent([column, other])
    texts = [[text.address for text in each.texts or ()] for each in (one, two)]
    return bool(one.width and one.rows == two.rows and texts[0] == texts[1] and one.values.equals(two.values))


def few_distinct(columns: Sequence[pl.Series], share: int) -> list[bool]:
    """For each column, which is not nested and has at most 65,534 rows, whether there are at least ``share`` rows for a distinct value.

    Null is a value, too.
    """
    found: list[bool | None] = []
    asked: list[tuple[pl.Series, int]] = []
    for column in columns:
        if KERNEL is None or not _has_bits_for_values(column.dtype):
            found.append(column.n_unique() * share <= len(column))
        elif (most := len(column) // share - bool(column.null_count())) < 0:
            found.append(False)
        else:
            found.append(None)
            # Polars looks the name up, and takes some names for patterns.
            asked.append((column.alias("").drop_nulls() if column.null_count() else column, most))
    if not asked:
        return [few is True for few in found]
    passed = lent([column for column, _ in asked])
    answers = iter(KERNEL.few(tuple((*_values(each), most) for each, (_, most) in zip(passed, asked, strict=True))))
    return [next(answers) if few is None else few for few in found]


def _has_bits_for_values(kind: pl.DataType) -> bool:
    """Whether values are equal if and only if their bytes are."""
    texts = {pl.String(), pl.Binary()}
    return kind in texts or kind.is_decimal() or kind.is_temporal() or (kind.is_integer() and kind not in {pl.Int128(), pl.UInt128()})


def _values(column: Lent) -> tuple[Any, int, tuple[Any, ...] | None]:
    """A column without nulls as ``KERNEL.few`` takes it."""
    return column.values, 0 if column.texts is not None else column.width, column.texts
