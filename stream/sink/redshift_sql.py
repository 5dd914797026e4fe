"""Every statement that the loader sends to Redshift, as text. Pure: equal loads give equal statements.

One load is one transaction (BatchExecuteStatement): lock the load ledger, check that each shard continues exactly where the ledger says it
ended, copy the files into a temporary table, count its rows, move them to the target, write the ledger. Redshift enforces no unique keys,
so what prevents a second load of the same units is that the ledger is checked and written in one transaction, under a lock.
"""

# ruff: noqa: S608 - names and texts pass redshift_names.py before they stand in a statement
from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from stream.sink.layouts import Column, Layout
from stream.sink.loads import Failure, Link, Load
from stream.sink.redshift import RedshiftSinkConfig
from stream.sink.redshift_names import identifier, literal, qualified
from stream.sink.redshift_types import SEQUENCE_BYTES, SHARD_ID_BYTES
from stream.sink.redshift_upsert import STAGED, upsert, value_of

MAX_STATEMENTS: Final = 40
"""Most statements in one BatchExecuteStatement (Redshift Data API)."""
MAX_STATEMENT_BYTES: Final = 100_000
ROWS_BYTES: Final = 90_000
"""Most bytes of values in one INSERT; the rest of the statement's limit is for the part before VALUES."""

INCOMING: Final = '"stream_incoming"'
_ORIGIN: Final = "0" * SEQUENCE_BYTES
_NAME_BYTES: Final = 128
"""Longest application, stream and shard in the ledger. Ledgers stay as they were created."""
_DIGEST: Final = 32
"""Hex digits that stand for the rest of a name which is too long for the ledger."""
_LEDGER_COLUMNS: Final = (
    ("application", f"varchar({_NAME_BYTES})"),
    ("stream", f"varchar({_NAME_BYTES})"),
    ("shard", f"varchar({_NAME_BYTES})"),
    ("after", f"varchar({SEQUENCE_BYTES})"),
    ("last", f"varchar({SEQUENCE_BYTES})"),
    ("links", "integer"),
    ("rows", "bigint"),
    ("load_id", "varchar(64)"),
    ("loaded_at", "timestamp"),
)


class Step(StrEnum):
    """What a statement of a load does. How to handle a failure depends on the step that failed."""

    LOCK = "lock"
    LEDGER = "ledger"
    IN_ORDER = "in_order"
    STAGE = "stage"
    COPY = "copy"
    COUNT = "count"
    MOVE = "move"
    CLEAN = "clean"


@dataclass(frozen=True, slots=True)
class Owner:
    """The application and stream that a ledger row's units belong to. ``several``: ``_shard`` names the stream, too."""

    application: str
    stream: str
    several: bool = False

    @property
    def shard_bytes(self) -> int:
        """The most bytes of ``_shard`` in the stream's rows."""
        return (len(self.stream) + 1 if self.several else 0) + SHARD_ID_BYTES

    @property
    def condition(self) -> str:
        """The SQL condition that selects this owner's ledger rows."""
        return f"application = {literal(self.application)} AND stream = {literal(self.recorded)}"

    @property
    def recorded(self) -> str:
        """The stream as the ledger has it: if it is too long, its beginning, ``~``, which no name has, and a digest of all of it.

        The id of another account's stream has up to 40 characters more than a name, which may have 128; the chain of a backfill another 43.
        """
        if len(self.stream) <= _NAME_BYTES:
            return self.stream
        return f"{self.stream[: _NAME_BYTES - _DIGEST - 1]}~{hashlib.sha256(self.stream.encode()).hexdigest()[:_DIGEST]}"


def padded(position: int) -> str:
    """A sequence number, zero-padded so that text order is numeric order."""
    return f"{position:0{SEQUENCE_BYTES}d}"


def load_id(owner: Owner, config: RedshiftSinkConfig, load: Load) -> str:
    """32 hex digits, computed from the units and the target table, that identify a load."""
    parts = [owner.application, owner.stream, *config.target, *(f"{link.shard}:{link.after}:{link.last}" for link in load.links)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def copy_manifest(load: Load) -> bytes:
    """The manifest for COPY, which fails unless each file exists and has exactly the size stated."""
    entries = [{"url": file.url, "mandatory": True, "meta": {"content_length": file.size}} for file in load.files]
    return json.dumps({"entries": entries}, separators=(",", ":")).encode()


def load_statements(config: RedshiftSinkConfig, owner: Owner, load: Load, manifest_url: str, now: datetime) -> tuple[tuple[Step, str], ...]:
    """The transaction of ``load``, each statement with its step. The object at ``manifest_url`` must be ``copy_manifest(load)``.

    Raises:
        ValueError: it exceeds the limits of the Data API; load fewer units.
    """
    ledger, name = qualified(*config.ledger), load_id(owner, config, load)
    columns = ", ".join(f"{identifier(column)} {kind}" for column, kind in _LEDGER_COLUMNS)
    names = ", ".join(identifier(column) for column, _ in _LEDGER_COLUMNS)
    statements: list[tuple[Step, str]] = [
        (Step.LOCK, f"LOCK TABLE {ledger}"),
        (Step.LEDGER, f"CREATE TEMP TABLE {INCOMING} ({columns})"),
        *((Step.LEDGER, f"INSERT INTO {INCOMING} ({names}) VALUES {values}") for values in _ledger_rows(owner, load, name, now)),
        (Step.IN_ORDER, _in_order(ledger, owner)),
    ]
    if load.layout is not None:
        statements += [
            (Step.STAGE, f"CREATE TEMP TABLE {STAGED} ({_columns(load.layout.columns, staged=True)})"),
            (Step.COPY, _copy(config, load.layout, manifest_url)),
            (Step.COUNT, f"SELECT 1 / CASE WHEN COUNT(*) = {load.rows} THEN 1 ELSE 0 END FROM {STAGED}"),
            *((Step.MOVE, statement) for statement in _move(config, load.layout)),
            (Step.CLEAN, f"DROP TABLE {STAGED}"),
        ]
    statements += [
        (Step.LEDGER, f"INSERT INTO {ledger} ({names}) SELECT {names} FROM {INCOMING}"),
        (Step.CLEAN, f"DROP TABLE {INCOMING}"),
    ]
    longest = max(len(text.encode()) for _, text in statements)
    if len(statements) > MAX_STATEMENTS or longest > MAX_STATEMENT_BYTES:
        msg = (
            f"a load of {len(load.links)} units takes {len(statements)} statements of up to {longest} bytes; the Redshift Data API allows "
            f"{MAX_STATEMENTS} of {MAX_STATEMENT_BYTES}. Lower `units`, or select fewer columns."
        )
        raise ValueError(msg)
    return tuple(statements)


def _ledger_rows(owner: Owner, load: Load, name: str, now: datetime) -> Iterator[str]:
    """The load's ledger rows as VALUES lists, each short enough for one statement."""
    head = f"{literal(owner.application)}, {literal(owner.recorded)}"
    timestamp = f"TIMESTAMP {literal(now.strftime('%Y-%m-%d %H:%M:%S.%f'))}"
    batch: list[str] = []
    size = 0
    for link in load.links:
        row = f"({head}, {_ledger_row(link)}, {literal(name)}, {timestamp})"
        if batch and size + len(row) + 2 > ROWS_BYTES:
            yield ", ".join(batch)
            batch, size = [], 0
        batch.append(row)
        size += len(row) + 2
    yield ", ".join(batch)


def _ledger_row(link: Link) -> str:
    return f"{literal(link.shard)}, {literal(padded(link.after))}, {literal(padded(link.last))}, {link.links}, {link.rows}"


def _in_order(ledger: str, owner: Owner) -> str:
    """Fails with a division by zero unless every shard continues where the ledger ends, so that no unit can be loaded twice."""
    return (
        "SELECT 1 / CASE WHEN COUNT(*) = 0 THEN 1 ELSE 0 END "
        f'FROM (SELECT shard, MIN("after") AS begins FROM {INCOMING} GROUP BY shard) AS i '
        f'LEFT JOIN (SELECT shard, MAX("last") AS loaded FROM {ledger} WHERE {owner.condition} GROUP BY shard) AS l ON l.shard = i.shard '
        f"WHERE COALESCE(l.loaded, {literal(_ORIGIN)}) <> i.begins"
    )


def _columns(columns: Sequence[Column], *, staged: bool) -> str:
    return ", ".join(f"{identifier(column.name)} {column.staged if staged else column.type}" for column in columns)


def _copy(config: RedshiftSinkConfig, layout: Layout, manifest_url: str) -> str:
    role = "default" if config.iam_role == "default" else literal(config.iam_role)
    nested = " SERIALIZETOJSON" if any(column.staged == "super" for column in layout.columns) else ""
    return f"COPY {STAGED} FROM {literal(manifest_url)} IAM_ROLE {role} FORMAT AS PARQUET MANIFEST{nested}"


def _move(config: RedshiftSinkConfig, layout: Layout) -> tuple[str, ...]:
    if layout.keys:
        return upsert(config, layout)
    names = ", ".join(identifier(column.name) for column in layout.target)
    values = ", ".join(value_of(column) for column in layout.target)
    return (f"INSERT INTO {qualified(*config.target)} ({names}) SELECT {values} FROM {STAGED}",)


def create_ledger(config: RedshiftSinkConfig) -> str:
    """Creates the load ledger if it is missing."""
    columns = ", ".join(f"{identifier(column)} {kind} NOT NULL" for column, kind in _LEDGER_COLUMNS)
    return f"CREATE TABLE IF NOT EXISTS {qualified(*config.ledger)} ({columns})"


def create_table(table: tuple[str, str], layout: Layout) -> str:
    """Creates ``table`` (schema, name) with the target columns of ``layout`` if it is missing."""
    return f"CREATE TABLE IF NOT EXISTS {qualified(*table)} ({_columns(layout.target, staged=False)})"


def describe_table(table: tuple[str, str]) -> str:
    """A query that returns no rows, but column metadata that describes ``table`` (schema, name)."""
    return f"SELECT * FROM {qualified(*table)} WHERE 1 = 0"


def most_rows(config: RedshiftSinkConfig) -> str:
    """Returns the most rows of one unit that the ledger says are in the table, whoever loaded them: none or 0 if it has no rows."""
    return f'SELECT MAX("rows") FROM {qualified(*config.ledger)}'


def missing_table(config: RedshiftSinkConfig) -> str:
    """What to say of a table that does not exist although rows were loaded into it: made anew, it would have only the later ones."""
    table, ledger = ".".join(config.target), ".".join(config.ledger)
    return (
        f"the table {table} does not exist, although {ledger} says that rows were loaded into it: somebody renamed or dropped it. Rename "
        f"or restore it. If it is to begin anew, create it yourself, to have the rows that are loaded from now on, or drop {ledger} too, "
        "to load everything again of which the files are still staged"
    )


def passing_over(config: RedshiftSinkConfig, owner: Owner, link: Link, now: datetime) -> str:
    """The statement with which a person has the ledger say that ``link``, which has no files, is done, so that loads go on after it."""
    names = ", ".join(identifier(column) for column, _ in _LEDGER_COLUMNS)
    (values,) = _ledger_rows(owner, Load((link,), None), "by hand", now)
    return f"INSERT INTO {qualified(*config.ledger)} ({names}) VALUES {values}"


def may_create(config: RedshiftSinkConfig) -> str:
    """Returns whether the user may create tables in the schema of the table, in one row; no row if there is no such schema."""
    return f"SELECT has_schema_privilege(nspname, 'create') FROM pg_namespace WHERE LOWER(nspname) = '{config.target[0].lower()}'"


def schema_remedy(error: str) -> str:
    """What to do about ``error``, if it is about a schema: after a semicolon, or empty."""
    if found := _NO_SCHEMA.search(error):
        return f"; create it, for example by CREATE SCHEMA {found[1]}, and grant USAGE and CREATE on it to the user that loads"
    if found := _NO_RIGHT.search(error):
        return f"; let somebody who may run GRANT USAGE, CREATE ON SCHEMA {found[1]} to the user that loads"
    return ""


def is_missing(error: str) -> bool:
    """Whether Redshift says that there is no such table."""
    return "does not exist" in error


def exists_already(error: str) -> bool:
    """Whether a table could not be created because it exists; in spite of IF NOT EXISTS, that is said if two create it at once."""
    return "already exists" in error


def positions(config: RedshiftSinkConfig, owner: Owner) -> str:
    """Returns ``shard``, ``last``: the position up to which each shard is loaded, according to the ledger."""
    return f'SELECT shard, MAX("last") FROM {qualified(*config.ledger)} WHERE {owner.condition} GROUP BY shard ORDER BY shard'


def positions_before(config: RedshiftSinkConfig, owner: Owner, cutoff: datetime) -> str:
    """Returns ``shard``, ``last``: the position up to which each shard had been loaded before ``cutoff`` (UTC)."""
    timestamp = f"TIMESTAMP {literal(cutoff.strftime('%Y-%m-%d %H:%M:%S.%f'))}"
    ledger = qualified(*config.ledger)
    return f'SELECT shard, MAX("last") FROM {ledger} WHERE {owner.condition} AND loaded_at < {timestamp} GROUP BY shard ORDER BY shard'


def load_errors(query_id: int) -> str:
    """Returns why a COPY failed, from Redshift's system view: file, line, column, message."""
    return (
        "SELECT TRIM(file_name), line_number, TRIM(column_name), TRIM(error_message) FROM sys_load_error_detail "
        f"WHERE query_id = {int(query_id)} ORDER BY start_time LIMIT 3"
    )


_TRANSIENT: Final = (
    "serializable isolation", "could not serialize", "deadlock", "connection", "timeout", "timed out", "canceled", "cancelled",
    "aborted", "disk full", "restart", "resiz", "shutting down", "starting up", "recovery mode", "too many", "slow down",
    "internal error", "not available", "unavailable", "concurrent", "paus", "maintenance", "read-only transaction", "read only mode",
    "token has expired", "expiredtoken",
)  # fmt: skip
_NAMES: Final = re.compile(
    r"""'[^']*'|"[^"]*"|\b(?:s3|https?)://\S+|\b(?:relation|table|column|schema|database|user|group|role) [\w.$-]+"""
)
"""Quoted text, URLs and names of objects. Users choose them, so a word such as "connection" or "timeout" in them says nothing."""
_CODES: Final = re.compile(r"(?:error|status)[^0-9]{0,10}(?:1023|500|503)\b")
_MISSING_FILE: Final = ("specified key", "nosuchkey")
_SETUP: Final = (
    "permission denied", "access denied", "accessdenied", "not authorized", "does not exist", "unauthorized", "invalid iam", "invalidrole",
    "password authentication", "must be owner", "forbidden", "assume role",
)  # fmt: skip


_NO_SCHEMA: Final = re.compile(r"schema (\"?[\w$-]+\"?) does not exist", re.IGNORECASE)
_NO_RIGHT: Final = re.compile(r"permission denied for schema (\"?[\w$-]+\"?)", re.IGNORECASE)
_NULL_REFUSED: Final = re.compile(r"null value (?:into|in) column \"?([\w$-]+)", re.IGNORECASE)


def remedy(table: tuple[str, str], layout: Layout | None, error: str) -> str:
    """What to do about ``error``, with which rows of ``layout`` were not moved into ``table``: after a semicolon, or empty if not known."""
    found = _NULL_REFUSED.search(error)
    column = next((each for each in layout.target if found is not None and each.name == found[1]), None) if layout is not None else None
    if column is None:
        return ""
    whole, name, new = qualified(*table), identifier(column.name), identifier(f"{column.name}_new")
    return (
        f"; the column {column.name} is NOT NULL in the table, and the pipeline has rows without a value there. Redshift cannot drop "
        f"NOT NULL from a column, so replace it: ALTER TABLE {whole} ADD COLUMN {new} {column.type}; UPDATE {whole} SET {new} = {name}; "
        f"ALTER TABLE {whole} DROP COLUMN {name}; ALTER TABLE {whole} RENAME COLUMN {new} TO {name}"
    )


def judge(step: Step | None, error: str) -> Failure:
    """What to do about a failed load, judged by the step that failed (None: unknown) and Redshift's error message."""
    message = _NAMES.sub(" ", error.lower())
    if step is Step.IN_ORDER and "zero" in message:
        return Failure.RACE
    if any(word in message for word in _MISSING_FILE):
        return Failure.DATA
    if any(word in message for word in _TRANSIENT) or _CODES.search(message):
        return Failure.TRANSIENT
    if any(word in message for word in _SETUP):
        return Failure.SETUP
    return Failure.DATA
