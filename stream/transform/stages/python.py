"""Your own function."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import polars as pl
from polars.exceptions import PanicException
from pydantic import Field, field_validator

from stream.errors import Halted
from stream.transform.shorthands import text_for
from stream.transform.stage import Applied, BoundStage, Example, Resources, SchemaMismatch, StageConfig
from stream.transform.stages.common import refuse_system
from stream.transform.types import SYSTEM, parse_type


class Python(StageConfig):
    """Call a function with the frame of rows; it returns the frame to continue with.

    The function may add, replace and drop columns, and drop rows (their outcome is `filtered`). It must not add, duplicate or
    reorder rows or change lineage columns. It must treat each row by itself and always give the same output for the same input: no clock,
    no random numbers, no network; `stream simulate` finds out. Python must find its module: in an installed package, or in a directory
    that PYTHONPATH names; the pipeline file's own directory is not among them. Every worker needs the same version. If it raises, it is
    called again on smaller parts, and the rows that make it raise are rejected with `stage_error:<exception>`.
    """

    name: ClassVar[str] = "python"
    example: ClassVar[Example] = Example(
        config={"function": "my_company.flights:score", "adds": {"score": "int64"}},
        given=[{"dep_delay": 2}, {"dep_delay": -3}],
        expect=[{"dep_delay": 2, "score": 4}, {"dep_delay": -3, "score": -6}],
    )

    function: str = Field(
        description="Import path with a colon before the function, such as `my_company.flights:score`.",
        pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$",
    )
    adds: Mapping[str, str] | None = Field(
        default=None,
        description="Types of the columns that it adds or replaces, by name; all others stay. Without it, the function is "
        "called once on an empty frame, and the columns that it returns count as declared.",
    )

    _short_form = text_for("function")

    @field_validator("adds")
    @classmethod
    def _types(cls, value: Mapping[str, str] | None) -> Mapping[str, str] | None:
        for name, text in (value or {}).items():
            parse_type(text, ("adds", name))
        return value

    def function_paths(self) -> tuple[str, ...]:
        """The one function."""
        return (self.function,)

    def origins(self, before: pl.Schema, after: pl.Schema) -> Mapping[str, frozenset[str]]:
        """The columns of ``adds`` may come from every column; without ``adds``, so may all that the function returns."""
        every = frozenset(before)
        kept = frozenset(SYSTEM) if self.adds is None else every.difference(self.adds)
        return {name: frozenset({name}) if name in kept else every for name in after}

    def output(self, schema: pl.Schema, resources: Resources) -> pl.Schema:
        """As declared by ``adds``, or as returned for an empty frame; system columns first."""
        if self.function not in resources.functions:
            raise SchemaMismatch(("function",), f"function {self.function!r} is not loaded", "check the import path")
        if self.adds is not None:
            for name in self.adds:
                refuse_system(name, ("adds", name))
            return pl.Schema({**schema, **{name: parse_type(text).polars for name, text in self.adds.items()}})
        try:
            return _frame(self.function, resources.functions[self.function](schema.to_frame())).schema
        except Halted as error:
            raise SchemaMismatch(("function",), str(error)) from error
        except (Exception, PanicException) as error:  # the user's code may raise anything
            message = f"{self.function} raised {type(error).__name__} on an empty frame: {error}"
            raise SchemaMismatch(
                ("function",), message, "let it accept a frame without rows, or declare its columns under `adds`"
            ) from error

    def bind(self, schema: pl.Schema, resources: Resources) -> BoundStage:  # noqa: ARG002
        """A function that calls the user's with a copy, so that what others hold stays as it is."""
        function, path = resources.functions[self.function], self.function

        def apply(frame: pl.DataFrame) -> Applied:
            return Applied(_frame(path, function(frame.clone())))

        return apply


def _frame(path: str, result: object) -> pl.DataFrame:
    if not isinstance(result, pl.DataFrame):
        msg = f"{path} returned {type(result).__name__}, but must return a polars DataFrame; end it with `return frame`"
        raise Halted(msg)
    return result
