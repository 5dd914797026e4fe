"""The contract of a stage: a frozen, validated config class whose ``bind`` returns a pure function from rows to rows."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeAlias

import polars as pl
from pydantic import BaseModel, ConfigDict

from stream.batch import Outcome


@dataclass(frozen=True, slots=True)
class Example:
    """Input and expected output of a stage; used both as a test and on the reference page."""

    config: Any
    given: list[dict[str, Any]]
    expect: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Resources:
    """What stages may use besides the rows. Fetched before a chain runs, so that running it needs no I/O.

    ``tables``: reference tables by URL as written in the definition. ``secrets``: bytes by reference name. ``functions``:
    user functions by import path. ``files``: content of a decoder's files by URL as written in the definition.
    """

    tables: Mapping[str, pl.DataFrame] = field(default_factory=dict)
    secrets: Mapping[str, bytes] = field(default_factory=dict)
    functions: Mapping[str, Callable[[pl.DataFrame], pl.DataFrame]] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Applied:
    """What a stage did to a frame.

    ``frame``: the rows that continue, in their original order, with lineage columns and ``_row`` unchanged. ``rejects``: rows
    that cannot continue, as ``_row`` UInt32 and ``reason`` String (a code such as ``cast_failed:dep_time``, never a value). Rows in
    neither were dropped on purpose and get the stage's ``drops`` outcome.
    """

    frame: pl.DataFrame
    rejects: pl.DataFrame | None = None


BoundStage: TypeAlias = Callable[[pl.DataFrame], Applied]


@dataclass(frozen=True, slots=True)
class Step:
    """One bound stage, or the decoder, and what has to be known to check what it does."""

    name: str
    run: BoundStage
    output: pl.Schema
    row_wise: bool = True
    drops: Outcome = Outcome.FILTERED
    unique: bool = True
    """Whether each record has at most one row after this step."""
    expands: bool = False
    """Whether the step may make several rows from one row."""


class SchemaMismatch(ValueError):
    """The stage cannot work on the given columns; ``path`` leads to the offending option in the stage's config."""

    def __init__(self, path: tuple[str | int, ...], message: str, hint: str = "") -> None:
        super().__init__(message)
        self.path = path
        self.message = message
        self.hint = hint


class StageConfig(BaseModel):
    """Base of all stages. A subclass has a name, declares its options as fields, and has one runnable example."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ClassVar[str]
    example: ClassVar[Example]
    row_wise: ClassVar[bool] = True
    """Whether running the stage on the two halves of a frame gives the same rows as running it on the whole frame."""
    expands: ClassVar[bool] = False
    """Whether one row may become any number of rows; these repeat its ``_row``, are adjacent and keep their order."""
    drops: ClassVar[Outcome] = Outcome.FILTERED
    """The outcome of rows that the stage drops without rejecting them."""

    def table_urls(self) -> tuple[str, ...]:
        """Reference tables to load before ``bind``."""
        return ()

    def refresh_seconds(self) -> float | None:
        """Seconds after which the tables of ``table_urls`` are read again; None: never."""
        return None

    def table_logins(self) -> Mapping[str, str]:
        """References to the secrets needed to read tables, by table URL."""
        return {}

    def secret_names(self) -> tuple[str, ...]:
        """References of secrets to resolve before ``bind``, such as ``env:MASK_KEY``."""
        return ()

    def function_paths(self) -> tuple[str, ...]:
        """Import paths of user functions to load before ``bind``."""
        return ()

    def divisible(self) -> bool:
        """Whether the stage is row-wise with the options that it has; for most stages, options make no difference."""
        return self.row_wise

    def origins(self, before: pl.Schema, after: pl.Schema) -> Mapping[str, frozenset[str]]:
        """For each column of ``after``, the columns of ``before`` whose values it may hold or be computed from.

        Never too few: by default a column that was there before comes from itself, and a new one from all columns. Which rows there are,
        and in which row a value stands, may depend on other columns too.
        """
        every = frozenset(before)
        return {name: frozenset({name}) if name in every else every for name in after}

    def masked(self) -> frozenset[str]:
        """Columns whose values can no longer be read after this stage."""
        return frozenset()

    @abstractmethod
    def output(self, schema: pl.Schema, resources: Resources) -> pl.Schema:
        """Columns and types after this stage, given those before it (including lineage and ``_row``).

        Raises:
            SchemaMismatch: a column is missing or has a type the stage cannot take.
        """

    @abstractmethod
    def bind(self, schema: pl.Schema, resources: Resources) -> BoundStage:
        """The stage as a function over frames of exactly ``schema``: pure and thread-safe, without clocks, randomness or I/O."""
