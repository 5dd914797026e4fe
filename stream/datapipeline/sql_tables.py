"""Suggests an `enrich` stage for each table of a PostgreSQL database, as a reference table."""

from __future__ import annotations

import re
from typing import Final

from stream.datapipeline.evaluated_text import Untranslatable
from stream.datapipeline.expressions import Scope, evaluated
from stream.datapipeline.fields import FieldNotes
from stream.datapipeline.resolve import Definition, ResolvedObject

_POSTGRESQL: Final = re.compile(r"jdbc:postgresql://(?P<place>[A-Za-z0-9.-]+(?::\d{1,5})?/[A-Za-z0-9_-]+)(?:[?;].*)?")


def suggest_enrich_stages(definition: Definition, fields: FieldNotes) -> None:
    """Note, for each table of a PostgreSQL database, the stage that joins records with the table."""
    for obj in definition.objects.values():
        if obj.type != "SqlDataNode":
            continue
        slot = obj.slot("selectQuery") if obj.has("selectQuery") else obj.slot("table")
        place, query = _place(definition, obj), _query(definition, obj)
        if place and query:
            fields.to_do(
                slot,
                "to join records with this table, add the stage `enrich: {"
                f'table: "postgresql://{place}", query: "{query}", login: {{secrets_manager: NAME}}, on: KEY, take: [COLUMN]}}`; '
                "to read it as a source, let AWS DMS send it to a Kinesis stream (`stream init --template dms-cdc`)",
            )


def _place(definition: Definition, obj: ResolvedObject) -> str:
    database = definition.one(obj.slot("database"))
    if database is not None and database.type == "RdsDatabase":
        name = _plain(definition, database, "databaseName")
        return f"HOST/{name}" if re.fullmatch(r"[A-Za-z0-9_-]+", name) else ""
    found = _POSTGRESQL.fullmatch(_plain(definition, obj if database is None else database, "connectionString"))
    return found["place"] if found else ""


def _query(definition: Definition, obj: ResolvedObject) -> str:
    query = _plain(definition, obj, "selectQuery")
    if query:
        return " ".join(query.replace('"', '\\"').split())
    names = [each for each in (_plain(definition, obj, "schemaName"), _plain(definition, obj, "table")) if each]
    table = ".".join(names)
    return f"SELECT * FROM {table}" if re.fullmatch(r"[A-Za-z0-9_.]+", table) and obj.has("table") else ""  # noqa: S608 - shown, not run


def _plain(definition: Definition, obj: ResolvedObject, name: str) -> str:
    """The value of a field; empty if it has none, or none that is known before a run."""
    try:
        return evaluated(obj.slot(name).text, Scope(definition, obj)).plain.strip()
    except Untranslatable:
        return ""
