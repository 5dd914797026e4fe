"""Leave out duplicate rows."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, ClassVar

import polars as pl
from pydantic import Field, field_validator

from stream.batch import Outcome, type_name
from stream.transform.shorthands import names_for, one_or_more
from stream.transform.stage import Applied, BoundStage, Example, Resources, SchemaMismatch, StageConfig
from stream.transform.stages.common import require


class Keep(StrEnum):
    """Which of several rows with one key is kept."""

    FIRST = "first"
    LAST = "last"


class Across(StrEnum):
    """How far apart duplicates may be and still be found."""

    UNIT = "unit"


class Dedupe(StageConfig):
    """Keep one row per key; the others get the outcome `deduplicated`.

    This is exact within a unit, the records that commit together; the same key in another unit is not seen. A null in a key column
    identifies nothing: all such rows are kept. Records that are read again after a crash need no stage: they are never committed twice.
    """

    name: ClassVar[str] = "dedupe"
    row_wise: ClassVar[bool] = False
    drops: ClassVar[Outcome] = Outcome.DEDUPLICATED
    example: ClassVar[Example] = Example(
        config={"by": ["flight", "day"], "keep": "last"},
        given=[{"flight": 1, "day": 1, "gate": "A"}, {"flight": 2, "day": 1, "gate": "B"}, {"flight": 1, "day": 1, "gate": "C"}],
        expect=[{"flight": 2, "day": 1, "gate": "B"}, {"flight": 1, "day": 1, "gate": "C"}],
    )

    by: tuple[str, ...] = Field(min_length=1, description="Columns of the key.")
    keep: Keep = Field(default=Keep.FIRST, description="Which row to keep, in the order of the shard: `first` or `last`.")
    across: Across = Field(default=Across.UNIT, description="`unit`, the records that commit together.")

    _short_form = names_for("by")

    _single = one_or_more("by")

    @field_validator("across", mode="before")
    @classmethod
    def _no_state(cls, value: Any) -> Any:
        if value == "units":
            msg = (
                "a stage remembers nothing from one unit to the next, because a unit that is rendered again must come out the same; "
                "make units larger (`flush`), or deduplicate by key where the files are read"
            )
            raise ValueError(msg)
        return value

    def output(self, schema: pl.Schema, resources: Resources) -> pl.Schema:  # noqa: ARG002
        """The columns as they are."""
        for at, name in enumerate(self.by):
            found = schema[name] if name in schema else require(name, schema, ("by", at))
            if found.is_nested() or found.is_float():
                message = f"column {name!r} is {type_name(found)}, which cannot be a key"
                raise SchemaMismatch(("by", at), message, "allowed: text, whole numbers, decimals, booleans, dates, times, bytes")
        return schema

    def bind(self, schema: pl.Schema, resources: Resources) -> BoundStage:  # noqa: ARG002
        """A function that looks at all rows."""
        keys, known = list(self.by), pl.all_horizontal(pl.col(name).is_not_null() for name in self.by)
        chosen = pl.struct(keys).is_first_distinct() if self.keep is Keep.FIRST else pl.struct(keys).is_last_distinct()

        def apply(frame: pl.DataFrame) -> Applied:
            return Applied(frame.filter(~known | chosen))

        return apply
