"""Keep the rows for which something is true."""

from __future__ import annotations

from typing import ClassVar

import polars as pl
from pydantic import Field

from stream.batch import type_name
from stream.transform.expressions import compile_expression
from stream.transform.shorthands import text_for
from stream.transform.stage import Applied, BoundStage, Example, Resources, SchemaMismatch, StageConfig


class Filter(StageConfig):
    """Keep rows for which `where` is true; where it is false or null, the record's outcome is `filtered`."""

    name: ClassVar[str] = "filter"
    example: ClassVar[Example] = Example(
        config="dep_time IS NOT NULL",
        given=[{"flight": 1545, "dep_time": 517}, {"flight": 1714, "dep_time": None}],
        expect=[{"flight": 1545, "dep_time": 517}],
    )

    where: str = Field(description="A condition over the columns of one row.")

    _short_form = text_for("where")

    def output(self, schema: pl.Schema, resources: Resources) -> pl.Schema:  # noqa: ARG002
        """The columns as they are."""
        self._condition(schema)
        return schema

    def _condition(self, schema: pl.Schema) -> pl.Expr:
        condition, result = compile_expression(self.where, schema, ("where",))
        if result != pl.Boolean():
            message = f"`{self.where}` gives {type_name(result)}, but a filter needs true or false"
            raise SchemaMismatch(("where",), message, "compare it with something, as in `x > 0` or `x IS NOT NULL`")
        return condition

    def bind(self, schema: pl.Schema, resources: Resources) -> BoundStage:  # noqa: ARG002
        """A function that filters."""
        condition = self._condition(schema)

        def apply(frame: pl.DataFrame) -> Applied:
            return Applied(frame.filter(condition))

        return apply
