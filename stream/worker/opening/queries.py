"""Reference tables from Redshift: the result of a query through the Data API, with the worker's AWS credentials."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Final

import polars as pl

from stream.aws.redshift_data import ColumnInfo, Database, RedshiftDataClient, Result, open_redshift_data
from stream.aws.session import AwsSession
from stream.errors import DefinitionError, Retryable
from stream.pipeline.resources.databases import COLUMN_TYPES, MAX_ROWS, as_table, decimal_type
from stream.transform.stages.enrich import warehouse
from stream.transform.values import timestamps

WAITS: Final = 15
"""How often to wait 20 seconds for a query to end; one that takes longer is a report, not a reference table."""

TYPES: Final[Mapping[str, pl.DataType]] = {**COLUMN_TYPES, "super": pl.String()}
"""Column types by Redshift's names; a numeric has the digits that the response names; other types are not supported."""


async def read_query(session: AwsSession, url: str) -> bytes:
    """The result of the query after ``#`` in ``url`` as Parquet, as ``as_table`` writes it.

    Raises:
        DefinitionError: the query fails, or returns columns without unique names, too many rows, or a type without a counterpart.
        Fatal: the database does not exist, or may not be queried.
        Retryable: the service did not answer, or the query was stopped or takes too long.
    """
    place, _, query = url.partition("#")
    found = warehouse(place)
    database = Database(found.database, found.cluster, found.workgroup, found.db_user)
    async with open_redshift_data(session, database) as client:
        result = await _result(client, query, place)
    names = [column.name for column in result.columns]
    if not names or len(set(names)) < len(names) or len(result.rows) > MAX_ROWS:
        why = f"more than {MAX_ROWS:,} rows" if len(result.rows) > MAX_ROWS else f"the columns {names}; each needs a unique name"
        msg = f"the query {query!r} on {place} gives {why}"
        raise DefinitionError(msg)
    return as_table(pl.DataFrame([_column(column, [row[at] for row in result.rows], place) for at, column in enumerate(result.columns)]))


async def _result(client: RedshiftDataClient, query: str, place: str) -> Result:
    # A new token each time: the answer of a minute ago is exactly what is not wanted.
    token = hashlib.sha256(query.encode()).hexdigest()[:32] + secrets.token_hex(16)
    statement = await client.execute(query, token)
    for _ in range(WAITS):
        done = await client.describe(statement)
        if not done.done:
            continue
        if done.status == "FINISHED":
            return await client.result(statement)
        msg = f"the query {query!r} on {place} {done.status}: {done.error}"
        if done.status == "ABORTED":
            raise Retryable(msg)
        raise DefinitionError(msg)
    msg = f"the query {query!r} on {place} is still running; make it smaller, or let Redshift UNLOAD the table to S3"
    raise Retryable(msg)


def _column(column: ColumnInfo, values: Sequence[Any], place: str) -> pl.Series:
    kind = TYPES.get(column.type) or (decimal_type(column.length, column.scale) if column.type == "numeric" else None)
    if kind is None:
        msg = f"the column {column.name!r} of {place} is {column.type}; CAST it to int8, float8, varchar, date or timestamptz in the query"
        raise DefinitionError(msg)
    if kind == pl.Date():
        return pl.Series(column.name, values, pl.String()).str.to_date("%Y-%m-%d")
    if kind.is_decimal():
        return pl.Series(column.name, values, pl.String()).cast(kind)
    if isinstance(kind, pl.Datetime):
        return timestamps(pl.Series(column.name, values, pl.String())).dt.replace_time_zone(kind.time_zone)
    return pl.Series(column.name, values, dtype=kind)
