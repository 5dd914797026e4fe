"""Take text apart."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, ClassVar, Final, Self

import polars as pl
from pydantic import Field, field_validator, model_validator

from stream.batch import type_name
from stream.transform import grok, parsers, urls
from stream.transform.ip_addresses import ip
from stream.transform.parsers import Parser
from stream.transform.shorthands import null_word, one_or_more
from stream.transform.stage import Applied, BoundStage, Example, Resources, SchemaMismatch, StageConfig
from stream.transform.stages.common import refuse_clash, rejecting, require
from stream.transform.types import near

_METHODS: Final = ("regex", "grok", "timestamp", "url", "user_agent", "ip")


class OnError(StrEnum):
    """What becomes of a row whose text cannot be read."""

    REJECT = "reject"
    NULL = "null"


class Parse(StageConfig):
    """Read a text column as several columns, or as a time.

    Give exactly one of `regex` (a column per named group), `grok`, `timestamp`, `url`, `user_agent` and `ip`. Null gives null. Reasons are
    `parse_failed:<column>` and, if a group has a type, `wrong_type:<group>`. Patterns are matched in linear time.
    """

    name: ClassVar[str] = "parse"
    example: ClassVar[Example] = Example(
        config={"column": "line", "grok": "^%{IP:client} %{WORD:verb} %{PATH:path} %{INT:status:int16}$", "keep": False},
        given=[{"line": "192.0.2.7 GET /index.html 200"}, {"line": None}, {"line": "garbage"}],
        expect=[
            {"client": "192.0.2.7", "verb": "GET", "path": "/index.html", "status": 200},
            {"client": None, "verb": None, "path": None, "status": None},
        ],
    )

    column: str = Field(description="Text column to read.")
    regex: str | None = Field(default=None, description="Regular expression with named groups, `(?P<name>...)`; anchor it with ^ and $.")
    grok: str | None = Field(default=None, description="Pattern made of named patterns, `%{IP:client} %{NUMBER:took:float64}`.")
    patterns: Mapping[str, str] = Field(default={}, description="Named patterns of your own for `grok`.")
    types: Mapping[str, str] = Field(default={}, description="Types by group, as in a schema; by default, string.")
    timestamp: tuple[str, ...] | None = Field(default=None, min_length=1, description="Formats as in strftime; the first that fits counts.")
    timezone: str = Field(
        default="UTC",
        min_length=1,
        description="Zone of times whose text has no offset, such as Europe/Berlin. Times that it skips or has twice are not read.",
    )
    url: tuple[str, ...] | None = Field(default=None, min_length=1, description=f"Parts of a URL: {', '.join(urls.PARTS)}; or true.")
    user_agent: bool = Field(default=False, description="Browser, version, os and device of a User-Agent header; a rough guess.")
    ip: bool = Field(default=False, description="Version, kind and network of an IP address.")
    into: str | None = Field(
        default=None, min_length=1, description="Column for `timestamp`; for `url`, `user_agent` and `ip` the prefix of the columns."
    )
    keep: bool = Field(default=True, description="Whether to keep the text column.")
    on_error: OnError = Field(default=OnError.REJECT, description="`reject` the row, or set what could not be read to `null`.")

    _single = one_or_more("timestamp")

    @field_validator("url", mode="before")
    @classmethod
    def _all_parts(cls, value: Any) -> Any:
        if value is True:
            return urls.PARTS
        return None if value is False else [value] if isinstance(value, str) else value

    @field_validator("url")
    @classmethod
    def _known_parts(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for part in value or ():
            if part not in urls.PARTS:
                message = f"{part!r} is not a part of a URL; there are: {', '.join(urls.PARTS)}"
                raise SchemaMismatch(("url",), message, near(part, urls.PARTS))
        return value

    _null_word = null_word("on_error", OnError.NULL)

    @model_validator(mode="after")
    def _one_method(self) -> Self:
        chosen = [method for method in _METHODS if getattr(self, method)]
        if len(chosen) != 1:
            msg = f"parse needs exactly one of {', '.join(_METHODS)}; got {', '.join(chosen) or 'none'}"
            raise ValueError(msg)
        fits = {
            "patterns": {"grok"},
            "types": {"regex", "grok"},
            "timezone": {"timestamp"},
            "into": {"timestamp", "url", "user_agent", "ip"},
        }
        for option, methods in fits.items():
            if (
                option in self.model_fields_set
                and getattr(self, option) != type(self).model_fields[option].default
                and chosen[0] not in methods
            ):
                msg = f"`{option}` has no meaning for `{chosen[0]}`, only for {' and '.join(sorted(methods))}"
                raise ValueError(msg)
        return self

    def _parser(self) -> Parser:
        prefix = f"{self.column}_" if self.into is None else self.into
        if self.regex is not None:
            return parsers.regex(self.regex, self.types, self.column, ("regex",))
        if self.grok is not None:
            pattern, types = grok.expand(self.grok, self.patterns, ("grok",))
            return parsers.regex(pattern, {**types, **self.types}, self.column, ("grok",))
        if self.timestamp is not None:
            return parsers.timestamp(self.timestamp, self.timezone, self.into or self.column, self.column)
        if self.url is not None:
            return urls.url(prefix, self.url, self.column)
        return parsers.user_agent(prefix, self.column) if self.user_agent else ip(prefix, self.column)

    def origins(self, before: pl.Schema, after: pl.Schema) -> Mapping[str, frozenset[str]]:  # noqa: ARG002
        """What is parsed comes from the text."""
        parsed = self._parser().columns
        return {name: frozenset({self.column if name in parsed else name}) for name in after}

    def output(self, schema: pl.Schema, resources: Resources) -> pl.Schema:  # noqa: ARG002
        """The existing columns, without the text unless it is kept, then the parsed ones; a time may replace the text in place."""
        found = require(self.column, schema, ("column",))
        if found != pl.String():
            raise SchemaMismatch(
                ("column",), f"column {self.column!r} is {type_name(found)}; only text can be parsed", "cast it to string first"
            )
        columns = self._parser().columns
        kept = {name: kind for name, kind in schema.items() if name != self.column or (self.keep and name not in columns)}
        refuse_clash(columns, pl.Schema(kept), ("into",) if self.into is not None else ("column",))
        if list(columns) == [self.column]:
            return pl.Schema({**schema, **columns})
        return pl.Schema({**kept, **columns})

    def bind(self, schema: pl.Schema, resources: Resources) -> BoundStage:
        """A function that reads the whole column at once."""
        parser, column = self._parser(), self.column
        output_columns = list(self.output(schema, resources))
        reject = self.on_error is OnError.REJECT

        def apply(frame: pl.DataFrame) -> Applied:
            columns, reason = parser.read(frame[column])
            done = frame.with_columns(columns).select(output_columns)
            return rejecting(done, reason) if reject else Applied(done)

        return apply
