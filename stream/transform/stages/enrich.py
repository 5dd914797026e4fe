"""Add columns from a reference table that is read again now and then."""

from __future__ import annotations

import re
from typing import Any, ClassVar, Final, Self

from pydantic import Field, field_validator, model_validator

from stream.transform.stage import Example
from stream.transform.stages.lookup import Lookup

DATABASE: Final = "sqlite:"
_DURATION: Final = re.compile(r"([1-9][0-9]{0,5})(s|m|h|d)")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


class Enrich(Lookup):
    """Join each row with the one row that has its key in a table that is read again every `refresh`.

    A table that has changed counts from the next unit on. Each unit names the definition it was made with, and that names the version of
    each table by its SHA-256 and keeps its content, so older units can be made again as they were. If a table cannot be read again, or
    its columns have other types now, the version in hand stays and `kst_reference_age_seconds` grows. `table` may be a SQLite database,
    `sqlite:path`, with a `query`. What else is as in `lookup`.
    """

    name: ClassVar[str] = "enrich"
    example: ClassVar[Example] = Example(
        config={"table": "reference/airlines.parquet", "on": "carrier", "take": {"airline": "name"}, "refresh": "10m"},
        given=[{"carrier": "UA", "flight": 1545}, {"carrier": "ZZ", "flight": 1}],
        expect=[
            {"carrier": "UA", "flight": 1545, "airline": "United Air Lines Inc."},
            {"carrier": "ZZ", "flight": 1, "airline": None},
        ],
    )

    table: str = Field(description="URL or path of the table (Parquet, CSV or NDJSON), or `sqlite:path` of a database.")
    query: str | None = Field(default=None, min_length=1, description="With a database: the SELECT that gives the table.")
    refresh: str = Field(default="5m", description="How long a version is good for, such as 30s, 10m or 1h.")

    @field_validator("refresh", mode="before")
    @classmethod
    def _duration(cls, value: Any) -> Any:
        if not isinstance(value, str) or _DURATION.fullmatch(value) is None:
            msg = f"{value!r} is no duration; write a whole number and one of s, m, h, d, such as 10m"
            raise ValueError(msg)
        return value

    @model_validator(mode="after")
    def _asked(self) -> Self:
        if self.table.startswith(DATABASE) != (self.query is not None):
            msg = "a database needs a `query`, and a file takes none"
            raise ValueError(msg)
        return self

    @property
    def url(self) -> str:
        """The table's name among resources; of a database with the query behind ``#``."""
        return self.table if self.query is None else f"{self.table}#{self.query}"

    def refresh_seconds(self) -> float | None:
        """How long a version is good for."""
        number, unit = _DURATION.fullmatch(self.refresh).groups()  # type: ignore[union-attr]
        return float(number) * _SECONDS[unit]
