"""A table of Redshift as a pipeline's sink: the database, the mode of loading, keys, and what runs in COPY and behind it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

from stream.datapipeline.draft import TABLE, Draft, Refused
from stream.datapipeline.formats import Column, CopyOptions, Reading, Table, copy_options, table_of
from stream.datapipeline.places import match_columns, shape
from stream.datapipeline.resolve import Thing

MERGING: Final = frozenset({"KEEP_EXISTING", "OVERWRITE_EXISTING"})
MODES: Final = ("APPEND", "KEEP_EXISTING", "OVERWRITE_EXISTING", "TRUNCATE")
_HOST: Final = re.compile(
    r"jdbc:(?:redshift|postgresql)(?:\+?[a-z]*)?://(?P<name>[A-Za-z0-9-]+)\.[A-Za-z0-9.-]*?(?P<less>redshift-serverless|redshift)\.amazonaws\.com[^/]*/(?P<db>[^?;]+)"
)
_SIMPLE: Final = re.compile(r"\s*select\s+(?P<what>.+?)\s+from\s+\"?staging\"?(?P<rest>\s+where\s.+?)?\s*;?\s*", re.IGNORECASE | re.DOTALL)
_MANY: Final = re.compile(
    r"\b(distinct|join|union|group|having|order|limit|over|except|intersect|select|count|sum|max|min|avg)\b", re.IGNORECASE
)


def load_into(draft: Draft, node: Thing, reading: Reading) -> None:
    """Make the table of ``node`` the draft's sink, for rows as ``reading`` gives them.

    Raises:
        Refused: it cannot be loaded.
    """
    copy = options_of_copy(draft, reading)
    created = _created(draft, node)
    columns = reading.columns or (created.columns if created is not None else ())
    if not columns:
        msg = (
            f"the columns of what `{draft.activity.slot('input').ids[0]}` holds are named nowhere: give it a dataFormat with `column`, or "
            f"`{node.id}` a createTableSql with every column, and import again"
        )
        raise Refused(msg)
    mode = draft.plain(draft.activity, "insertMode").upper() or "APPEND"
    if mode not in MODES:
        msg = f"`insertMode` of `{draft.activity.id}` is {mode!r}; known: {', '.join(MODES)}"
        raise Refused(msg)
    keys = _keys(draft, node, created, columns)
    if mode in MERGING and not keys:
        msg = (
            f"`insertMode` {mode} merges by a key, and neither `primaryKeys` nor a createTableSql of `{node.id}` names one: write "
            "primaryKeys, and import again"
        )
        raise Refused(msg)
    merges = mode in MERGING or (mode == "TRUNCATE" and bool(keys))
    shape(draft, replace(reading, columns=columns), keys if merges else ())
    sink = _target(draft, node, copy)
    _mode(draft, mode, keys, sink)
    if created is not None and reading.columns and created.columns != reading.columns:
        match_columns(draft, created.columns, node.slot("createTableSql"), "the table")
        sink["keys"] = [_as_written(each, created.columns) for each in sink.get("keys", ())]
    if not sink.get("keys"):
        sink.pop("keys", None)
    types = {each.name: f"varchar({each.wide})" for each in draft.columns if each.wide and each.type == "string"}
    if types:
        sink["types"] = types
    _transform(draft)
    draft.open(
        draft.activity.slot("queue"), "loads have no queue of their own: assign the sink's `db_user` to one, by a user group of the WLM"
    )
    draft.sink = {"redshift": sink}


def options_of_copy(draft: Draft, reading: Reading) -> CopyOptions:
    """What `commandOptions` say; notes are made of them."""
    slot = draft.activity.slot("commandOptions")
    made = copy_options(draft.plains(draft.activity, "commandOptions"), reading)
    node = draft.definition.one(draft.activity.slot("input"))
    if node is not None and node.has("dataFormat"):
        draft.unneeded(slot, "the service ignored them, since the input has a dataFormat")
        return CopyOptions(reading, made.role)
    for each in made.fine:
        draft.unneeded(slot, each)
    for each in made.open:
        draft.open(slot, each)
    return made


def _created(draft: Draft, node: Thing) -> Table | None:
    slot = node.slot("createTableSql")
    if not slot.values:
        return None
    statement = draft.soft(node, "createTableSql")
    found = table_of(statement)
    if statement:
        draft.files[TABLE] = statement.rstrip().rstrip(";") + ";\n"
        draft.open(slot, f"the table is not made (`create: false`): run {TABLE} once, before the first run")
    return found


def _keys(draft: Draft, node: Thing, created: Table | None, columns: tuple[Column, ...]) -> tuple[str, ...]:
    named = [key.strip() for each in draft.plains(node, "primaryKeys") for key in each.split(",") if key.strip()]
    keys = named or (list(created.keys) if created is not None else [])
    of_table = created.columns if created is not None and len(created.columns) == len(columns) else columns
    places = {each.name.lower(): at for at, each in enumerate(of_table)}
    return tuple(columns[places[key.lower()]].name if key.lower() in places else _as_written(key, columns) for key in keys)


def _as_written(key: str, columns: Iterable[Column]) -> str:
    return next((each.name for each in columns if each.name.lower() == key.lower()), key)


def _target(draft: Draft, node: Thing, copy: CopyOptions) -> dict[str, Any]:
    table = draft.text(node, "tableName")
    database = draft.definition.one(node.slot("database"))
    if table is None or database is None or database.type != "RedshiftDatabase":
        missing = "tableName" if table is None else "a database of the type RedshiftDatabase"
        msg = f"`{node.id}` has no {missing}; add it, and import again"
        raise Refused(msg)
    schema = draft.text(node, "schemaName")
    named = table.render(draft.needs)
    sink: dict[str, Any] = {"staging": "", "table": f"{schema.render(draft.needs)}.{named}" if schema is not None else named}
    draft.taken(node.slot("tableName"), "sinks: redshift.table")
    draft.taken(node.slot("schemaName"), "sinks: redshift.table")
    draft.taken(node.slot("database"), "sinks: redshift.database")
    sink |= _database(draft, database)
    sink["iam_role"] = copy.role or "${COPY_ROLE:-default}"
    if not copy.role:
        draft.unneeded(
            draft.activity.slot("resourceRole"),
            "COPY reads by `iam_role`: the default role of the cluster, unless COPY_ROLE names another, `stream iam --role redshift-copy`",
        )
    if node.has("createTableSql"):
        sink["create"] = False
    return sink


def _database(draft: Draft, database: Thing) -> dict[str, Any]:
    """`database`, `cluster` or `workgroup`, and `db_user`. Passwords have no use: the loader asks IAM for a login that lasts minutes."""
    link = draft.plain(database, "connectionString")
    found = _HOST.match(link)
    name = draft.text(database, "databaseName")
    sink: dict[str, Any] = {"database": name.render(draft.needs) if name is not None else found["db"] if found else ""}
    cluster = draft.text(database, "clusterId")
    kind = "workgroup" if found is not None and found["less"] != "redshift" else "cluster"
    if cluster is None and found is None:
        msg = f"`{database.id}` names no cluster: write clusterId, or a connectionString like jdbc:redshift://NAME....redshift.amazonaws.com:5439/DB"
        raise Refused(msg)
    # Redshift keeps names of clusters in small letters, whatever a user wrote.
    sink[kind] = cluster.small().render(draft.needs) if cluster is not None else found["name"].lower() if found else ""
    if not sink["database"]:
        msg = f"`{database.id}` has no databaseName; write it, and import again"
        raise Refused(msg)
    for field in ("clusterId", "connectionString"):
        draft.taken(database.slot(field), f"sinks: redshift.{kind}")
    draft.taken(database.slot("databaseName"), "sinks: redshift.database")
    user = draft.text(database, "username")
    if user is not None and kind == "cluster":
        sink["db_user"] = user.render(draft.needs)
        draft.taken(database.slot("username"), "sinks: redshift.db_user")
        draft.open(
            database.slot("*password"), "not written out, and not needed: IAM lends `db_user` a login; change it, since it stood in a file"
        )
    elif user is not None:
        draft.unneeded(database.slot("username"), "the role of the worker is the user of a workgroup; `secret_arn` names another")
    return sink


def _mode(draft: Draft, mode: str, keys: tuple[str, ...], sink: dict[str, Any]) -> None:
    slot = draft.activity.slot("insertMode")
    node = draft.definition.one(draft.activity.slot("output"))
    primary = node.slot("primaryKeys") if node is not None else slot
    draft.taken(slot, "sinks: redshift.mode")
    sink["mode"] = "upsert" if mode in MERGING or (mode == "TRUNCATE" and keys) else "append"
    if sink["mode"] == "upsert":
        sink["keys"] = list(keys)
        draft.taken(primary, "sinks: redshift.keys")
    else:
        draft.unneeded(primary, "rows are appended, whatever their keys")
    if mode == "KEEP_EXISTING":
        draft.open(
            slot,
            "`upsert` keeps the last row of a key, where KEEP_EXISTING kept the first: load only if later rows may replace earlier ones",
        )
        draft.held = True
    if mode == "TRUNCATE":
        draft.open(
            slot,
            "the table is never emptied: rows are "
            + ("merged by key, and those that the source no longer has stay" if keys else "appended")
            + "; let a task of Airflow run TRUNCATE before, or load into a table of its own",
        )
        draft.held = True


def _transform(draft: Draft) -> None:
    """`transformSql` as a stage, if it changes rows one by one."""
    slot = draft.activity.slot("transformSql")
    if not slot.values:
        return
    statement = draft.soft(draft.activity, "transformSql")
    found = _SIMPLE.fullmatch(statement)
    if found is None or _MANY.search(found["what"] + " " + (found["rest"] or "")):
        if statement:
            draft.open(
                slot,
                "it looks at more than one row, or cannot be read: write it as stages, or as a view over the table, before the first run",
            )
        draft.held = True
        return
    what = found["what"]
    columns = what if what.strip() == "*" else f"_row, {what}"
    query = f"SELECT {columns} FROM batch AS staging{found['rest'] or ''}"  # noqa: S608 - Polars runs it over one batch
    draft.doubtful.append((slot, {"sql": {"query": query}}))
