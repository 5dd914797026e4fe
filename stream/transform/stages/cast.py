"""Change types."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, ClassVar

import polars as pl
from polars.exceptions import PolarsError
from pydantic import Field, field_validator, model_validator

from stream.transform import values
from stream.transform.stage import Applied, BoundStage, Example, Resources, SchemaMismatch, StageConfig
from stream.transform.stages.common import rejecting, require
from stream.transform.types import Kind, Type, parse_type

CAST_FAILED = "cast_failed"


class OnError(StrEnum):
    """What becomes of a row whose value has no counterpart in the new type."""

    REJECT = "reject"
    NULL = "null"


class Cast(StageConfig):
    """Change the types of columns.

    A value that would be lost or altered (`"x"` or `1.5` as int64, 300 as int8) rejects its row with `cast_failed:<column>`.
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

    @field_validator("on_error", mode="before")
    @classmethod
    def _null(cls, value: Any) -> Any:
        return OnError.NULL if value is None else value  # YAML reads a bare `null` as nothing

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
                raise SchemaMismatch(path, f"{source} cannot become {text}: {error}", "derive a column of another type first") from error
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
        """A function that casts all columns and then looks for what was lost."""
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
    """Column ``name`` in the target type; null where the value would be lost or altered."""
    column = pl.col(name)
    if target.kind in {Kind.TIMESTAMP, Kind.DATE, Kind.BINARY} and source == pl.String():
        return values.read(column, target)
    if target.kind is Kind.EPOCH:
        if not source.is_integer():
            message = f"column {name!r} is {source}; {target.text} counts from whole numbers"
            raise SchemaMismatch(("columns", name), message, "cast it to int64 first, or use timestamp for text")
        return values.read(column.cast(pl.Int64, strict=False), target)
    if source == pl.String() and target.polars == pl.Boolean():
        text = column.str.to_lowercase()
        return pl.when(text == "true").then(pl.lit(value=True)).when(text == "false").then(pl.lit(value=False))
    if source == pl.Binary() and target.polars == pl.String():
        message = f"column {name!r} is bytes, which need not be text"
        raise SchemaMismatch(("columns", name), message, "decode it where it is read, or encode it in a python stage")
    done = column.cast(target.polars, strict=False)
    if source.is_float() and target.polars.is_integer():
        return pl.when(done.cast(source, strict=False) == column).then(done)
    if source.is_numeric() and target.polars == pl.Float32():
        return pl.when(done.is_finite() | column.cast(pl.Float64).is_infinite() | column.cast(pl.Float64).is_nan()).then(done)
    return done
