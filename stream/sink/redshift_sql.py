"""Every statement that the loader sends to Redshift, as text. Pure: equal loads give equal statements.

One load is one transaction (BatchExecuteStatement): lock the load ledger, make sure that each shard goes on exactly where the ledger
says it ended, copy the files into a temporary table, count its rows, move them to the target, write the ledger. Redshift enforces no
unique key, so what rules out a second load is the look at the ledger under its lock, in the transaction that writes it.
"""

# ruff: noqa: S608 - names and texts pass redshift_names.py before they stand in a statement
from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from stream.sink.layouts import Column, Layout
from stream.sink.loads import Failure, Link, Load
from stream.sink.redshift import Evolve, RedshiftSinkConfig
from stream.sink.redshift_names import check_name, identifier, literal, qualified
from stream.sink.redshift_types import SEQUENCE_BYTES
from stream.sink.redshift_upsert import STAGED, upsert, value_of

MAX_STATEMENTS: Final = 40
"""Of one BatchExecuteStatement (Redshift Data API)."""
MAX_STATEMENT_BYTES: Final = 100_000
ROWS_BYTES: Final = 90_000
"""Of values in one INSERT; the rest is room for its head."""

INCOMING: Final = '"stream_incoming"'
_ORIGIN: Final = "0" * SEQUENCE_BYTES
_LEDGER_COLUMNS: Final = (
    ("application", "varchar(128)"),
    ("stream", "varchar(128)"),
    ("shard", "varchar(128)"),
    ("after", f"varchar({SEQUENCE_BYTES})"),
    ("last", f"varchar({SEQUENCE_BYTES})"),
    ("links", "integer"),
    ("rows", "bigint"),
    ("load_id", "varchar(64)"),
    ("loaded_at", "timestamp"),
)


class Step(StrEnum):
    """What a statement of a load is for; a failure is judged by the step that failed."""

    LOCK = "lock"
    LEDGER = "ledger"
    IN_ORDER = "in_order"
    STAGE = "stage"
    COPY = "copy"
    COUNT = "count"
    MOVE = "move"
    CLEAN = "clean"


@dataclass(frozen=True, slots=True)
class Whose:
    """Whose units a ledger row is about."""

    application: str
    stream: str

    @property
    def condition(self) -> str:
        """On ledger rows."""
        return f"application = {literal(self.application)} AND stream = {literal(self.stream)}"


def padded(position: int) -> str:
    """A sequence number as text that sorts like a number."""
    return f"{position:0{SEQUENCE_BYTES}d}"


def load_id(whose: Whose, config: RedshiftSinkConfig, load: Load) -> str:
    """32 hex digits that name a load by what it loads and where to."""
    parts = [whose.application, whose.stream, *config.target, *(f"{link.shard}:{link.after}:{link.last}" for link in load.links)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def copy_manifest(load: Load) -> bytes:
    """The manifest that COPY is given: each file must be there, with its exact size."""
    entries = [{"url": file.url, "mandatory": True, "meta": {"content_length": file.size}} for file in load.files]
    return json.dumps({"entries": entries}, separators=(",", ":")).encode()


def load_statements(config: RedshiftSinkConfig, whose: Whose, load: Load, manifest_url: str, now: datetime) -> tuple[tuple[Step, str], ...]:
    """The transaction of ``load``, each statement with what it is for; ``manifest_url`` holds ``copy_manifest(load)``.

    Raises:
        ValueError: it does not fit the limits of the Data API; ask for fewer units.
    """
    ledger, name = qualified(*config.ledger), load_id(whose, config, load)
    columns = ", ".join(f"{identifier(column)} {kind}" for column, kind in _LEDGER_COLUMNS)
    names = ", ".join(identifier(column) for column, _ in _LEDGER_COLUMNS)
    statements: list[tuple[Step, str]] = [
        (Step.LOCK, f"LOCK TABLE {ledger}"),
        (Step.LEDGER, f"CREATE TEMP TABLE {INCOMING} ({columns})"),
        *((Step.LEDGER, f"INSERT INTO {INCOMING} ({names}) VALUES {values}") for values in _ledger_rows(whose, load, name, now)),
        (Step.IN_ORDER, _in_order(ledger, whose)),
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


def _ledger_rows(whose: Whose, load: Load, name: str, now: datetime) -> Iterator[str]:
    """VALUES lists, each short enough for one statement."""
    head = f"{literal(whose.application)}, {literal(whose.stream)}"
    stamp = f"TIMESTAMP {literal(now.strftime('%Y-%m-%d %H:%M:%S.%f'))}"
    batch: list[str] = []
    size = 0
    for link in load.links:
        row = f"({head}, {_ledger_row(link)}, {literal(name)}, {stamp})"
        if batch and size + len(row) + 2 > ROWS_BYTES:
            yield ", ".join(batch)
            batch, size = [], 0
        batch.append(row)
        size += len(row) + 2
    yield ", ".join(batch)


def _ledger_row(link: Link) -> str:
    return f"{literal(link.shard)}, {literal(padded(link.after))}, {literal(padded(link.last))}, {link.links}, {link.rows}"


def _in_order(ledger: str, whose: Whose) -> str:
    """Fails with a division by zero unless every shard goes on where the ledger ends; so no unit can be there already."""
    return (
        "SELECT 1 / CASE WHEN COUNT(*) = 0 THEN 1 ELSE 0 END "
        f'FROM (SELECT shard, MIN("after") AS begins FROM {INCOMING} GROUP BY shard) AS i '
        f'LEFT JOIN (SELECT shard, MAX("last") AS loaded FROM {ledger} WHERE {whose.condition} GROUP BY shard) AS l ON l.shard = i.shard '
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
    """The load ledger's table, if it is missing."""
    columns = ", ".join(f"{identifier(column)} {kind} NOT NULL" for column, kind in _LEDGER_COLUMNS)
    return f"CREATE TABLE IF NOT EXISTS {qualified(*config.ledger)} ({columns})"


def create_table(table: tuple[str, str], layout: Layout) -> str:
    """A table (schema, name) with the columns that ``layout`` has for one, if it is missing."""
    return f"CREATE TABLE IF NOT EXISTS {qualified(*table)} ({_columns(layout.target, staged=False)})"


def describe_table(table: tuple[str, str]) -> str:
    """A query without rows whose column metadata tells the columns of a table (schema, name)."""
    return f"SELECT * FROM {qualified(*table)} WHERE 1 = 0"


def positions(config: RedshiftSinkConfig, whose: Whose) -> str:
    """``shard``, ``last``: up to where each shard is loaded, by the ledger."""
    return f'SELECT shard, MAX("last") FROM {qualified(*config.ledger)} WHERE {whose.condition} GROUP BY shard ORDER BY shard'


def positions_before(config: RedshiftSinkConfig, whose: Whose, cutoff: datetime) -> str:
    """``shard``, ``last``: up to where each shard had been loaded by ``cutoff`` (UTC)."""
    stamp = f"TIMESTAMP {literal(cutoff.strftime('%Y-%m-%d %H:%M:%S.%f'))}"
    ledger = qualified(*config.ledger)
    return f'SELECT shard, MAX("last") FROM {ledger} WHERE {whose.condition} AND loaded_at < {stamp} GROUP BY shard ORDER BY shard'


def load_errors(query_id: int) -> str:
    """Why a COPY failed, in the words of the system view."""
    return (
        "SELECT TRIM(file_name), line_number, TRIM(column_name), TRIM(error_message) FROM sys_load_error_detail "
        f"WHERE query_id = {int(query_id)} ORDER BY start_time LIMIT 3"
    )


@dataclass(frozen=True, slots=True)
class Found:
    """A column of the table as it is: its type's name in the Data API's metadata, and its length in bytes (0: none)."""

    name: str
    type: str
    length: int


_FAMILIES: Final[Mapping[str, frozenset[str]]] = {
    "boolean": frozenset({"bool", "boolean"}),
    "smallint": frozenset({"int2", "smallint", "int4", "integer", "int8", "bigint", "numeric", "decimal"}),
    "integer": frozenset({"int4", "integer", "int8", "bigint", "numeric", "decimal", "float8"}),
    "bigint": frozenset({"int8", "bigint", "numeric", "decimal"}),
    "real": frozenset({"float4", "real", "float8"}),
    "double precision": frozenset({"float8"}),
    "decimal": frozenset({"numeric", "decimal"}),
    "date": frozenset({"date", "timestamp", "timestamptz"}),
    "timestamp": frozenset({"timestamp", "timestamptz"}),
    "timestamptz": frozenset({"timestamptz"}),
    "varchar": frozenset({"varchar", "text", "character varying"}),
    "varbyte": frozenset({"varbyte", "binary varying", "bytea"}),
    "super": frozenset({"super", "jsonb"}),
}


@dataclass(frozen=True, slots=True)
class Evolution:
    """What makes the table fit: statements, or the problems that a person has to solve."""

    statements: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def evolve(config: RedshiftSinkConfig, table: tuple[str, str], layout: Layout, found: Sequence[Found]) -> Evolution:
    """How a table (schema, name) with the columns ``found`` can take rows of ``layout``.

    Only columns are ever added, and only if the policy says so.
    """
    there = {column.name: column for column in found}
    statements, problems = [], []
    for column in layout.target:
        if column.name not in there:
            addition = f"ALTER TABLE {qualified(*table)} ADD COLUMN {identifier(column.name)} {column.type}"
            if config.evolve is Evolve.ADD:
                statements.append(addition)
            else:
                problems.append(f"there is no column {column.name}, and `evolve: halt` adds none; run: {addition}")
        elif problem := _misfit(column, there[column.name], config.types.get(column.name, column.type)):
            problems.append(problem)
    return Evolution(tuple(statements), tuple(problems))


def _misfit(column: Column, found: Found, now: str) -> str:
    """``now``: the type that the pipeline of today gives the column. Units sealed before may have a wider one, whose values may fit."""
    base, size = column.type.partition("(")[0], now.partition("(")[2]
    if found.type.lower() not in _FAMILIES[base]:
        return (
            f"column {found.name} is {found.type} in the table and {column.type} in the pipeline; if somebody changed the table, give "
            f"the column the type {column.type} again (add one, copy the values, drop the old one, rename), "
            "otherwise cast it in a stage, or use `types`"
        )
    if base in {"varchar", "varbyte"} and 0 < found.length < int(size.removesuffix(")") or 0):
        return (
            f"column {found.name} is {base}({found.length}) in the table and {column.type} in the pipeline; write "
            f"`types: {{{check_name(found.name)}: {base}({found.length})}}`, or widen the table's column"
        )
    return ""


_TRANSIENT: Final = (
    "serializable isolation", "could not serialize", "deadlock", "connection", "timeout", "timed out", "canceled", "cancelled",
    "aborted", "disk full", "restart", "resiz", "shutting down", "too many", "slow down", "internal error", "not available",
    "concurrent",
)  # fmt: skip
_NAMES: Final = re.compile(
    r"""'[^']*'|"[^"]*"|\b(?:s3|https?)://\S+|\b(?:relation|table|column|schema|database|user|group|role) [\w.$-]+"""
)
"""What Redshift calls by its name is somebody's choice, such as a table of connections or a column of timeouts."""
_CODES: Final = re.compile(r"(?:error|status)[^0-9]{0,10}(?:1023|500|503)\b")
_GONE: Final = ("specified key", "nosuchkey")
_SETUP: Final = (
    "permission denied", "access denied", "accessdenied", "not authorized", "does not exist", "unauthorized", "invalid iam", "invalidrole",
    "password authentication", "must be owner", "forbidden", "assume role",
)  # fmt: skip


def judge(step: Step | None, error: str) -> Failure:
    """What a failed load calls for, from the step that failed (None: unknown) and Redshift's words."""
    said = _NAMES.sub(" ", error.lower())
    if step is Step.IN_ORDER and "zero" in said:
        return Failure.RACE
    if any(word in said for word in _GONE):
        return Failure.DATA
    if any(word in said for word in _TRANSIENT) or _CODES.search(said):
        return Failure.TRANSIENT
    if any(word in said for word in _SETUP):
        return Failure.SETUP
    return Failure.DATA
