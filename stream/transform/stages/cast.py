"""Change types."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, ClassVar

import polars as pl
from polars.exceptions import PolarsError
from pydantic import Field, model_validator

from stream.batch import type_name
from stream.dry_run import type_error
from stream.recorded import is_recorded
from stream.transform import values
from stream.transform.shorthands import null_word
from stream.transform.stage import Applied, BoundStage, Example, Resources, SchemaMismatch, StageConfig
from stream.transform.stages.common import rejecting, require
from stream.transform.types import TIMESTAMP, Kind, Type, parse_type

CAST_FAILED = "cast_failed"


class OnError(StrEnum):
    """What becomes of a row whose value has no counterpart in the new type."""

    REJECT = "reject"
    NULL = "null"


class Cast(StageConfig):
    """Change the types of columns.

    If a value would be lost or altered, even inside a list or an object, its row is rejected with `cast_failed:<column>`: `"x"` or `1.5` as
    int64, 300 as int8, `1.239` as decimal(4,2), 9007199254740993 as float64, 2 as bool, a time outside the years 1 to 9999. Only these are
    rounded: a float to the nearest decimal or float32, a decimal to the nearest float, a timestamp to its day.
    """

    name: ClassVar[str] = "cast"
    example: ClassVar[Example] = Example(
        config={"delay": "int64", "at": "timestamp"},
        given=[{"delay": "11", "at": "2013-01-01T05:00:00-05:00"}, {"delay": "late", "at": None}],
        expect=[{"delay": 11, "at": "2013-01-01T10:00:00Z"}],
    )

    columns: Mapping[str, str] = Field(description="New type by column name, as in a schema.", min_length=1)
    on_error: OnError = Field(default=OnError.REJECT, description="`reject` the row, or set the value to `null`.")

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and not isinstance(value.get("columns"), Mapping):
            return {"columns": value}
        return value

    _null_word = null_word("on_error", OnError.NULL)

    def output(self, schema: pl.Schema, resources: Resources) -> pl.Schema:  # noqa: ARG002
        """The same columns with new types."""
        found = dict(schema)
        for name, text in self.columns.items():
            path = ("columns", name)
            source, target = require(name, schema, path), self._target(name, text)
            found[name] = target.polars
            try:
                pl.Schema({name: source}).to_frame().select(_converted(name, source, target))
            except PolarsError as error:
                raise SchemaMismatch(
                    path, f"{type_name(source)} cannot become {text}: {error}", "derive a column of another type first"
                ) from error
            if not is_recorded() and not _possible(name, source, target):
                message = f"column {name!r} is {type_name(source)}, which cannot become {text}"
                raise SchemaMismatch(path, message, "derive a column of another type first")
        return pl.Schema(found)

    @staticmethod
    def _target(name: str, text: str) -> Type:
        target = parse_type(text, ("columns", name))
        if target.nullable:
            message = f"type {text!r}: a cast does not change whether values may be null"
            raise SchemaMismatch(("columns", name), message, f"write {text[:-1]!r}")
        if target.kind is Kind.JSON:
            raise SchemaMismatch(("columns", name), "nothing can be cast to json", "use string")
        return target

    def bind(self, schema: pl.Schema, resources: Resources) -> BoundStage:  # noqa: ARG002
        """A function that casts all columns and then looks for values that were lost."""
        targets = {name: self._target(name, text) for name, text in self.columns.items()}
        casts = [_converted(name, schema[name], target).alias(name) for name, target in targets.items()]
        reject = self.on_error is OnError.REJECT

        def apply(frame: pl.DataFrame) -> Applied:
            done = frame.with_columns(casts)
            if not reject:
                return Applied(done)
            lost = {
                name: frame[name].is_not_null() & done[name].is_null()
                for name in targets
                if done[name].null_count() > frame[name].null_count()
            }
            if not lost:
                return Applied(done)
            marks = pl.DataFrame(lost)
            reason = pl.coalesce(pl.when(pl.col(name)).then(pl.lit(f"{CAST_FAILED}:{name}")) for name in lost)
            return rejecting(done, marks.select(reason.alias("reason")).to_series())

        return apply


def _converted(name: str, source: pl.DataType, target: Type) -> pl.Expr:
    """Column ``name`` in the target type; null where the value, or one inside of it, would be lost or altered."""
    if target.kind is Kind.EPOCH and not source.is_integer():
        message = f"column {name!r} is {type_name(source)}; {target.text} counts from whole numbers"
        raise SchemaMismatch(("columns", name), message, "cast it to int64 first, or use timestamp for text")
    if source == pl.Binary() and target.polars == pl.String() and not is_recorded():
        message = f"column {name!r} is bytes, which need not be text"
        raise SchemaMismatch(("columns", name), message, "decode it where it is read, or encode it in a python stage")
    unlike = source.is_nested() != target.polars.is_nested() or (source == pl.Boolean() and target.kind is Kind.DECIMAL)
    if unlike and not is_recorded():
        hint = "use `explode` for a list, `flatten` for an object" if source.is_nested() else "derive a column of another type first"
        raise SchemaMismatch(("columns", name), f"column {name!r} is {type_name(source)}, which cannot become {target.text}", hint)
    return _value(pl.col(name), source, target)


def _possible(name: str, source: pl.DataType, target: Type) -> bool:
    """Whether any value of ``source`` can become one of ``target``."""
    made: list[pl.DataType] = []
    problem = type_error(lambda row: made.extend(row.select(_converted(name, source, target)).dtypes), {name: source})
    return not problem and made in ([], [target.polars])


def _value(value: pl.Expr, source: pl.DataType, target: Type) -> pl.Expr:
    if isinstance(source, pl.List) and target.item is not None:
        inner = source.inner if isinstance(source.inner, pl.DataType) else source.inner()
        item = _value(pl.element(), inner, target.item)
        lost = value.list.eval(pl.element().is_not_null() & item.is_null()).list.any()
        return pl.when(lost.not_()).then(value.list.eval(item))
    if isinstance(source, pl.Struct) and [field.name for field in source.fields] == [name for name, _ in target.fields]:
        parts = [value.struct.field(name) for name, _ in target.fields]
        kinds = [field.dtype if isinstance(field.dtype, pl.DataType) else field.dtype() for field in source.fields]
        done = [_value(part, kind, inner) for part, kind, (_, inner) in zip(parts, kinds, target.fields, strict=True)]
        kept = [part.is_null() | each.is_not_null() for part, each in zip(parts, done, strict=True)]
        named = [each.alias(name) for each, (name, _) in zip(done, target.fields, strict=True)]
        return pl.when(value.is_not_null() & pl.all_horizontal(kept)).then(pl.struct(named))
    return _of_text(value, target) if source == pl.String() else _plain(value, source, target)


def _of_text(text: pl.Expr, target: Type) -> pl.Expr:
    if target.kind in {Kind.TIMESTAMP, Kind.DATE, Kind.BINARY}:
        return values.read(text, target)
    if target.polars == pl.Boolean():
        lower = text.str.to_lowercase()
        return pl.when(lower == "true").then(pl.lit(value=True)).when(lower == "false").then(pl.lit(value=False))
    done = text.cast(target.polars, strict=False)
    if target.kind is Kind.DECIMAL:
        # Polars rounds to the scale.
        return pl.when(values.decimal_places(text) <= target.wire.scale).then(done)
    if target.polars.is_float():
        # Words such as inf mean infinity; a number that is too large does not.
        return pl.when(done.is_infinite().not_() | text.str.contains("[0-9]").not_()).then(done)
    return done


def _plain(value: pl.Expr, source: pl.DataType, target: Type) -> pl.Expr:  # noqa: PLR0911 - one per kind
    if target.kind is Kind.EPOCH:
        return values.read(value.cast(pl.Int64, strict=False), target)
    if source.is_float() and target.kind is Kind.DECIMAL:
        # Polars raises if a number does not fit, also if only rounding makes it one digit too long.
        limit = 10.0 ** (target.wire.precision - target.wire.scale) - 0.5 * 10.0**-target.wire.scale
        return pl.when(value.abs() < limit).then(value).cast(target.polars, strict=False)
    if source.is_numeric() and target.polars == pl.Boolean():
        return pl.when((value == 0) | (value == 1)).then(value == 1)
    done = value.cast(target.polars, strict=False)
    if target.polars == pl.Float32() and not source.is_integer():
        wide = value.cast(pl.Float64)
        return pl.when(done.is_finite() | wide.is_infinite() | wide.is_nan()).then(done)
    nearest = target.polars.is_float() and not source.is_integer()
    if source.is_numeric() and target.polars != pl.String() and not nearest:
        done = pl.when(done.cast(source, strict=False) == value).then(done)
    if target.polars == TIMESTAMP:
        return pl.when(done.dt.timestamp("us").is_between(values.FIRST_US, values.LAST_US)).then(done)
    if target.polars == pl.Date():
        return pl.when(done.dt.year().is_between(1, 9999)).then(done)
    return done
