"""Check rows against rules."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from enum import StrEnum
from typing import Any, ClassVar, Final, Self

import numpy as np
import polars as pl
import pyarrow as pa
from polars.exceptions import PolarsError
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from stream.batch import ROW, type_name
from stream.recorded import is_recorded
from stream.transform.expressions import compile_expression
from stream.transform.patterns import check_pattern
from stream.transform.stage import Applied, BoundStage, Example, Resources, SchemaMismatch, StageConfig
from stream.transform.stages.common import refuse_clash, rejecting, require
from stream.transform.values import timestamps

INVALID: Final = "invalid"

_BELOW_MICROSECONDS: Final = re.compile(r"\.\d{6}(\d+)")
"""The digits of a moment that columns of microseconds cannot hold."""


class To(StrEnum):
    """Where the broken rules of a row go."""

    REJECTS = "rejects"
    COLUMN = "column"


class Rules(BaseModel):
    """Rules for the values of one column. A null breaks no rule except `null: false`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    null: bool = Field(default=True, description="Whether the value may be null.")
    min: int | float | str | None = Field(default=None, description="Smallest value; text for dates and times.")
    max: int | float | str | None = Field(default=None, description="Largest value; text for dates and times.")
    one_of: tuple[int | float | bool | str, ...] | None = Field(default=None, min_length=1, description="The only values allowed.")
    matches: str | None = Field(default=None, description="Regular expression that the text must contain; anchor it with ^ and $.")
    min_length: int | None = Field(default=None, ge=0, description="Least number of characters of a text, or items of a list.")
    max_length: int | None = Field(default=None, ge=0, description="Greatest number of characters of a text, or items of a list.")


class Validate(StageConfig):
    """Reject rows that break a contract, or list the broken rules in a column.

    Reasons are `invalid:<column>:<rule>` and `invalid:<condition's name>`; the first broken rule counts. A condition that is null is
    not broken, as in SQL. Patterns are matched in linear time: no look-around, no back-references.
    """

    name: ClassVar[str] = "validate"
    example: ClassVar[Example] = Example(
        config={"columns": {"carrier": {"matches": "^[A-Z0-9]{2}$"}, "delay": {"min": -60, "max": 2000}}, "to": "column"},
        given=[{"carrier": "UA", "delay": 5}, {"carrier": "united", "delay": 9999}, {"carrier": "AA", "delay": None}],
        expect=[
            {"carrier": "UA", "delay": 5, "violations": []},
            {"carrier": "united", "delay": 9999, "violations": ["invalid:carrier:matches", "invalid:delay:max"]},
            {"carrier": "AA", "delay": None, "violations": []},
        ],
    )

    columns: Mapping[str, Rules] = Field(default={}, description="Rules by column.")
    where: Mapping[str, str] = Field(default={}, description="Conditions over one row by name, such as `in_order: dep < arr`.")
    to: To = Field(default=To.REJECTS, description="`rejects`, or `column`: keep the row and list the rules it breaks.")
    column: str = Field(default="violations", min_length=1, description="Name of that column, a list of text.")

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.columns and not self.where:
            msg = "validate needs rules under `columns` or conditions under `where`"
            raise ValueError(msg)
        return self

    @field_validator("columns", mode="before")
    @classmethod
    def _none(cls, value: Any) -> Any:
        return {} if value is None else value

    def output(self, schema: pl.Schema, resources: Resources) -> pl.Schema:  # noqa: ARG002
        """The columns as they are, and the list of violations if `to: column`."""
        for _ in self._checks(schema):
            pass
        if self.to is To.REJECTS:
            return schema
        refuse_clash((self.column,), schema, ("column",))
        return pl.Schema({**schema, self.column: pl.List(pl.String)})

    def _checks(self, schema: pl.Schema) -> Iterator[tuple[str, pl.Expr]]:
        """Each rule's reason and an expression that is true where it is broken, and else false or null."""
        for name, rules in self.columns.items():
            dtype = require(name, schema, ("columns", name))
            for rule, broken in _broken(name, dtype, rules):
                try:
                    schema.to_frame().select(broken.alias("broken"))
                except PolarsError as error:
                    message = f"rule {rule} does not fit column {name!r} ({type_name(dtype)}): {str(error).splitlines()[0]}"
                    raise SchemaMismatch(
                        ("columns", name, rule), message, "remove the rule, or cast the column to a type that it works with"
                    ) from error
                yield f"{INVALID}:{name}:{rule}", broken
        for name, text in self.where.items():
            condition, dtype = compile_expression(text, schema, ("where", name))
            if dtype != pl.Boolean():
                message = f"`{text}` gives {type_name(dtype)}, but a condition must be true or false"
                raise SchemaMismatch(("where", name), message, "compare it with something, as in `x > 0`")
            yield f"{INVALID}:{name}", ~condition

    def bind(self, schema: pl.Schema, resources: Resources) -> BoundStage:  # noqa: ARG002
        """A function that evaluates all rules at once."""
        reasons, rules = zip(*self._checks(schema), strict=True)
        # With the row's number among them, a rule that looks at no column has a value for each row, too.
        exprs = [pl.col(ROW), *(broken.alias(str(at)) for at, broken in enumerate(rules))]

        def breaks(frame: pl.DataFrame) -> list[tuple[str, pl.Series]]:
            # Lazily, so that what several rules need, such as the length of a text, is computed once.
            done = frame.lazy().select(exprs).collect(engine="in-memory")
            return [(reason, done[str(at)]) for at, reason in enumerate(reasons) if done[str(at)].any()]

        def mark(frame: pl.DataFrame) -> Applied:
            return Applied(frame.with_columns(_lists(breaks(frame), frame.height).alias(self.column)))

        def reject(frame: pl.DataFrame) -> Applied:
            found = breaks(frame)
            if not found:
                return Applied(frame)
            return rejecting(frame, pl.select(pl.coalesce(pl.when(broken).then(pl.lit(reason)) for reason, broken in found)).to_series())

        return mark if self.to is To.COLUMN else reject


_BITS: Final = 64


def _lists(found: list[tuple[str, pl.Series]], height: int) -> pl.Series:
    """For each of ``height`` rows, the reasons of the rules that it breaks. Rows that break the same rules share a list."""
    if len(found) > _BITS:
        whens = (pl.when(broken).then(pl.lit(reason)) for reason, broken in found)
        return pl.select(pl.concat_list(whens).list.drop_nulls()).to_series()
    if not found:
        return pl.Series(pa.LargeListArray.from_arrays(np.zeros(height + 1, np.int64), pa.array([], pa.string_view())))
    bits = pl.repeat(0, height, dtype=pl.UInt64, eager=True)
    for at, (_, broken) in enumerate(found):
        bits |= broken.fill_null(value=False).cast(pl.UInt64) * 2**at
    kinds = bits.unique().sort()
    lists = [[reason for at, (reason, _) in enumerate(found) if each >> at & 1] for each in kinds]
    return pl.Series(lists, dtype=pl.List(pl.String)).gather(kinds.search_sorted(bits))


def _broken(name: str, dtype: pl.DataType, rules: Rules) -> Iterator[tuple[str, pl.Expr]]:
    column, path = pl.col(name), ("columns", name)
    if not rules.null:
        yield "null", column.is_null()
    # No order puts a NaN between two bounds, although Polars sorts it after all numbers.
    for rule, bound in (("min", rules.min), ("max", rules.max)):
        if bound is not None:
            limit = _bound(bound, dtype, (*path, rule), up=rule == "min")
            beyond = column < limit if rule == "min" else column > limit
            yield rule, beyond | column.is_nan() if dtype.is_float() else beyond
    if rules.one_of is not None:
        yield "one_of", ~column.is_in(_values(rules.one_of, dtype, (*path, "one_of")).implode())
    if rules.matches is not None:
        _text_only(dtype, (*path, "matches"))
        check_pattern(rules.matches, (*path, "matches"))
        yield "matches", ~column.str.contains(rules.matches)
    size = _size(column, dtype) if rules.min_length is not None or rules.max_length is not None else None
    if size is None and (rules.min_length is not None or rules.max_length is not None):
        message = f"column {name!r} is {type_name(dtype)}; only texts and lists have a length"
        raise SchemaMismatch((*path, "min_length" if rules.min_length is not None else "max_length"), message, "use min and max")
    if size is not None and rules.min_length is not None:
        yield "min_length", size < rules.min_length
    if size is not None and rules.max_length is not None:
        yield "max_length", size > rules.max_length


def _size(column: pl.Expr, dtype: pl.DataType) -> pl.Expr | None:
    if dtype == pl.String():
        return column.str.len_chars()
    return column.list.len() if isinstance(dtype, pl.List) else None


def _bound(value: float | str, dtype: pl.DataType, path: tuple[str | int, ...], *, up: bool) -> pl.Expr:
    """``value`` as a column of type ``dtype`` may hold it; if it is finer than that, the next later value (``up``) or the one before."""
    if dtype.is_numeric() and not isinstance(value, str) and _is_finite(value):
        return pl.lit(value)
    if isinstance(value, str) and dtype == pl.String():
        return pl.lit(value)
    if isinstance(value, str) and dtype.is_temporal() and dtype not in {pl.Time(), pl.Duration()}:
        moment = timestamps(pl.Series([value]))
        if moment[0] is not None:
            aware = isinstance(dtype, pl.Datetime) and dtype.time_zone is not None
            exact = moment if aware else moment.dt.replace_time_zone(None)
            held = exact.cast(dtype)
            finer = finer_digits.group(1) if (finer_digits := _BELOW_MICROSECONDS.search(value)) else ""
            nanoseconds = 0
            if isinstance(dtype, pl.Datetime) and dtype.time_unit == "ns":
                nanoseconds, finer = int(finer[:3].ljust(3, "0")), finer[3:]
            later = up and (bool((held.cast(exact.dtype) < exact)[0]) or bool(finer.strip("0")))
            return pl.lit((held.to_physical() + nanoseconds + int(later)).cast(dtype)).first()
    message = f"{value!r} cannot be a bound for a column of type {type_name(dtype)}"
    raise SchemaMismatch(
        path, message, "allowed: a number for numbers, text for text, and text such as 2026-01-01T00:00:00Z for dates and times"
    )


def _is_finite(value: object) -> bool:
    """Whether ``value`` is not infinity or NaN, which a recorded definition cannot express."""
    return not isinstance(value, float) or math.isfinite(value)


def _values(values: tuple[int | float | bool | str, ...], dtype: pl.DataType, path: tuple[str | int, ...]) -> pl.Series:
    try:
        if all(_is_finite(value) for value in values):
            if not dtype.is_decimal():
                return pl.Series(values, dtype=dtype, strict=True)
            exact = [value if isinstance(value, str | bool) else Decimal(str(value)) for value in values]
            made = pl.Series(exact, dtype=dtype, strict=True)
            if is_recorded() or made.to_list() == exact:  # Polars rounds to the scale
                return made
        raise OverflowError
    except (PolarsError, TypeError, OverflowError, RuntimeError) as error:
        message = f"not all of {list(values)} are values of type {type_name(dtype)}"
        raise SchemaMismatch(path, message, "write values of the column's type; quotes make text of a number") from error


def _text_only(dtype: pl.DataType, path: tuple[str | int, ...]) -> None:
    if dtype != pl.String():
        raise SchemaMismatch(path, f"column {path[1]!r} is {type_name(dtype)}; only text matches a pattern", "use min, max or one_of")
