"""Hide values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, ClassVar, Final, Self

import polars as pl
from pydantic import Field, field_validator, model_validator

from stream.batch import type_name
from stream.references import secret_reference
from stream.transform import masking
from stream.transform.shorthands import one_or_more
from stream.transform.stage import Applied, BoundStage, Example, Resources, SchemaMismatch, StageConfig
from stream.transform.stages.common import require


class Method(StrEnum):
    """How a value is hidden."""

    KEYED_HASH = "keyed_hash"
    REDACT = "redact"
    TRUNCATE = "truncate"
    KEEP_LAST = "keep_last"


_MOST_KEPT: Final = 64


class Mask(StageConfig):
    """Hide values: `keyed_hash` keeps them joinable, `redact` keeps nothing, `truncate` keeps a prefix, `keep_last` format and end.

    Equal values have equal digests under the same key, in every column and pipeline. Null stays null. `keep_last: 4` makes
    `****-****-1234` of `4111-1111-1234`; a value of which that would show everything is hidden completely.
    """

    name: ClassVar[str] = "mask"
    example: ClassVar[Example] = Example(
        config={"columns": ["tailnum"], "method": "keyed_hash", "key": {"env": "MASK_KEY"}, "length": 16},
        given=[{"tailnum": "N14228", "flight": 1545}, {"tailnum": None, "flight": 1}],
        expect=[{"tailnum": "64ad958c36ae5eec", "flight": 1545}, {"tailnum": None, "flight": 1}],
    )

    columns: tuple[str, ...] = Field(description="Text columns to hide.", min_length=1)
    method: Method = Field(description="`keyed_hash` (HMAC-SHA256 in hex), `redact`, `truncate` or `keep_last`.")
    key: str | None = Field(default=None, description="Secret of `keyed_hash`: `{env: NAME}`, `{file: path}` or `{secrets_manager: name}`.")
    length: int = Field(default=32, ge=8, le=64, description="Hex digits of `keyed_hash` to keep, 4 bits each.")
    keep: int = Field(
        default=0,
        ge=0,
        description="Characters that `truncate` (at least 1) and `keep_last` (1 to 64) keep; `keep_last: 4` sets method and number. "
        "0 where the method keeps none.",
    )
    text: str = Field(default="***", description="What `redact` writes instead.")

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and "keep_last" in value and not {"method", "keep"} & value.keys():
            return {
                "method": Method.KEEP_LAST,
                "keep": value["keep_last"],
                **{key: each for key, each in value.items() if key != "keep_last"},
            }
        return value

    _single = one_or_more("columns")

    @field_validator("key", mode="before")
    @classmethod
    def _reference(cls, value: Any) -> Any:
        return None if value is None else secret_reference(value)

    @model_validator(mode="after")
    def _needs(self) -> Self:
        if (self.method is Method.KEYED_HASH) != (self.key is not None):
            msg = "`method: keyed_hash` needs `key`, and no other method accepts it"
            raise ValueError(msg)
        if self.method in {Method.TRUNCATE, Method.KEEP_LAST} and not self.keep:
            msg = f"`method: {self.method}` needs `keep`, the number of characters to keep (to keep none, use `redact`)"
            raise ValueError(msg)
        if self.method is Method.KEEP_LAST and self.keep > _MOST_KEPT:
            msg = f"keep_last keeps at most {_MOST_KEPT} characters, got {self.keep}"
            raise ValueError(msg)
        return self

    def secret_names(self) -> tuple[str, ...]:
        """The key's reference, if there is one."""
        return (self.key,) if self.key is not None else ()

    def masked(self) -> frozenset[str]:
        """The columns, whatever the method leaves of their values."""
        return frozenset(self.columns)

    def output(self, schema: pl.Schema, resources: Resources) -> pl.Schema:
        """The columns as they are."""
        for at, name in enumerate(self.columns):
            found = require(name, schema, ("columns", at))
            if found != pl.String():
                message = f"column {name!r} is {type_name(found)}; only text can be hidden"
                raise SchemaMismatch(("columns", at), message, f"cast it to string first: `cast: {{{name}: string}}`")
        if self.key is not None and not resources.secrets.get(self.key):
            raise SchemaMismatch(("key",), f"secret {self.key!r} is missing or empty", "set it where the worker runs")
        return schema

    def bind(self, schema: pl.Schema, resources: Resources) -> BoundStage:  # noqa: ARG002
        """A function that masks the columns."""
        mask = self._masking(resources)
        columns = self.columns

        def apply(frame: pl.DataFrame) -> Applied:
            return Applied(frame.with_columns(mask(frame[name]) for name in columns))

        return apply

    def _masking(self, resources: Resources) -> Callable[[pl.Series], pl.Series]:
        if self.method is Method.KEYED_HASH:
            return masking.keyed_hash(resources.secrets[self.key or ""], self.length)
        if self.method is Method.TRUNCATE:
            return lambda column: column.str.head(self.keep)
        if self.method is Method.KEEP_LAST:
            return masking.keep_last(self.keep)
        return self._redact

    def _redact(self, column: pl.Series) -> pl.Series:
        if not column.null_count():
            return pl.repeat(self.text, len(column), dtype=pl.String, eager=True).alias(column.name)
        return pl.select(pl.when(column.is_not_null()).then(pl.lit(self.text)).alias(column.name)).to_series()
