"""Compute columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

import polars as pl
from polars.exceptions import InvalidOperationError
from pydantic import Field

from stream.transform import values
from stream.transform.expressions import compile_expression
from stream.transform.shorthands import mapping_for
from stream.transform.stage import Applied, BoundStage, Example, Resources, SchemaMismatch, StageConfig
from stream.transform.stages.common import refuse_system, rejecting

OVERFLOW: Final = "overflow"
_LOST: Final = "_overflow_of_"


class Derive(StageConfig):
    """Add or replace columns by expressions, which are computed from top to bottom; a later one may use an earlier one.

    Sums, differences, products and powers of integers have the type int64, or uint64 if they are computed from that type; a row whose
    result does not fit is rejected with `overflow:<column>`. So is a row with a date or a time outside the years 1 to 9999.
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

    _short_form = mapping_for("columns")

    def output(self, schema: pl.Schema, resources: Resources) -> pl.Schema:  # noqa: ARG002
        """The existing columns, followed by the new ones; a replaced column keeps its place."""
        return self._compile(schema)[1]

    def origins(self, before: pl.Schema, after: pl.Schema) -> Mapping[str, frozenset[str]]:  # noqa: ARG002
        """A computed column comes from those that its expression names; those computed further up count by what they come from."""
        found = {name: frozenset({name}) for name in before}
        for step in self._compile(before)[0]:
            found[step.name] = frozenset().union(*(found[name] for name in step.expression.meta.root_names()))
        return found

    def _compile(self, schema: pl.Schema) -> tuple[list[_Step], pl.Schema]:
        known = dict(schema)
        steps = []
        for name, text in self.columns.items():
            refuse_system(name, ("columns", name))
            expression, result = compile_expression(text, pl.Schema(known), ("columns", name))
            if result == pl.Null():
                message = f"`{text}` is always null and has no type"
                raise SchemaMismatch(("columns", name), message, "give it a type, as in `CAST(NULL AS BIGINT)`")
            found = pl.LazyFrame(schema=known).select(expression.alias(name)).collect_schema()[name]
            steps.append(_Step(name, expression, result, may_outgrow=found != result))
            known[name] = result
        return steps, pl.Schema(known)

    def bind(self, schema: pl.Schema, resources: Resources) -> BoundStage:  # noqa: ARG002
        """A function that computes the columns one after the other."""
        steps, _ = self._compile(schema)
        quick, marked = [step.quick() for step in steps], [step.marked() for step in steps]
        marks = {_LOST + step.name: f"{OVERFLOW}:{step.name}" for step in steps if step.may_overflow}
        moments = list(dict.fromkeys(step.name for step in steps if step.is_moment))

        def apply(frame: pl.DataFrame) -> Applied:
            try:
                done = _computed(frame, quick)
                if all(values.are_representable(done[name]) for name in moments):
                    return Applied(done)
            except InvalidOperationError:
                if not marks:
                    raise
            done = _computed(frame, marked)
            lost = done.select([*marks])
            reason = pl.coalesce(pl.when(pl.col(name)).then(pl.lit(why)) for name, why in marks.items())
            return rejecting(done.drop([*marks]), lost.select(reason.alias("reason")).to_series())

        return apply


@dataclass(frozen=True, slots=True)
class _Step:
    name: str
    expression: pl.Expr
    result: pl.DataType
    may_outgrow: bool

    @property
    def is_moment(self) -> bool:
        """Whether the column has dates or times, which may be outside of the years 1 to 9999."""
        return self.result.base_type() in {pl.Date, pl.Datetime}

    @property
    def may_overflow(self) -> bool:
        """Whether a result may not fit the column."""
        return self.may_outgrow or self.is_moment

    def quick(self) -> list[pl.Expr]:
        """The column; computing it raises if a number does not fit."""
        return [(self.expression.cast(self.result) if self.may_outgrow else self.expression).alias(self.name)]

    def marked(self) -> list[pl.Expr]:
        """The column with null in place of results that do not fit, and a column that is true for those."""
        if not self.may_overflow:
            return self.quick()
        column = self.expression.cast(self.result, strict=False)
        if self.is_moment:
            column = pl.when(values.representable(column, self.result)).then(column)
        return [(self.expression.is_not_null() & column.is_null()).alias(_LOST + self.name), column.alias(self.name)]


def _computed(frame: pl.DataFrame, steps: list[list[pl.Expr]]) -> pl.DataFrame:
    lazy = frame.lazy()
    for step in steps:
        lazy = lazy.with_columns_seq(step)
    return lazy.collect(engine="in-memory")
