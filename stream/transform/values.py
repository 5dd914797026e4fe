"""Converts text and numbers to typed values. The result for a value never depends on other values.

That is why no format is ever inferred from a column, and why a value that cannot be read becomes null instead of raising an error.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final, cast

import polars as pl

from stream.transform.types import TIMESTAMP, Kind, Type

_SECONDS_ZULU: Final = "%Y-%m-%dT%H:%M:%SZ"
_ISO: Final = r"^\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?(?:[Zz]|[+-]\d\d(?::?\d\d)?)?)?$"
_DAY: Final = r"^(?:[1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])-[0-9]{2}-[0-9]{2}$"
_NEVER_IN_ZULU: Final = r"[^-0-9TZ:]"
_FORMATS: Final = (
    "%Y-%m-%dT%H:%M:%S%.f%#z",
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%dT%H:%M%#z",
    "%Y-%m-%dT%H:%M",
)
MAX_DIGITS: Final = 38
"""Digits of the widest decimal."""

_DAY_US: Final = 86_400_000_000
FIRST_US: Final = -62_135_596_800_000_000
LAST_US: Final = 253_402_300_799_999_999
"""The years 1 to 9999 in microseconds since 1970. Every program that reads the files can represent these times."""


def timestamps(text: pl.Series) -> pl.Series:
    """ISO-8601 text as UTC microseconds, or null; without a zone it is UTC, and a date alone is its midnight."""
    # The format that most producers write is tried first; that takes a tenth of the time of all the others.
    quick = text.str.to_datetime(_SECONDS_ZULU, time_unit="us", time_zone="UTC", strict=False)
    # With blanks or signs, a text of that length may mean another time, such as the year 24 after two blanks.
    clean = (text.str.len_bytes() == 20) & ~text.str.contains(_NEVER_IN_ZULU)
    quick = quick.to_frame().select(pl.when(clean).then(pl.first())).to_series()
    if quick.null_count() > text.null_count():
        left = (quick.is_null() & text.is_not_null()).arg_true()
        quick = quick.scatter(left, _timestamps_any(text.gather(left)))
    return in_range(quick).alias(text.name)


def in_range(moments: pl.Series) -> pl.Series:
    """``moments`` in UTC, with null in place of those outside of the years 1 to 9999."""
    micros = moments.to_physical()
    first, last = cast("int | None", micros.min()), cast("int | None", micros.max())
    if first is None or last is None or (first >= FIRST_US and last <= LAST_US):
        return moments.cast(TIMESTAMP)
    return pl.select(pl.when(micros.is_between(FIRST_US, LAST_US)).then(moments).cast(TIMESTAMP)).to_series()


def representable(moment: pl.Expr, kind: pl.DataType) -> pl.Expr:
    """Whether a date or time of type ``kind`` is within the years 1 to 9999."""
    tick = _DAY_US if kind == pl.Date() else 1_000 if getattr(kind, "time_unit", "us") == "ms" else 1
    if getattr(kind, "time_unit", "us") == "ns":
        return moment.is_not_null()  # 64 bits reach from 1677 to 2262
    return moment.to_physical().is_between(FIRST_US // tick, LAST_US // tick)


def are_representable(moments: pl.Series) -> bool:
    """Whether all ``moments``, dates or times, are within the years 1 to 9999."""
    column = pl.col(moments.name)
    ends = moments.to_frame().select(low=column.min(), high=column.max())
    return bool(
        ends.select(pl.all_horizontal(representable(pl.col(end), moments.dtype).fill_null(value=True) for end in ("low", "high"))).item()
    )


def _timestamps_any(text: pl.Series) -> pl.Series:
    column = pl.col("text")
    iso = pl.when(column.str.contains(_ISO)).then(column.str.slice(0, 10) + "T" + column.str.slice(11))
    read = [pl.col("iso").str.to_datetime(form, time_unit="us", strict=False).dt.replace_time_zone(None) for form in _FORMATS]
    day = pl.col("iso").str.strip_suffix("T").str.to_date("%Y-%m-%d", strict=False).cast(pl.Datetime("us"))
    frame = text.alias("text").to_frame().with_columns(iso.str.to_uppercase().alias("iso"))
    return frame.select(pl.coalesce(*read, day).dt.replace_time_zone("UTC")).to_series()


def _timestamp(text: pl.Expr) -> pl.Expr:
    return text.map_batches(timestamps, return_dtype=TIMESTAMP, is_elementwise=True)


def _epoch(ticks: pl.Expr, unit: int) -> pl.Expr:
    fits = ticks.is_between(FIRST_US // unit, LAST_US // unit)
    return (pl.when(fits).then(ticks) * unit).cast(TIMESTAMP)


def decimal_places(number: pl.Expr) -> pl.Expr:
    """The number of digits after the point in a number given as text, without trailing zeros: 1 for ``1.50`` and for ``1500e-3``."""
    mantissa = number.str.extract(r"^[+-]?([0-9]*\.?[0-9]*)")
    decimals = mantissa.str.len_bytes() - mantissa.str.find(".", literal=True) - 1
    digits = mantissa.str.replace(".", "", literal=True)
    zeros = digits.str.len_bytes() - digits.str.strip_chars_end("0").str.len_bytes()
    exponent = number.str.extract(r"[eE]([+-]?[0-9]+)$").cast(pl.Int64, strict=False)
    found = decimals.cast(pl.Int64).fill_null(0) - zeros.cast(pl.Int64) - exponent.fill_null(0)
    return pl.when(zeros < digits.str.len_bytes()).then(found).otherwise(0)


def read(wire: pl.Expr, kind: Type) -> pl.Expr:  # noqa: PLR0911 - one per kind
    """``wire`` (of ``kind.wire``) as ``kind.polars``; null where a value cannot be read."""
    match kind.kind:
        case Kind.TIMESTAMP:
            return _timestamp(wire)
        case Kind.EPOCH:
            return _epoch(wire, kind.unit)
        case Kind.DATE:
            return pl.when(wire.str.contains(_DAY)).then(wire).str.to_date("%Y-%m-%d", strict=False)
        case Kind.BINARY:
            return wire.str.decode("base64", strict=False)
        case Kind.FLOAT32:
            narrow = wire.cast(pl.Float32)
            return pl.when(narrow.is_finite()).then(narrow)
        case Kind.DECIMAL if kind.wire.precision < MAX_DIGITS:
            # Arrow counts the digits written, not those that the scale adds: 100 passes as decimal(4,2).
            limit = pl.lit(Decimal(10) ** (kind.wire.precision - kind.wire.scale), pl.Decimal(MAX_DIGITS, kind.wire.scale))
            return pl.when((wire < limit) & (wire > -limit)).then(wire).cast(kind.polars)
        case Kind.LIST if kind.converts and kind.item is not None:
            return wire.list.eval(read(pl.element(), kind.item))
        case Kind.OBJECT if kind.converts:
            fields = [read(wire.struct.field(name), inner).alias(name) for name, inner in kind.fields]
            return pl.when(wire.is_not_null()).then(pl.struct(fields))
        case _:
            return wire


def unreadable(wire: pl.Expr, kind: Type) -> pl.Expr:
    """True where ``wire`` is, or contains, a value that ``read`` cannot read. Call it only if ``kind.converts``."""
    match kind.kind:
        case Kind.LIST if kind.item is not None:
            return wire.list.eval(unreadable(pl.element(), kind.item)).list.any().fill_null(value=False)
        case Kind.OBJECT:
            inner = [unreadable(wire.struct.field(name), inner) for name, inner in kind.fields if inner.converts]
            return pl.any_horizontal(inner).fill_null(value=False)
        case _:
            return wire.is_not_null() & read(wire, kind).is_null()


def forbids_null(kind: Type) -> bool:
    """Whether ``kind``, or a type nested in it, forbids null."""
    inner = [kind.item] if kind.item is not None else [inner for _, inner in kind.fields]
    return not kind.nullable or any(forbids_null(each) for each in inner)


def has_forbidden_null(wire: pl.Expr, kind: Type) -> pl.Expr:
    """True where ``wire`` is, or contains, a null that ``kind`` forbids."""
    found = [] if kind.nullable else [wire.is_null()]
    if kind.kind is Kind.LIST and kind.item is not None and forbids_null(kind.item):
        found.append(wire.list.eval(has_forbidden_null(pl.element(), kind.item)).list.any())
    if kind.kind is Kind.OBJECT:
        found += [
            wire.is_not_null() & has_forbidden_null(wire.struct.field(name), inner) for name, inner in kind.fields if forbids_null(inner)
        ]
    return pl.any_horizontal(found).fill_null(value=False)


_FEW: Final = 2


def repeats(values: pl.Series) -> bool:
    """Whether values repeat so often that an expensive operation should be applied to the distinct ones only."""
    distinct = cast("int", values.approx_n_unique())
    return distinct * _FEW <= len(values) - values.null_count()
