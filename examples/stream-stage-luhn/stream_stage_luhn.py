"""A stage for `stream`: numbers that end in a check digit by Luhn's algorithm (ISO/IEC 7812-1), such as those of cards and phones."""

from __future__ import annotations

from typing import ClassVar

import polars as pl
from pydantic import Field

from stream.batch import ROW
from stream.transform.shorthands import text_for
from stream.transform.stage import Applied, BoundStage, Example, Resources, SchemaMismatch, StageConfig
from stream.transform.stages.common import require

MOST_DIGITS = 24


class Luhn(StageConfig):
    """Reject rows whose number has a wrong check digit; the reason is `luhn:<column>`.

    Blanks and hyphens between digits do not count. A null is not wrong. A number has 2 to 24 digits.
    """

    name: ClassVar[str] = "luhn"
    example: ClassVar[Example] = Example(
        config="card",
        given=[{"card": "4111-1111-1111-1111"}, {"card": "4111 1111 1111 1112"}, {"card": "4111x"}, {"card": None}],
        expect=[{"card": "4111-1111-1111-1111"}, {"card": None}],
    )

    column: str = Field(description="The number, as text.")

    _short_form = text_for("column")

    def output(self, schema: pl.Schema, resources: Resources) -> pl.Schema:  # noqa: ARG002
        """The columns as they are."""
        found = require(self.column, schema, ("column",))
        if found != pl.String():
            message = f"column {self.column!r} is {found}; check digits are those of text"
            raise SchemaMismatch(("column",), message, f"cast it to string first: `cast: {{{self.column}: string}}`")
        return schema

    def bind(self, schema: pl.Schema, resources: Resources) -> BoundStage:  # noqa: ARG002
        """A function that adds up all rows' digits at once."""
        digits = pl.col(self.column).str.replace_all("[ -]", "")
        padded = digits.str.zfill(MOST_DIGITS)
        values = [padded.str.slice(at, 1).cast(pl.Int16, strict=False) for at in range(MOST_DIGITS)]
        # Zeros in front change no sum, so every number is given the same length and the places to double are fixed.
        doubled = [value * 2 - pl.when(value > 4).then(9).otherwise(0) if at % 2 == 0 else value for at, value in enumerate(values)]
        right = digits.str.contains(rf"^[0-9]{{2,{MOST_DIGITS}}}$") & (pl.sum_horizontal(doubled) % 10 == 0)
        wrong = pl.col(self.column).is_not_null() & ~right
        reason = pl.lit(f"luhn:{self.column}").alias("reason")

        def apply(frame: pl.DataFrame) -> Applied:
            bad = frame.select(wrong).to_series()
            if not bad.any():
                return Applied(frame)
            return Applied(frame.filter(~bad), frame.filter(bad).select(ROW, reason))

        return apply
