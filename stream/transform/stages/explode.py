"""One row per item of a list."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import ClassVar, Final

import polars as pl
from pydantic import Field

from stream.batch import ROW, type_name
from stream.transform.row_numbers import has_one_row_per_record
from stream.transform.shorthands import null_word, text_for
from stream.transform.stage import Applied, BoundStage, Example, Resources, SchemaMismatch, StageConfig
from stream.transform.stages.common import refuse_clash, refuse_system, require

TOO_MANY: Final = "too_many_rows"
MOST_ITEMS: Final = 100
"""Items of other lists that may be repeated, per allowed row: 80 MB of int64 if a record may become 100,000 rows."""


class Empty(StrEnum):
    """What becomes of a row whose list is null or has no items."""

    DROP = "drop"
    NULL = "null"


class Explode(StageConfig):
    """Make one row of each item of a list, with all other columns repeated.

    The rows of a record stay together, in the order of the list. From here on they share one fate: if one of them is rejected, all
    are. A record with no rows left has the outcome `filtered`. A record that would become more than `max_rows` rows, in this stage
    and earlier ones together, or would repeat more than 100 times as many items of other lists, is rejected with `too_many_rows:<column>`.
    """

    name: ClassVar[str] = "explode"
    expands: ClassVar[bool] = True
    example: ClassVar[Example] = Example(
        config={"column": "stops", "into": "stop", "index": "leg"},
        given=[{"flight": 1545, "stops": ["EWR", "IAH"]}, {"flight": 1, "stops": []}, {"flight": 2, "stops": ["JFK"]}],
        expect=[
            {"flight": 1545, "stop": "EWR", "leg": 0},
            {"flight": 1545, "stop": "IAH", "leg": 1},
            {"flight": 2, "stop": "JFK", "leg": 0},
        ],
    )

    column: str = Field(description="List column to explode.")
    into: str | None = Field(default=None, min_length=1, description="Name of the item's column; by default, the list's own.")
    index: str | None = Field(default=None, min_length=1, description="Name of a column for the item's index in the list, from 0.")
    empty: Empty = Field(default=Empty.DROP, description="A null or empty list: `drop` the row, or keep it with a `null` item.")

    max_rows: int = Field(
        default=100_000, ge=1, description="Most rows that one record may become; a record with more becomes a dead letter."
    )

    _short_form = text_for("column")

    _null_word = null_word("empty", Empty.NULL)

    @property
    def _item(self) -> str:
        return self.into or self.column

    def origins(self, before: pl.Schema, after: pl.Schema) -> Mapping[str, frozenset[str]]:
        """Item and index come from the list."""
        return {name: frozenset({self.column if name in {self._item, self.index} else name}) & set(before) for name in after}

    def output(self, schema: pl.Schema, resources: Resources) -> pl.Schema:  # noqa: ARG002
        """The columns, with the item in place of its list, followed by the index."""
        found = require(self.column, schema, ("column",))
        if not isinstance(found, pl.List):
            message = f"column {self.column!r} is {type_name(found)}, not a list"
            raise SchemaMismatch(("column",), message, "an object is taken apart by `flatten`")
        others = pl.Schema({name: kind for name, kind in schema.items() if name != self.column})
        refuse_system(self._item, ("into",))
        refuse_clash((self._item,), others, ("into",))
        inner = found.inner if isinstance(found.inner, pl.DataType) else found.inner()
        columns = {self._item if name == self.column else name: inner if name == self.column else kind for name, kind in schema.items()}
        if self.index is not None:
            refuse_clash((self.index,), pl.Schema(columns), ("index",))
            columns[self.index] = pl.UInt32()
        return pl.Schema(columns)

    def bind(self, schema: pl.Schema, resources: Resources) -> BoundStage:  # noqa: ARG002
        """A function that repeats rows."""
        column, keep = self.column, self.empty is Empty.NULL
        names = {column: self._item} if self._item != column else {}

        limit, reason = self.max_rows, pl.lit(f"{TOO_MANY}:{column}").alias("reason")
        made = pl.max_horizontal(pl.col(column).list.len().fill_null(0).cast(pl.UInt64), int(keep))
        others = [pl.col(name).list.len().fill_null(0) for name, kind in schema.items() if isinstance(kind, pl.List) and name != column]
        repeated = made * pl.sum_horizontal(pl.lit(0, pl.UInt64), *others)
        sizes = [made.sum().alias("rows"), repeated.sum().alias("items")]
        largest = [made.max().alias("rows"), repeated.max().alias("items")]
        large = (pl.col("rows") > limit) | (pl.col("items") > limit * MOST_ITEMS)

        def fits(frame: pl.DataFrame) -> bool:
            if frame.select(sizes).filter(large).is_empty():
                return True
            # If each record has one row, that row alone decides about it.
            return has_one_row_per_record(frame[ROW]) and frame.select(largest).filter(large).is_empty()

        def apply(frame: pl.DataFrame) -> Applied:
            # Two lists of a record multiply, so a few kilobytes could become billions of items; counted before any is made.
            if fits(frame):
                return Applied(explode(frame))
            refused = frame.group_by(ROW, maintain_order=True).agg(sizes).filter(large).select(ROW, reason)
            return Applied(explode(frame.join(refused, on=ROW, how="anti", maintain_order="left")), refused)

        def explode(frame: pl.DataFrame) -> pl.DataFrame:
            taken = [column]
            if self.index is not None:
                size = pl.col(column).list.len().fill_null(0)
                frame = frame.with_columns(pl.int_ranges(0, size, dtype=pl.UInt32).alias(self.index))
                taken.append(self.index)
            if not keep:
                frame = frame.filter(pl.col(column).list.len() > 0)
            elif self.index is not None:
                # Both lists must be equally long, and a null list and an empty one give one row each.
                frame = frame.with_columns(pl.when(pl.col(self.index).list.len() > 0).then(pl.col(self.index)))
                frame = frame.with_columns(pl.when(pl.col(column).list.len() > 0).then(pl.col(column)))
            return frame.explode(taken, empty_as_null=keep, keep_nulls=keep).rename(names)

        return apply
