"""Converts text to typed values, for formats whose values are all text. A value that cannot be read becomes null."""

from __future__ import annotations

from typing import Final

import polars as pl

from stream.transform import values
from stream.transform.stage import SchemaMismatch
from stream.transform.types import Kind, RecordSchema, Type

WRONG_TYPE: Final = "wrong_type"
MISSING_FIELD: Final = "missing_field"

_WHOLE: Final = r"^[+-]?[0-9]+$"
_POWER: Final = r"^[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE][+-]?[0-9]+$"
_NUMBER: Final = r"^[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?$"


def check_text_type(kind: Type, path: tuple[str | int, ...]) -> None:
    """Make sure that text can be read as ``kind``.

    Raises:
        SchemaMismatch: json, lists and objects have no plain text form.
    """
    if kind.kind in {Kind.JSON, Kind.LIST, Kind.OBJECT}:
        raise SchemaMismatch(path, f"text cannot be read as {kind.text}", "use string, a number, bool, date, timestamp or binary")


def from_text(text: pl.Expr, kind: Type, *, is_whole: bool = False) -> pl.Expr:  # noqa: PLR0911 - one per kind
    """``text`` as ``kind.polars``; null where it cannot be read.

    Numbers are decimal, without blanks or separators between digits; bool is ``true`` or ``false`` in any case. ``is_whole``: what is not
    null is known to be digits, perhaps with a sign.
    """
    whole = text if is_whole else pl.when(text.str.contains(_WHOLE)).then(text)
    number = pl.when(text.str.contains(_NUMBER)).then(text)
    match kind.kind:
        case Kind.TIMESTAMP | Kind.DATE | Kind.BINARY:
            return values.read(text, kind)
        case Kind.EPOCH:
            return values.read(whole.cast(pl.Int64, strict=False), kind)
        case Kind.FLOAT32:
            return values.read(number.cast(pl.Float64, strict=False), kind)
        case Kind.DECIMAL:
            return text.map_batches(lambda column: _decimals(column, kind), return_dtype=kind.polars, is_elementwise=True)
    if kind.polars == pl.Boolean():
        lower = text.str.to_lowercase()
        return pl.when(lower == "true").then(pl.lit(value=True)).when(lower == "false").then(pl.lit(value=False))
    if kind.polars.is_integer():
        return whole.cast(kind.polars, strict=False)
    if kind.polars.is_float():
        read = number.cast(kind.polars, strict=False)
        return pl.when(read.is_finite()).then(read)
    return text


def _decimals(text: pl.Series, kind: Type) -> pl.Series:
    column, scale = pl.col(text.name), kind.wire.scale
    exact = rf"^[+-]?[0-9]+(?:\.[0-9]{{0,{scale}}}0*)?$" if scale else r"^[+-]?[0-9]+(?:\.0*)?$"
    done = text.to_frame().select(pl.when(column.str.contains(exact)).then(column).cast(kind.polars, strict=False)).to_series()
    if done.null_count() == text.null_count():
        return done
    # Only few have an exponent, such as 0E-10. Counting their digits takes longer than reading the others.
    left = (done.is_null() & text.str.contains(_POWER)).arg_true()
    fits = values.decimal_places(column) <= scale
    return done.scatter(left, text.gather(left).to_frame().select(pl.when(fits).then(column).cast(kind.polars, strict=False)).to_series())


def readers(schema: RecordSchema) -> list[pl.Expr]:
    """The expressions that ``typed`` takes. They are built once, since building thousands takes longer than reading a few records."""
    return [from_text(pl.col(name), kind).alias(name) for name, kind in schema]


def typed(frame: pl.DataFrame, schema: RecordSchema, reading: list[pl.Expr]) -> tuple[pl.DataFrame, pl.Series | None]:
    """The text columns of ``frame`` in the types of ``schema``, and per row the first reason to reject it; None if none is rejected."""
    done = frame.select(reading)
    marks: list[pl.Expr] = []
    counts = zip(frame.null_count().row(0), done.null_count().row(0), strict=True)
    for (name, kind), (null, unread) in zip(schema, counts, strict=True):
        if unread > null:
            lost = frame[name].is_not_null() & done[name].is_null()
            marks.append(pl.when(lost).then(pl.lit(f"{WRONG_TYPE}:{name}")))
        if null and not kind.nullable:
            marks.append(pl.when(frame[name].is_null()).then(pl.lit(f"{MISSING_FIELD}:{name}")))
    return done, pl.select(pl.coalesce(marks).alias("reason")).to_series() if marks else None
