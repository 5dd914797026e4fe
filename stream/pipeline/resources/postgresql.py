"""Reference tables from PostgreSQL: the result of a query in one read-only transaction, with the types that the database names."""

from __future__ import annotations

import asyncio
import importlib
import json
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import polars as pl

from stream.errors import DefinitionError, Retryable
from stream.pipeline.resources.databases import COLUMN_TYPES, MAX_ROWS, MAX_UNPACKED, as_table, decimal_type

CONNECT_SECONDS: Final = 10.0
QUERY_SECONDS: Final = 300.0
"""A query that takes longer is a report, not a reference table."""
WHOLE_SECONDS: Final = 600.0
"""For all that is asked and its answer. The bound of a query is the server's, and a server that is gone has none."""
_AT_A_TIME: Final = 20_000
"""Rows that exist as Python objects at any time."""

TYPES: Final[Mapping[str, pl.DataType]] = {
    **COLUMN_TYPES,
    "uuid": pl.String(),
    "json": pl.String(),
    "jsonb": pl.String(),
    "bytea": pl.Binary(),
}
"""Column types by what PostgreSQL calls them; of all others (a numeric without digits among them, whose scale is each value's own) none
is right for all."""
_NUMERIC: Final = "numeric"
_HEADER: Final = 4
"""What PostgreSQL adds to precision and scale, 16 bits each, of a numeric."""
_VIEW: Final = "stream_digits_of_numerics"
_MODIFIERS: Final = f"SELECT atttypmod FROM pg_attribute WHERE attrelid = 'pg_temp.{_VIEW}'::regclass AND attnum > 0 ORDER BY attnum"  # noqa: S608

_LOCAL: Final = ("", "localhost", "127.0.0.1", "::1")
_LATER: Final = ("08", "40", "53", "57")
"""Classes of SQLSTATE after which the same query may work: no connection, a conflict, no room, an operator."""


async def read_postgresql(url: str, login: bytes | None) -> bytes:
    """The result of the query after ``#`` in ``url`` as Parquet, as ``as_table`` writes it.

    ``login`` is ``user:password``, or a JSON object with ``username`` and ``password``. Unless the URL says otherwise the connection is
    encrypted wherever it leaves this machine.

    Raises:
        DefinitionError: the driver is not installed; the database, the login or the query is wrong; too many rows, or a type without
            a counterpart.
        Retryable: the database could not be reached, or was too busy.
    """
    driver = _driver()
    place, _, query = url.partition("#")
    split = urlsplit(place)
    options: dict[str, Any] = dict(zip(("user", "password"), _user_and_password(login), strict=True)) if login is not None else {}
    if split.hostname not in (None, *_LOCAL) and "sslmode" not in parse_qs(split.query):
        options["ssl"] = "require"
    try:
        connection = await driver.connect(
            place, timeout=CONNECT_SECONDS, server_settings={"statement_timeout": str(int(QUERY_SECONDS * 1000))}, **options
        )
        try:
            async with asyncio.timeout(WHOLE_SECONDS):
                frame = await _ask(connection, query, split.path.lstrip("/"))
        except TimeoutError:
            # A server that does not answer would not answer to the end of the session either.
            connection.terminate()
            raise
        finally:
            await connection.close(timeout=CONNECT_SECONDS)
    except driver.PostgresError as error:
        raise explained(place, query, error) from error
    except (driver.InterfaceError, ValueError) as error:
        msg = f"the database {place} cannot be opened: {error}"
        raise DefinitionError(msg) from error
    except (OSError, TimeoutError) as error:
        msg = f"the database {place} cannot be reached: {str(error) or 'no answer in time'}"
        raise Retryable(msg) from error
    return as_table(frame)


def _driver() -> Any:
    try:
        return importlib.import_module("asyncpg")
    except ImportError as error:
        msg = "reading tables from PostgreSQL needs a driver; install it: pip install 'kinesis-stream[postgresql]'"
        raise DefinitionError(msg) from error


def _user_and_password(login: bytes) -> tuple[str, str]:
    text = login.decode("utf-8", "replace")
    if text.lstrip().startswith("{"):
        try:
            found = json.loads(text)
            return str(found["username"]), str(found["password"])
        except (ValueError, KeyError, TypeError):
            # The message must not show what the secret contains.
            msg = "the secret that `login` names is a JSON object, but without `username` and `password`"
            raise DefinitionError(msg) from None
    user, colon, password = text.partition(":")
    if not colon or not user:
        msg = "the secret that `login` names is neither `user:password` nor a JSON object with `username` and `password`"
        raise DefinitionError(msg)
    return user, password


async def _ask(connection: Any, query: str, database: str) -> pl.DataFrame:
    numerics = await _numerics(connection, query)
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        statement = await connection.prepare(query)
        names = [attribute.name for attribute in statement.get_attributes()]
        schema = _schema(statement.get_attributes(), numerics, database)
        if not names or len(schema) < len(names):
            msg = f"the query {query!r} on the database {database} returns the columns {names}; give each its own name, with AS"
            raise DefinitionError(msg)
        cursor = await statement.cursor()
        parts = [schema.to_frame()]
        held = size = 0
        while rows := await cursor.fetch(_AT_A_TIME):
            part = pl.DataFrame(
                [_column(name, kind, [row[at] for row in rows], database) for at, (name, kind) in enumerate(schema.items())]
            )
            parts.append(part)
            held, size = held + part.height, size + int(part.estimated_size())
            if held > MAX_ROWS or size > MAX_UNPACKED:
                msg = (
                    f"the query {query!r} on the database {database} returns more than {MAX_ROWS:,} rows or "
                    f"{MAX_UNPACKED:,} bytes; select less"
                )
                raise DefinitionError(msg)
    return pl.concat(parts)


async def _numerics(connection: Any, query: str) -> dict[int, pl.DataType | None]:
    """The types of columns that are numerics with digits, such as ``numeric(9,2)``, by their places.

    The driver does not say how many digits. So a view of the query tells, which runs nothing and is gone with its transaction; a server
    that has no views for this login, such as a replica, does not say either.
    """
    transaction = connection.transaction()
    await transaction.start()
    try:
        attributes = (await connection.prepare(query)).get_attributes()
        if all(attribute.type.name != _NUMERIC for attribute in attributes):
            return {}
        try:
            await connection.execute(f"CREATE TEMPORARY VIEW {_VIEW} AS {query}")
            modifiers = [row["atttypmod"] - _HEADER for row in await connection.fetch(_MODIFIERS)]
        except _driver().PostgresError:
            return {}
    finally:
        await transaction.rollback()
    places = (at for at, attribute in enumerate(attributes) if attribute.type.name == _NUMERIC and modifiers[at] > 0)
    return {at: decimal_type(modifiers[at] >> 16, modifiers[at] & 0xFFFF) for at in places}


def _schema(attributes: Any, numerics: Mapping[int, pl.DataType | None], database: str) -> pl.Schema:
    columns = {}
    for at, attribute in enumerate(attributes):
        kind = TYPES.get(attribute.type.name) or numerics.get(at)
        if kind is None:
            known = "int8, float8, numeric(p,s) of up to 38 digits, text, date or timestamptz"
            msg = f"the column {attribute.name!r} of the database {database} is {attribute.type.name}; CAST it to {known} in the query"
            raise DefinitionError(msg)
        columns[attribute.name] = kind
    return pl.Schema(columns)


def _column(name: str, kind: pl.DataType, values: list[Any], database: str) -> pl.Series:
    if kind == pl.String():
        values = [None if value is None else str(value) for value in values]
    if kind.is_decimal() and any(value is not None and not value.is_finite() for value in values):
        msg = (
            f"the column {name!r} of the database {database} has NaN or Infinity, which a decimal cannot be; use NULLIF, or "
            "CAST it to float8"
        )
        raise DefinitionError(msg)
    return pl.Series(name, values, dtype=kind)


def explained(place: str, query: str, error: Any) -> DefinitionError | Retryable:
    """What PostgreSQL's ``error`` means: whether the same query may work later, or somebody has to change something."""
    state = error.sqlstate or ""
    # 57014 is a query that was stopped, most often for the time it took: the next one would take as long.
    if state.startswith(_LATER) and state != "57014":
        return Retryable(f"the database {place} was not ready: {error}")
    if state.startswith(("28", "3D")):
        return DefinitionError(f"the database {place} cannot be opened: {error}")
    return DefinitionError(f"the query {query!r} on the database {place} failed: {error}")
