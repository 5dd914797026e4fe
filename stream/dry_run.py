"""Runs a computation on a sample row, to find out whether its types allow it at all.

Polars gives an expression a type without checking that it can be computed: only with a value does it notice that text cannot be cast to a
date. A computation that fails on every row is a mistake in the definition. ``stream check`` has to report it, instead of every record
becoming a dead letter.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final

import polars as pl
from polars.exceptions import InvalidOperationError, PanicException, PolarsError, SchemaError

_OF_VALUES: Final = "conversion from"
"""The beginning of Polars' message if only the value, and not its type, prevents a cast."""

_WITHIN_PANIC: Final = re.compile(r'ErrString\("(.*)"\)')


_NO_EXPRESSION: Final = re.compile(r"unable to parse '.*' as Expr", re.DOTALL)
_NAME_FOR_TEXT: Final = re.compile(r'cannot parse literal Identifier\(Ident \{ value: "(.*?)", quote_style: Some')


def polars_message(error: BaseException) -> str:
    """The first line of Polars' message or, for a panic, of the error that caused it; what only speaks of its parser, in other words."""
    within = _WITHIN_PANIC.search(str(error)) if isinstance(error, PanicException) else None
    said = (within[1] if within else str(error)).strip()
    if _NO_EXPRESSION.fullmatch(said):
        return "it cannot be parsed"
    if name := _NAME_FOR_TEXT.match(said):
        return f'"{name[1]}" in double quotes is the name of a column, and text is needed there'
    return said.partition("\n")[0] or type(error).__name__


def sample_row(schema: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """One row with a harmless value in each column."""
    return pl.DataFrame([pl.Series(name, [_value(kind)], dtype=kind) for name, kind in schema.items()])


def type_error(compute: Callable[[pl.DataFrame], object], schema: Mapping[str, pl.DataType]) -> str:
    """Polars' message if the types of ``schema`` make ``compute`` fail on every row; empty if it works, or may work with other values."""
    row = sample_row(schema)
    try:
        compute(row)
    except (InvalidOperationError, SchemaError, PanicException) as error:
        said = polars_message(error)
        return "" if said.startswith(_OF_VALUES) else said
    except PolarsError:
        return ""  # other values may work
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
