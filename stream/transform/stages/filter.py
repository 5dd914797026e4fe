"""Keep the rows for which something is true."""

from __future__ import annotations

from typing import ClassVar

import polars as pl
from pydantic import Field

from stream.rows import kept
from stream.transform.expressions import compile_condition
from stream.transform.shorthands import text_for
from stream.transform.stage import Applied, BoundStage, Example, Resources, StageConfig


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
        compile_condition(self.where, schema, ("where",))
        return schema

    def bind(self, schema: pl.Schema, resources: Resources) -> BoundStage:  # noqa: ARG002
        """A function that filters."""
        condition = compile_condition(self.where, schema, ("where",))

        def apply(frame: pl.DataFrame) -> Applied:
            mask = frame.select_seq(condition).to_series()
            # A condition that reads no column has one value.
            return Applied(kept(frame, mask if len(mask) == frame.height else mask.new_from_index(0, frame.height)))

        return apply
