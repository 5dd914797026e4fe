"""Writes rows as separated values: equal rows give equal bytes, and a reader can tell null from empty text.

Every value becomes text by rules of this module; Polars only joins the texts to lines, so no rule of a library about quotes is involved.
"""

from __future__ import annotations

import io
from enum import StrEnum
from typing import Any, Final, Self

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

_BOM: Final = "\ufeff"
_END_OF_DATA: Final = r"\."
"""As the only value of a line, it ends the data for the COPY of PostgreSQL, unless it is quoted."""
_FORBIDDEN: Final = "\r\n\0"
_PLAIN: Final = frozenset("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ+-.:/= ")
"""Characters of numbers, booleans, times and base64."""
_TEXTS: Final[frozenset[Any]] = frozenset({pl.String, pl.Categorical, pl.Enum})
_CAST: Final[frozenset[Any]] = frozenset({pl.Decimal, pl.Date, pl.Int128, pl.UInt128, pl.Null})
_FRACTION: Final = {"ms": 3, "us": 6, "ns": 9}


class LineEnd(StrEnum):
    """What ends a line."""

    LF = "lf"
    CRLF = "crlf"


class Quoting(StrEnum):
    """Which values stand in quotes; null never does."""

    NECESSARY = "necessary"
    ALWAYS = "always"


class Times(StrEnum):
    """The form of timestamps: ``2026-01-01T12:00:00.000000+00:00``, or in UTC as ``2026-01-01 12:00:00.000000``."""

    ISO = "iso"
    SQL = "sql"


def _one_character(value: str, what: str) -> str:
    if len(value) != 1 or not value.isascii() or value in _FORBIDDEN:
        remedy = 'write a tab as "\\t", in double quotes' if value == "\\t" else "use a single ASCII character that is not a line break"
        msg = f"{value!r} cannot be the {what}; {remedy}"
        raise ValueError(msg)
    return value


class SeparatedValues(BaseModel):
    """How separated values are written. The default is that of RFC 4180 with LF: what Excel, PostgreSQL, DuckDB, Polars and pandas read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    delimiter: str = Field(default=",", description="The character between two values, such as `\\t`.")
    header: bool = Field(default=True, description="Begin each file with a line of column names.")
    quote: str | None = Field(
        default='"',
        description="The character around values that contain special characters; null: no quotes, special characters are escaped.",
    )
    escape: str | None = Field(
        default=None,
        description="The character before a special character. By default, quotes inside of values are doubled instead.",
    )
    quoting: Quoting = Field(default=Quoting.NECESSARY, description="Which values are quoted: necessary or always. Null never is.")
    null: str | None = Field(default=None, description="The text for null; by default empty, and `\\N` if there are no quotes.")
    line_end: LineEnd = Field(default=LineEnd.LF, description="lf or crlf.")
    times: Times = Field(default=Times.ISO, description="Form of timestamps: iso (with zone), or sql (in UTC, without zone).")
    bom: bool = Field(default=False, description="Begin each file with a UTF-8 byte order mark, by which Excel knows the encoding.")

    @field_validator("delimiter", "quote", "escape")
    @classmethod
    def _one_byte(cls, value: str | None, info: Any) -> str | None:
        return None if value is None else _one_character(value, info.field_name)

    @field_validator("null")
    @classmethod
    def _one_line(cls, value: str | None) -> str | None:
        if value is not None and any(each in value for each in _FORBIDDEN):
            msg = f"null is {value!r}; it must not contain line breaks or NUL"
            raise ValueError(msg)
        return value

    @model_validator(mode="after")
    def _different_marks(self) -> Self:
        marks = {"delimiter": self.delimiter, "quote": self.quote, "escape": self.escape}
        given = [(name, mark) for name, mark in marks.items() if mark is not None]
        for at, (name, mark) in enumerate(given):
            for other, same in given[at + 1 :]:
                if mark == same:
                    msg = f"{name} and {other} are both {mark!r}; use different characters"
                    raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _null_unlike_text(self) -> Self:
        if self.quote is None and self.escape is None:
            msg = "quote is null, so special characters need an `escape`, such as '\\'"
            raise ValueError(msg)
        null = self.null_text
        for name, mark in (("delimiter", self.delimiter), ("quote", self.quote)):
            if mark is not None and mark in null:
                msg = f"null is {null!r}, which contains the {name}; use another text"
                raise ValueError(msg)
        if self.quote is None and self.quoting is Quoting.ALWAYS:
            msg = "quoting is always, but quote is null; give a quote"
            raise ValueError(msg)
        if self.quote is None and self.escape is not None and (len(null) < 2 or null[0] != self.escape or self.escape in null[1:]):
            msg = f"null is {null!r}; without quotes it must be the escape and at least one other character, or text could look like it"
            raise ValueError(msg)
        return self

    @property
    def null_text(self) -> str:
        """The text for null that is in force."""
        if self.null is not None:
            return self.null
        return "" if self.quote is not None else f"{self.escape}N"

    @property
    def line_terminator(self) -> str:
        """The characters at the end of each line."""
        return "\n" if self.line_end is LineEnd.LF else "\r\n"


def separated(frame: pl.DataFrame, options: SeparatedValues) -> bytes:
    """The rows of ``frame``, which has no nested columns, as lines of text in UTF-8.

    Text is as it is; numbers are in their shortest form that reads back as the same; NaN is ``NaN``, infinities are ``Infinity`` and
    ``-Infinity``; booleans are ``true`` and ``false``; bytes are base64; dates ``2026-01-01``; times of day have nine digits behind the
    point, timestamps as many as their unit, durations are ISO 8601 (``PT1.5S``).
    """
    out = io.BytesIO()
    if options.bom:
        out.write(_BOM.encode())
    if options.header:
        names = pl.DataFrame([[name] for name in frame.columns], schema=[str(at) for at in range(frame.width)])
        _write(names.select(_marked(pl.col(name), options) for name in names.columns), options, out)
    _write(frame.with_columns(_texts(frame, options)).rechunk(), options, out)
    return out.getvalue()


def _write(frame: pl.DataFrame, options: SeparatedValues, out: io.BytesIO) -> None:
    frame.write_csv(
        out,
        include_header=False,
        separator=options.delimiter,
        line_terminator=options.line_terminator,
        quote_style="never",
        null_value=options.null_text,
    )


def _texts(frame: pl.DataFrame, options: SeparatedValues) -> list[pl.Expr]:
    """The columns that Polars would not write as this module promises, as text."""
    changed = []
    marks = {options.delimiter, options.quote, options.escape}
    null_like = bool(options.null_text) and set(options.null_text) <= _PLAIN
    all_marked = options.quoting is Quoting.ALWAYS or not _PLAIN.isdisjoint(marks) or null_like
    for column in frame:
        text, is_text = _text(column, options)
        if is_text or all_marked:
            text = text.cast(pl.String)
            special = frame.select(_is_special(text, options).any()).item()
            changed.append(_marked(text, options) if special else text)
        else:
            changed.append(text)
    return changed


def _text(column: pl.Series, options: SeparatedValues) -> tuple[pl.Expr, bool]:
    """A column as values that are written as they are, and whether they may contain any character."""
    value, kind = pl.col(column.name), column.dtype
    if kind.base_type() in _TEXTS:
        return value.cast(pl.String), True
    if kind.is_float() and column.is_infinite().any():
        infinity = pl.when(value > 0).then(pl.lit("Infinity")).otherwise(pl.lit("-Infinity"))
        value = pl.when(value.is_infinite()).then(infinity).otherwise(value.cast(pl.String)).alias(column.name)
    elif isinstance(kind, pl.Datetime):
        value = _moment(value, kind, options.times)
    elif isinstance(kind, pl.Time):
        value = value.dt.strftime("%H:%M:%S%.9f")
    elif isinstance(kind, pl.Duration):
        value = value.dt.to_string("iso")
    elif isinstance(kind, pl.Binary):
        return value.bin.encode("base64"), True  # no bytes are empty text, and null is not
    elif kind.base_type() in _CAST:
        value = value.cast(pl.String)
    return value, False


def _moment(at: pl.Expr, kind: pl.Datetime, times: Times) -> pl.Expr:
    fraction = f"%.{_FRACTION[kind.time_unit]}f"
    if times is Times.ISO:
        return at.dt.strftime(f"%Y-%m-%dT%H:%M:%S{fraction}{'%:z' if kind.time_zone else ''}")
    return (at.dt.convert_time_zone("UTC") if kind.time_zone else at).dt.strftime(f"%Y-%m-%d %H:%M:%S{fraction}")


def _is_special(text: pl.Expr, options: SeparatedValues) -> pl.Expr:
    """Whether a value would be read as something else if it were written as it is."""
    if options.quoting is Quoting.ALWAYS:
        return text.is_not_null()
    marks = [each for each in (options.delimiter, options.quote, options.escape, "\r", "\n") if each is not None]
    special = text.str.contains_any(marks) | text.str.starts_with(_BOM)
    return special if options.quote is None else special | text.is_in(["", _END_OF_DATA, options.null_text])


def _marked(text: pl.Expr, options: SeparatedValues) -> pl.Expr:
    """The values, quoted or escaped where they are special."""
    quote, escape = options.quote, options.escape
    if quote is not None:
        inside = text.str.replace_all(quote, quote * 2, literal=True) if escape is None else _escaped(text, escape, (quote,))
        quoted = pl.concat_str(pl.lit(quote), inside, pl.lit(quote))
        every = options.quoting is Quoting.ALWAYS
        return (quoted if every else pl.when(_is_special(text, options)).then(quoted).otherwise(text)).name.keep()
    escape = options.escape or ""
    inside = _escaped(text, escape, (options.delimiter, "\r", "\n"))
    return pl.when(text.str.starts_with(_BOM)).then(escape + inside).otherwise(inside).name.keep()


def _escaped(text: pl.Expr, escape: str, others: tuple[str, ...]) -> pl.Expr:
    marks = [escape, *others]
    return text.str.replace_many(marks, [escape + each for each in marks])
