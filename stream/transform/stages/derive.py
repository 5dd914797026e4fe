"""Compute columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

import polars as pl
from pydantic import Field, model_validator

from stream.transform.expressions import compile_expression
from stream.transform.stage import Applied, BoundStage, Example, Resources, SchemaMismatch, StageConfig
from stream.transform.stages.common import refuse_system, rejecting

OVERFLOW: Final = "overflow"
_LOST: Final = "_overflow_of_"


class Derive(StageConfig):
    """Add or replace columns by expressions; they are computed from top to bottom, and a later one may use an earlier one.

    Sums, differences and products of whole numbers are columns of int64, or uint64 where that is what they are made of; a row whose result
    has no room there is rejected with `overflow:<column>`.
    """

    name: ClassVar[str] = "derive"
    example: ClassVar[Example] = Example(
        config={"made_up": "dep_delay - arr_delay", "late": "made_up < 0"},
        given=[{"dep_delay": 2, "arr_delay": 11}, {"dep_delay": 4, "arr_delay": None}],
        expect=[
            {"dep_delay": 2, "arr_delay": 11, "made_up": -9, "late": True},
            {"dep_delay": 4, "arr_delay": None, "made_up": None, "late": None},
        ],
    )

    columns: Mapping[str, str] = Field(description="Expression by column name.", min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and not (set(value) == {"columns"} and isinstance(value["columns"], Mapping)):
            return {"columns": value}
        return value

    def output(self, schema: pl.Schema, resources: Resources) -> pl.Schema:  # noqa: ARG002
        """The columns before, with new ones behind them; a replaced column keeps its place."""
        return self._compile(schema)[1]

    def _compile(self, schema: pl.Schema) -> tuple[list[list[pl.Expr]], pl.Schema]:
        """For each column its expression, behind one for what it had no room for if that can be; and the columns behind all of them."""
        known = dict(schema)
        steps = []
        for name, text in self.columns.items():
            refuse_system(name, ("columns", name))
            expression, result = compile_expression(text, pl.Schema(known), ("columns", name))
            if result == pl.Null():
                message = f"`{text}` is always null and has no type"
                raise SchemaMismatch(("columns", name), message, "say which null it is, as in `CAST(NULL AS BIGINT)`")
            steps.append(_step(name, expression, result, pl.Schema(known)))
            known[name] = result
        return steps, pl.Schema(known)

    def bind(self, schema: pl.Schema, resources: Resources) -> BoundStage:  # noqa: ARG002
        """A function that computes the columns one after the other."""
        steps, _ = self._compile(schema)
        marks = {_LOST + name: f"{OVERFLOW}:{name}" for name, step in zip(self.columns, steps, strict=True) if len(step) > 1}

        def apply(frame: pl.DataFrame) -> Applied:
            lazy = frame.lazy()
            for step in steps:
                lazy = lazy.with_columns(step)
            done = lazy.collect(engine="in-memory")
            if not marks:
                return Applied(done)
            lost, done = done.select([*marks]), done.drop([*marks])
            found = [name for name in marks if lost[name].any()]
            if not found:
                return Applied(done)
            reason = pl.coalesce(pl.when(pl.col(name)).then(pl.lit(marks[name])) for name in found)
            return rejecting(done, lost.select(reason.alias("reason")).to_series())

        return apply


def _step(name: str, expression: pl.Expr, result: pl.DataType, schema: pl.Schema) -> list[pl.Expr]:
    if pl.LazyFrame(schema=schema).select(expression.alias(name)).collect_schema()[name] == result:
        return [expression.alias(name)]
    column = expression.cast(result, strict=False)
    return [(expression.is_not_null() & column.is_null()).alias(_LOST + name), column.alias(name)]
