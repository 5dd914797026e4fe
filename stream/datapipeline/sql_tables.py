"""Tables of SQL databases as reference tables: the `enrich` stage that reads one, for the report."""

from __future__ import annotations

import re
from typing import Final

from stream.datapipeline.evaluated_text import Untranslatable
from stream.datapipeline.expressions import Scope, evaluated
from stream.datapipeline.fields import Fields
from stream.datapipeline.resolve import Definition, Thing

_POSTGRESQL: Final = re.compile(r"jdbc:postgresql://(?P<place>[A-Za-z0-9.-]+(?::\d{1,5})?/[A-Za-z0-9_-]+)(?:[?;].*)?")


def suggest(definition: Definition, fields: Fields) -> None:
    """Note for each table of a PostgreSQL database which stage joins records with it."""
    for thing in definition.things.values():
        if thing.type != "SqlDataNode":
            continue
        slot = thing.slot("selectQuery") if thing.has("selectQuery") else thing.slot("table")
        place, query = _place(definition, thing), _query(definition, thing)
        if place and query:
            fields.open(
                slot,
                "to join records with this table, add the stage `enrich: {"
                f'table: "postgresql://{place}", query: "{query}", login: {{secrets_manager: NAME}}, on: KEY, take: [COLUMN]}}`; '
                "to read it as a source, let AWS DMS send it to a Kinesis stream (`stream init --template dms-cdc`)",
            )


def _place(definition: Definition, thing: Thing) -> str:
    database = definition.one(thing.slot("database"))
    if database is not None and database.type == "RdsDatabase":
        name = _plain(definition, database, "databaseName")
        return f"HOST/{name}" if re.fullmatch(r"[A-Za-z0-9_-]+", name) else ""
    found = _POSTGRESQL.fullmatch(_plain(definition, thing if database is None else database, "connectionString"))
    return found["place"] if found else ""


def _query(definition: Definition, thing: Thing) -> str:
    query = _plain(definition, thing, "selectQuery")
    if query:
        return " ".join(query.replace('"', '\\"').split())
    names = [each for each in (_plain(definition, thing, "schemaName"), _plain(definition, thing, "table")) if each]
    table = ".".join(names)
    return f"SELECT * FROM {table}" if re.fullmatch(r"[A-Za-z0-9_.]+", table) and thing.has("table") else ""  # noqa: S608 - shown, not run


def _plain(definition: Definition, thing: Thing, name: str) -> str:
    """The field's text; empty if it has none before a run."""
    try:
        return evaluated(thing.slot(name).text, Scope(definition, thing)).plain.strip()
    except Untranslatable:
        return ""
