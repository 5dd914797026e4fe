"""Whether something can be computed at all, found out on a made-up row.

Polars types an expression without looking at what its functions can do: that text cannot be cast to a date it says when there is text. What
no row can pass is the definition's fault and belongs to ``check``, not to the dead letters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final

import polars as pl
from polars.exceptions import InvalidOperationError, PanicException, PolarsError, SchemaError

_OF_VALUES: Final = "conversion from"
"""What Polars begins with where it is the value that cannot be cast, not its type."""


def specimen(schema: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """One row with a harmless value in each column."""
    return pl.DataFrame([pl.Series(name, [_value(kind)], dtype=kind) for name, kind in schema.items()])


def impossible(compute: Callable[[pl.DataFrame], object], schema: Mapping[str, pl.DataType]) -> str:
    """What Polars says where ``compute`` can work on no row of ``schema`` since types are wrong; empty if it can, or may."""
    row = specimen(schema)
    try:
        compute(row)
    except (InvalidOperationError, SchemaError, PanicException) as error:
        said = str(error).strip().partition("\n")[0]
        return "" if said.startswith(_OF_VALUES) else said
    except PolarsError:
        return ""  # of other values it may be possible
    return ""


def _value(kind: pl.DataType) -> Any:
    if isinstance(kind, pl.Struct):
        return {field.name: _value(_instance(field.dtype)) for field in kind.fields}
    if isinstance(kind, pl.List):
        return [_value(_instance(kind.inner))]
    if isinstance(kind, pl.Array):
        return [_value(_instance(kind.inner))] * kind.size
    if isinstance(kind, pl.Decimal):
        return Decimal(1).scaleb(-kind.scale)
    if kind.is_numeric():
        return 1
    known = {pl.String: "1", pl.Categorical: "1", pl.Binary: b"1", pl.Boolean: True}
    return pl.Series([1], dtype=pl.Int64).cast(kind)[0] if kind.is_temporal() else known.get(kind.base_type())


def _instance(kind: Any) -> pl.DataType:
    return kind if isinstance(kind, pl.DataType) else kind()
