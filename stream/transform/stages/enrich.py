"""Add columns from a reference table that is read again at intervals."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Self
from urllib.parse import parse_qs, urlsplit

from pydantic import Field, field_validator, model_validator

from stream.references import secret_reference
from stream.transform.stage import Example
from stream.transform.stages.lookup import Lookup

SQLITE, POSTGRESQL, REDSHIFT = "sqlite:", "postgresql:", "redshift:"
DATABASES: Final = (SQLITE, POSTGRESQL, REDSHIFT)
SERVERS: Final = (POSTGRESQL, REDSHIFT)
"""Databases that are read over the network."""
_WAREHOUSE: Final = re.compile(
    r"redshift:(?P<kind>cluster|workgroup)/(?P<name>[A-Za-z0-9-]{1,64})/(?P<database>[A-Za-z0-9_.$-]{1,127})(?:\?db_user=(?P<user>[^#&?]{1,128}))?"
)
_DURATION: Final = re.compile(r"([1-9][0-9]{0,5})(s|m|h|d)")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


class Enrich(Lookup):
    """Join each row with the one row that has its key in a reference table, and read that table again every `refresh`.

    A changed table takes effect with the next unit. Each unit names the definition that it was made with, which names the version of
    each table by its SHA-256 and keeps its content, so that older units can be reproduced. If a table cannot be read again, or
    its columns change their types, the current version stays in use and `kst_reference_age_seconds` grows. `table` may be a database with a
    `query`: `sqlite:path`, `postgresql://host/database`, `redshift:workgroup/NAME/DATABASE`. Everything else works as in `lookup`.
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

    table: str = Field(description="URL or path of the table (Parquet, CSV or NDJSON), or a database.")
    query: str | None = Field(default=None, min_length=1, description="With a database: the SELECT that gives the table.")
    login: str | None = Field(
        default=None, description="With PostgreSQL: secret with `user:password`, or with JSON that has `username` and `password`."
    )
    refresh: str = Field(default="5m", description="How long a version is used, such as 30s, 10m or 1h.")

    @field_validator("refresh", mode="before")
    @classmethod
    def _duration(cls, value: Any) -> Any:
        if not isinstance(value, str) or _DURATION.fullmatch(value) is None:
            msg = f"{value!r} is not a duration; write a whole number and one of s, m, h, d, such as 10m"
            raise ValueError(msg)
        return value

    @field_validator("table")
    @classmethod
    def _place(cls, value: str) -> str:
        if value.startswith(POSTGRESQL):
            _check_postgresql(value)
        elif value.startswith(REDSHIFT):
            warehouse(value)
        return value

    @field_validator("login", mode="before")
    @classmethod
    def _reference(cls, value: Any) -> Any:
        return None if value is None else secret_reference(value)

    @model_validator(mode="after")
    def _query_and_login(self) -> Self:
        if self.table.startswith(DATABASES) != (self.query is not None):
            msg = "a database needs a `query`; a file has none"
            raise ValueError(msg)
        if self.login is not None and not self.table.startswith(POSTGRESQL):
            msg = "`login` is for PostgreSQL; Redshift is queried with the worker's AWS credentials, and files need none"
            raise ValueError(msg)
        return self

    def table_logins(self) -> Mapping[str, str]:
        """The login of the table, if it has one."""
        return {} if self.login is None else {self.url: self.login}

    def secret_names(self) -> tuple[str, ...]:
        """The login, if there is one."""
        return () if self.login is None else (self.login,)

    @property
    def url(self) -> str:
        """The table's name among resources; for a database, with the query after ``#``."""
        return self.table if self.query is None else f"{self.table}#{self.query}"

    def refresh_seconds(self) -> float | None:
        """How long a version is used."""
        number, unit = _DURATION.fullmatch(self.refresh).groups()  # type: ignore[union-attr]
        return float(number) * _SECONDS[unit]


@dataclass(frozen=True, slots=True)
class Warehouse:
    """A Redshift database of a ``cluster`` or a serverless ``workgroup``; ``db_user`` is the user, for a cluster only."""

    database: str
    cluster: str | None = None
    workgroup: str | None = None
    db_user: str | None = None


def warehouse(url: str) -> Warehouse:
    """The database that a ``redshift:`` URL names, with or without a query after ``#``.

    Raises:
        ValueError: it names none.
    """
    found = _WAREHOUSE.fullmatch(url.partition("#")[0])
    if found is None or (found["kind"] == "workgroup" and found["user"]):
        forms = "redshift:workgroup/NAME/DATABASE or redshift:cluster/NAME/DATABASE?db_user=NAME"
        msg = f"{url.partition('#')[0]!r} does not name a Redshift database; write {forms}"
        raise ValueError(msg)
    if found["kind"] == "workgroup":
        return Warehouse(found["database"], workgroup=found["name"])
    return Warehouse(found["database"], cluster=found["name"], db_user=found["user"])


def _check_postgresql(url: str) -> None:
    form = "postgresql://host:5432/database"
    try:
        found = urlsplit(url)
        port_is_right = found.port is None or found.port > 0
    except ValueError:
        port_is_right = False
    if not port_is_right or not url.startswith(f"{POSTGRESQL}//") or not found.path.strip("/") or "#" in url:
        # The URL may hold a password, so it is not shown.
        msg = f"this is not the URL of a PostgreSQL database (not shown, because it may contain a password); write {form}"
        raise ValueError(msg)
    if found.password is not None or "password" in parse_qs(found.query):
        msg = f"a pipeline file never contains a password; write {form} and `login: {{secrets_manager: name}}`"
        raise ValueError(msg)
