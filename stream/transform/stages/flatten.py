"""Take objects apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import polars as pl
from pydantic import Field, model_validator

from stream.batch import type_name
from stream.transform.shorthands import one_or_more
from stream.transform.stage import Applied, BoundStage, Example, Resources, SchemaMismatch, StageConfig
from stream.transform.stages.common import require, user_columns
from stream.transform.types import RESERVED


class Flatten(StageConfig):
    """Turn the fields of objects into columns: `{a: {b: 1}}` becomes `a_b: 1`.

    The columns take the object's place. Fields of a null object are null; lists stay as they are, see `explode`.
    """

    name: ClassVar[str] = "flatten"
    example: ClassVar[Example] = Example(
        config=["plane"],
        given=[{"flight": 1545, "plane": {"tail": "N14228", "seats": {"first": 12}}}, {"flight": 1, "plane": None}],
        expect=[
            {"flight": 1545, "plane_tail": "N14228", "plane_seats_first": 12},
            {"flight": 1, "plane_tail": None, "plane_seats_first": None},
        ],
    )

    columns: tuple[str, ...] | None = Field(default=None, min_length=1, description="Objects to flatten; by default, all.")
    depth: int | None = Field(default=None, ge=1, description="Levels to flatten; by default, all.")
    separator: str = Field(default="_", max_length=8, description="Text between the names of object and field.")
    prefix: bool = Field(default=True, description="Put the object's name in front; without it, field names must not clash.")

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, value: Any) -> Any:
        return value if isinstance(value, Mapping) else {"columns": value}

    _single = one_or_more("columns")

    def output(self, schema: pl.Schema, resources: Resources) -> pl.Schema:  # noqa: ARG002
        """The columns, with each object replaced by its fields."""
        for at, name in enumerate(self.columns or ()):
            found = require(name, schema, ("columns", at))
            if not isinstance(found, pl.Struct):
                message = f"column {name!r} is {type_name(found)}, not an object"
                raise SchemaMismatch(("columns", at), message, "a list is taken apart by `explode`")
        columns: dict[str, pl.DataType] = {}
        for name, _, dtype in self._parts(schema):
            if name in columns or (name in RESERVED and name not in schema):
                message = f"flattening gives two columns {name!r}" if name in columns else f"column {name!r} belongs to the service"
                raise SchemaMismatch(("columns",), message, "rename one before, keep `prefix`, or choose another `separator`")
            columns[name] = dtype
        return pl.Schema(columns)

    def origins(self, before: pl.Schema, after: pl.Schema) -> Mapping[str, frozenset[str]]:  # noqa: ARG002
        """A field comes from its object."""
        return {name: frozenset(value.meta.root_names()) for name, value, _ in self._parts(before)}

    def _parts(self, schema: pl.Schema) -> Iterator[tuple[str, pl.Expr, pl.DataType]]:
        """Name, value and type of each column after this stage."""
        chosen = user_columns(schema) if self.columns is None else self.columns
        for name, dtype in schema.items():
            yield from self._leaves(name, pl.col(name), dtype, self.depth or -1) if name in chosen else [(name, pl.col(name), dtype)]

    def _leaves(self, name: str, value: pl.Expr, dtype: pl.DataType, depth: int) -> Iterator[tuple[str, pl.Expr, pl.DataType]]:
        if depth == 0 or not isinstance(dtype, pl.Struct) or not dtype.fields:
            yield name, value, dtype
            return
        for field in dtype.fields:
            inner = f"{name}{self.separator}{field.name}" if self.prefix else field.name
            kind = field.dtype if isinstance(field.dtype, pl.DataType) else field.dtype()
            yield from self._leaves(inner, value.struct.field(field.name), kind, depth - 1)

    def bind(self, schema: pl.Schema, resources: Resources) -> BoundStage:  # noqa: ARG002
        """A function that selects."""
        parts = [value.alias(name) for name, value, _ in self._parts(schema)]

        def apply(frame: pl.DataFrame) -> Applied:
            return Applied(frame.select(parts))

        return apply
