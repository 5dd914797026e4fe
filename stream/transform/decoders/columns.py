"""Columns that the compiled kernel makes of records, and records that it does not vouch for.

For each record the kernel either gives the values that the decoder declares, complete and of the declared types, or marks the record; what
it marks is read in the ordinary way, which alone says why a record is bad. So columns, rejects and reasons are the same with the kernel and
without; tests compare them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from stream import native
from stream.batch import DATA, ROW
from stream.transform.places import without
from stream.transform.stage import Applied, BoundStage
from stream.transform.types import SYSTEM, TIMESTAMP

_ARROW: Final[dict[pl.DataType, pa.DataType]] = {
    pl.String(): pa.string_view(), pl.Binary(): pa.binary_view(), pl.Boolean(): pa.bool_(), pl.Int8(): pa.int8(), pl.Int16(): pa.int16(),
    pl.Int32(): pa.int32(), pl.Int64(): pa.int64(), pl.UInt8(): pa.uint8(), pl.UInt16(): pa.uint16(), pl.UInt32(): pa.uint32(),
    pl.UInt64(): pa.uint64(), pl.Float32(): pa.float32(), pl.Float64(): pa.float64(), pl.Date(): pa.date32(),
    TIMESTAMP: pa.timestamp("us", "UTC"),
}  # fmt: skip
_IN_VIEWS: Final = {pl.String(), pl.Binary()}
_WIDTHS: Final[dict[pl.DataType, int]] = {
    pl.String(): 16, pl.Binary(): 16, pl.Int32(): 4, pl.Int64(): 8, pl.UInt32(): 4, pl.UInt64(): 8, pl.Float32(): 4, pl.Float64(): 8,
    pl.Date(): 4, TIMESTAMP: 8,
}  # fmt: skip
_VALUES, _BITS, _ITEMS, _FIELDS = range(4)
"""How a column lies in memory, as the kernel numbers it (native/src/columns.h)."""

Form = tuple[int, int, int, int]
"""How a column lies in memory, bytes of a value, how many columns are inside of it, and where the first of these stands."""


class Unplanned(Exception):
    """The kernel has nothing for it."""


@dataclass(frozen=True, slots=True)
class KernelReader:
    """Reads records by a function of the kernel; thread-safe, and lets other threads run meanwhile."""

    function: Callable[[Any, Any, Any], Any]
    plan: Any
    schema: pl.Schema

    def read(self, records: pl.Series) -> tuple[pl.DataFrame, npt.NDArray[np.bool_] | None]:
        """The schema's columns, a row for each of ``records`` (Binary, no nulls), and which rows the kernel does not vouch for.

        Rows that are marked are null in all columns; None where none is marked.
        """
        views, data = native.views(records)
        bad, wrong, side, (_, _, _, _, columns) = self.function(self.plan, views, data)
        return _frame(self.schema, columns, (*data, pa.py_buffer(side))), np.frombuffer(bad, np.bool_) if wrong else None


@dataclass(frozen=True, slots=True)
class LinesReader:
    """Reads records with a row on each line by a function of the kernel; thread-safe, and lets other threads run meanwhile."""

    function: Callable[..., Any]
    plan: Any
    schema: pl.Schema

    def read(self, records: pl.Series, *how: Any) -> tuple[pl.DataFrame, npt.NDArray[np.int64], npt.NDArray[np.bool_] | None]:
        """The schema's columns, a row for each line; how many rows each of ``records`` has; and which the kernel does not vouch for.

        Records that are marked have no rows; None where none is marked. ``how`` is what the function takes besides.
        """
        views, data = native.views(records)
        bad, wrong, side, (_, _, _, ends, ((_, _, _, _, columns),)) = self.function(self.plan, views, data, *how)
        bounds = np.frombuffer(ends, np.int64)
        frame = _frame(self.schema, columns, (*data, pa.py_buffer(side)))
        return frame, bounds[1:] - bounds[:-1], np.frombuffer(bad, np.bool_) if wrong else None


def by_kernel(reader: KernelReader, ordinary: BoundStage, opened: Callable[[pl.Series], pl.Series] | None = None) -> BoundStage:
    """Reads with ``reader``, and in the ``ordinary`` way what it does not vouch for.

    ``opened`` gives the records as ``reader`` takes them.
    """

    def decode(frame: pl.DataFrame) -> Applied:
        columns, marked = reader.read(frame[DATA] if opened is None else opened(frame[DATA]))
        head = frame[[*SYSTEM]]
        if marked is None:
            return Applied(head.hstack(columns))
        places = np.flatnonzero(marked)
        other = ordinary(frame[places])
        read = without(head, pl.Series(places)).hstack(without(columns, pl.Series(places)))
        return Applied(pl.concat([read, other.frame]).sort(ROW) if other.frame.height else read, other.rejects)

    return decode


def forms_of(schema: pl.Schema) -> tuple[Form, ...]:
    """How columns of ``schema`` lie in memory, below one that holds all of them, and before those inside of them.

    Raises:
        Unplanned: a column that the kernel does not make.
    """
    kinds: list[pl.DataType] = [pl.Struct(schema)]
    forms: list[Form] = []
    while len(forms) < len(kinds):
        kind, first = kinds[len(forms)], len(kinds)
        if isinstance(kind, pl.Struct) and kind.fields:
            kinds += [_instance(field.dtype) for field in kind.fields]
            forms.append((_FIELDS, 0, len(kind.fields), first))
        elif isinstance(kind, pl.List):
            kinds.append(_instance(kind.inner))
            forms.append((_ITEMS, 8, 1, first))
        elif kind == pl.Boolean():
            forms.append((_BITS, 0, 0, 0))
        elif isinstance(kind, pl.Decimal) or kind in _WIDTHS:
            forms.append((_VALUES, 16 if isinstance(kind, pl.Decimal) else _WIDTHS[kind], 0, 0))
        else:
            raise Unplanned
    return tuple(forms)


def _instance(kind: Any) -> pl.DataType:
    made: pl.DataType = kind() if isinstance(kind, type) else kind
    return made


def _frame(schema: pl.Schema, columns: tuple[Any, ...], texts: tuple[pa.Buffer, ...]) -> pl.DataFrame:
    return pl.DataFrame(
        [native.series(name, _array(kind, column, texts)).cast(kind) for (name, kind), column in zip(schema.items(), columns, strict=True)]
    )


def _array(kind: Any, column: tuple[Any, ...], texts: tuple[pa.Buffer, ...]) -> pa.Array:
    rows, nulls, validity, values, children = column
    if isinstance(kind, pl.List):
        items = _array(kind.inner, children[0], texts)
        return native.array(pa.large_list(items.type), rows, validity, values, nulls=nulls, children=[items])
    if isinstance(kind, pl.Struct):
        fields = [_array(field.dtype, child, texts) for field, child in zip(kind.fields, children, strict=True)]
        struct = pa.struct([pa.field(field.name, made.type) for field, made in zip(kind.fields, fields, strict=True)])
        return native.array(struct, rows, validity, nulls=nulls, children=fields)
    if isinstance(kind, pl.Decimal):
        return native.array(pa.decimal128(kind.precision or 38, kind.scale), rows, validity, values, nulls=nulls)
    return native.array(_ARROW[kind], rows, validity, values, *(texts if kind in _IN_VIEWS else ()), nulls=nulls)
