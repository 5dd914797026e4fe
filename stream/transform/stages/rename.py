"""Give columns other names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import polars as pl
from pydantic import Field

from stream.transform.shorthands import mapping_for
from stream.transform.stage import Applied, BoundStage, Example, Resources, SchemaMismatch, StageConfig
from stream.transform.stages.common import refuse_system, require


class Rename(StageConfig):
    """Rename columns, old name to new name; all at once, so two columns may swap their names."""

    name: ClassVar[str] = "rename"
    example: ClassVar[Example] = Example(
        config={"tailnum": "plane"},
        given=[{"tailnum": "N14228", "flight": 1545}],
        expect=[{"plane": "N14228", "flight": 1545}],
    )

    columns: Mapping[str, str] = Field(description="New name by old name.", min_length=1)

    _short_form = mapping_for("columns")

    def origins(self, before: pl.Schema, after: pl.Schema) -> Mapping[str, frozenset[str]]:  # noqa: ARG002
        """Each column under its new name."""
        return {self.columns.get(name, name): frozenset({name}) for name in before}

    def output(self, schema: pl.Schema, resources: Resources) -> pl.Schema:  # noqa: ARG002
        """The same columns in the same places under their new names."""
        for old, new in self.columns.items():
            require(old, schema, ("columns", old))
            refuse_system(new, ("columns", old))
        names = [self.columns.get(name, name) for name in schema]
        for old, new in self.columns.items():
            if names.count(new) > 1:
                raise SchemaMismatch(("columns", old), f"two columns would be named {new!r}", "choose another name, or rename both")
        return pl.Schema(dict(zip(names, schema.values(), strict=True)))

    def bind(self, schema: pl.Schema, resources: Resources) -> BoundStage:  # noqa: ARG002
        """A function that renames."""
        names = dict(self.columns)

        def apply(frame: pl.DataFrame) -> Applied:
            return Applied(frame.rename(names))

        return apply
