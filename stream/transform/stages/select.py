"""Choose columns."""

from __future__ import annotations

from typing import ClassVar, Self

import polars as pl
from pydantic import Field, model_validator

from stream.transform.shorthands import names_for
from stream.transform.stage import Applied, BoundStage, Example, Resources, SchemaMismatch, StageConfig
from stream.transform.stages.common import require, user_columns
from stream.transform.types import SYSTEM


class Select(StageConfig):
    """Keep the columns of a list, in its order, or all but those of `drop`. Lineage columns are always kept."""

    name: ClassVar[str] = "select"
    example: ClassVar[Example] = Example(
        config=["origin", "carrier"],
        given=[{"carrier": "UA", "flight": 1545, "origin": "EWR"}],
        expect=[{"origin": "EWR", "carrier": "UA"}],
    )

    keep: tuple[str, ...] | None = Field(default=None, description="Columns to keep, in this order.", min_length=1)
    drop: tuple[str, ...] | None = Field(default=None, description="Columns to leave out.", min_length=1)

    _short_form = names_for("keep")

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if (self.keep is None) == (self.drop is None):
            msg = "select needs exactly one of `keep` and `drop`"
            raise ValueError(msg)
        return self

    def output(self, schema: pl.Schema, resources: Resources) -> pl.Schema:  # noqa: ARG002
        """System columns, then those chosen."""
        option, named = ("keep", self.keep) if self.keep is not None else ("drop", self.drop or ())
        for at, name in enumerate(named):
            require(name, schema, (option, at))
            if name in named[:at]:
                raise SchemaMismatch((option, at), f"column {name!r} is in the list twice", "remove one")
        chosen = named if option == "keep" else [name for name in user_columns(schema) if name not in named]
        return pl.Schema({name: schema[name] for name in (*SYSTEM, *chosen)})

    def bind(self, schema: pl.Schema, resources: Resources) -> BoundStage:
        """A function that selects."""
        names = list(self.output(schema, resources))

        def apply(frame: pl.DataFrame) -> Applied:
            return Applied(frame.select(names))

        return apply
