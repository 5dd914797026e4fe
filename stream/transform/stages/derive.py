"""Compute columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import polars as pl
from pydantic import Field, model_validator

from stream.transform.expressions import compile_expression
from stream.transform.stage import Applied, BoundStage, Example, Resources, SchemaMismatch, StageConfig
from stream.transform.stages.common import refuse_system


class Derive(StageConfig):
    """Add or replace columns by expressions; they are computed from top to bottom, and a later one may use an earlier one."""

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

    def _compile(self, schema: pl.Schema) -> tuple[list[pl.Expr], pl.Schema]:
        known = dict(schema)
        steps = []
        for name, text in self.columns.items():
            refuse_system(name, ("columns", name))
            expression, result = compile_expression(text, pl.Schema(known), ("columns", name))
            if result == pl.Null():
                message = f"`{text}` is always null and has no type"
                raise SchemaMismatch(("columns", name), message, "say which null it is, as in `CAST(NULL AS BIGINT)`")
            steps.append(expression.alias(name))
            known[name] = result
        return steps, pl.Schema(known)

    def bind(self, schema: pl.Schema, resources: Resources) -> BoundStage:  # noqa: ARG002
        """A function that computes the columns one after the other."""
        steps, _ = self._compile(schema)

        def apply(frame: pl.DataFrame) -> Applied:
            lazy = frame.lazy()
            for step in steps:
                lazy = lazy.with_columns(step)
            return Applied(lazy.collect(engine="in-memory"))

        return apply
