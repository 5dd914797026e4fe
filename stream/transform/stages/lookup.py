"""Add columns from a reference table."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, ClassVar, Final

import polars as pl
from polars.exceptions import InvalidOperationError, PolarsError
from pydantic import Field, field_validator

from stream.batch import type_name
from stream.errors import Halted
from stream.transform.shorthands import null_word
from stream.transform.stage import Applied, BoundStage, Example, Resources, SchemaMismatch, StageConfig
from stream.transform.stages.common import refuse_clash, rejecting, require
from stream.transform.types import near

LOOKUP_MISSING: Final = "lookup_missing"
_FOUND: Final = "_lookup_found"
_KEY: Final = "_lookup_key_"


class Missing(StrEnum):
    """What becomes of a row whose key is not in the table."""

    NULL = "null"
    REJECT = "reject"


class Lookup(StageConfig):
    """Join each row with the one row of a reference table that has its key.

    Rows keep their order and number; a null key matches nothing. Rejects have the reason `lookup_missing:<key columns>`.
    """

    name: ClassVar[str] = "lookup"
    example: ClassVar[Example] = Example(
        config={"table": "reference/airlines.parquet", "on": "carrier", "take": {"airline": "name"}},
        given=[{"carrier": "UA", "flight": 1545}, {"carrier": "ZZ", "flight": 1}],
        expect=[
            {"carrier": "UA", "flight": 1545, "airline": "United Air Lines Inc."},
            {"carrier": "ZZ", "flight": 1, "airline": None},
        ],
    )

    table: str = Field(description="URL or path of the table (Parquet, CSV or NDJSON).")
    on: Mapping[str, str] = Field(description="Key: a column, a list of columns, or `{column: table column}`.", min_length=1)
    take: Mapping[str, str] = Field(description="Columns to add: a list, or `{new name: table column}`.", min_length=1)
    missing: Missing = Field(default=Missing.NULL, description="If the key is not in the table: fill in `null`, or `reject` the row.")

    @field_validator("on", "take", mode="before")
    @classmethod
    def _names(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {value: value}
        if isinstance(value, (list, tuple)) and all(isinstance(name, str) for name in value):
            return {name: name for name in value}
        return value

    _null_word = null_word("missing", Missing.NULL)

    @property
    def url(self) -> str:
        """The table's name among resources."""
        return self.table

    def table_urls(self) -> tuple[str, ...]:
        """The one table."""
        return (self.url,)

    def origins(self, before: pl.Schema, after: pl.Schema) -> Mapping[str, frozenset[str]]:  # noqa: ARG002
        """What is taken comes from the key, through the table."""
        return {**{name: frozenset({name}) for name in before}, **dict.fromkeys(self.take, frozenset(self.on))}

    def output(self, schema: pl.Schema, resources: Resources) -> pl.Schema:
        """The existing columns, followed by the ones taken from the table."""
        table = self._table(resources)
        for left, right in self.on.items():
            require(left, schema, ("on", left))
            self._column(right, table, ("on", left))
        refuse_clash(self.take, schema, ("take",))
        taken = {name: self._column(right, table, ("take", name)) for name, right in self.take.items()}
        self._prepared(schema, table)
        return pl.Schema({**schema, **taken})

    def _table(self, resources: Resources) -> pl.DataFrame:
        if self.url not in resources.tables:
            known = ", ".join(resources.tables) or "none"
            raise SchemaMismatch(("table",), f"table {self.table!r} is not loaded; loaded: {known}", "check that the file exists")
        return resources.tables[self.url]

    def _column(self, name: str, table: pl.DataFrame, path: tuple[str | int, ...]) -> pl.DataType:
        if name not in table.columns:
            message = f"table {self.table!r} has no column {name!r}; it has: {', '.join(table.columns)}"
            raise SchemaMismatch(path, message, near(name, table.columns))
        return table.schema[name]

    def _prepared(self, schema: pl.Schema, table: pl.DataFrame) -> pl.DataFrame:
        """The table to join: key columns in the types of the rows, taken columns under their new names, and a column that marks a match."""
        keys = []
        for at, (left, right) in enumerate(self.on.items()):
            want, have = schema[left], table.schema[right]
            whole = want.is_integer() and (have.is_integer() or have == pl.String())
            if not (want == have or whole or (want.is_temporal() and have.is_temporal())):
                message = f"key {left!r} is {type_name(want)}, but {right!r} of table {self.table!r} is {type_name(have)}"
                raise SchemaMismatch(("on", left), message, "cast the column before the lookup")
            try:
                keys.append(_as_key(table[right], want).alias(f"{_KEY}{at}"))
            except PolarsError as error:
                message = f"{right!r} of table {self.table!r} ({type_name(have)}) does not fit key {left!r} ({type_name(want)}): {error}"
                raise SchemaMismatch(("on", left), message, "cast the column to the table's type before the lookup") from error
        taken = [table[right].alias(name) for name, right in self.take.items()]
        prepared = pl.DataFrame([*keys, *taken]).with_columns(pl.lit(value=True).alias(_FOUND))
        names = [key.name for key in keys]
        prepared = prepared.drop_nulls(names)
        doubled = prepared.select(names).is_duplicated()
        if doubled.any():
            first = prepared.filter(doubled).row(0, named=True)
            shown = ", ".join(f"{right}={first[f'{_KEY}{at}']!r}" for at, right in enumerate(self.on.values()))
            message = f"table {self.table!r} has more than one row for the key {shown} ({doubled.sum()} such rows)"
            raise SchemaMismatch(("on",), message, "a lookup needs one row per key: add a column to the key, or clean the table")
        return prepared

    def bind(self, schema: pl.Schema, resources: Resources) -> BoundStage:
        """A function that joins."""
        table = self._prepared(schema, self._table(resources))
        left = list(self.on)
        right = [f"{_KEY}{at}" for at in range(len(left))]
        reject = self.missing is Missing.REJECT
        reason = pl.when(pl.col(_FOUND).is_null()).then(pl.lit(f"{LOOKUP_MISSING}:{','.join(left)}")).alias("reason")

        def apply(frame: pl.DataFrame) -> Applied:
            joined = frame.join(table, left_on=left, right_on=right, how="left", maintain_order="left")
            if joined.height != frame.height:
                msg = f"lookup in {self.table!r} made {joined.height} rows of {frame.height}"
                raise Halted(msg)
            found = joined[_FOUND]
            joined = joined.drop(_FOUND)
            if not reject or not found.null_count():
                return Applied(joined)
            return rejecting(joined, found.to_frame().select(reason).to_series())

        return apply


def _as_key(column: pl.Series, want: pl.DataType) -> pl.Series:
    """``column`` in the type of the rows' key.

    Raises:
        PolarsError: a value that would become another one, such as a time that would become its day.
    """
    key = column.cast(want)
    if want.is_temporal() and not key.cast(column.dtype).equals(column):
        msg = "times would be truncated"
        raise InvalidOperationError(msg)
    return key
