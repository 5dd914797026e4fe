"""Translates a Redshift table that an activity loads to the sink `redshift`: database, columns, keys, options of COPY and SQL."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, Final

from stream.datapipeline.draft import TABLE, VIEW, Draft, Refused
from stream.datapipeline.formats import Column, CopyOptions, ReadFormat, Table, copy_options, table_of
from stream.datapipeline.resolve import ResolvedObject
from stream.datapipeline.s3_nodes import add_schema, match_columns

MERGING: Final = frozenset({"KEEP_EXISTING", "OVERWRITE_EXISTING"})
MODES: Final = ("APPEND", "KEEP_EXISTING", "OVERWRITE_EXISTING", "TRUNCATE")
_HOST: Final = re.compile(
    r"jdbc:(?:redshift|postgresql)(?:\+?[a-z]*)?://(?P<name>[A-Za-z0-9-]+)\.[A-Za-z0-9.-]*?(?P<less>redshift-serverless|redshift)\.amazonaws\.com[^/]*/(?P<db>[^?;]+)"
)
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_$.]{0,126}")
_SIMPLE: Final = re.compile(r"\s*select\s+(?P<what>.+?)\s+from\s+\"?staging\"?(?P<rest>\s+where\s.+?)?\s*;?\s*", re.IGNORECASE | re.DOTALL)
_MANY: Final = re.compile(
    r"\b(distinct|join|union|group|having|order|limit|over|except|intersect|select|count|sum|max|min|avg)\b", re.IGNORECASE
)


def load_into(draft: Draft, node: ResolvedObject, reading: ReadFormat) -> None:
    """Make the table of ``node`` the sink of the draft. ``reading``: how the rows are read.

    Raises:
        Refused: the table cannot be loaded.
    """
    copy = options_of_copy(draft, reading)
    created = _created(draft, node)
    columns = reading.columns or (created.columns if created is not None else ())
    if not columns:
        msg = (
            f"the definition does not name the columns of `{draft.activity.slot('input').ids[0]}`: give it a dataFormat with `column`, or "
            f"give `{node.id}` a createTableSql with every column, and import again"
        )
        raise Refused(msg)
    mode = draft.fixed_text(draft.activity, "insertMode").upper() or "APPEND"
    if mode not in MODES:
        msg = f"`insertMode` of `{draft.activity.id}` is {mode!r}; allowed: {', '.join(MODES)}. Correct it, and import again"
        raise Refused(msg)
    keys = _keys(draft, node, created, columns)
    if mode in MERGING and not keys:
        msg = (
            f"`insertMode` {mode} merges rows by a key, but neither `primaryKeys` nor createTableSql of `{node.id}` names one: add "
            "primaryKeys, and import again"
        )
        raise Refused(msg)
    transformed = _transform(draft)
    table = created.columns if created is not None else columns
    add_schema(draft, replace(reading, columns=columns))
    sink = _target(draft, node, copy)
    _mode(draft, mode, keys, node, sink)
    if reading.columns and table != columns and not transformed:
        match_columns(draft, table, node.slot("createTableSql"), "the table")
    types = {each.name: f"varchar({each.max_bytes})" for each in table if each.max_bytes and each.type == "string"}
    if types and (transformed or len(table) == len(columns)):
        sink["types"] = types
    draft.to_do(
        draft.activity.slot("queue"),
        "the loader does not choose a queue: assign the sink's `db_user` to one, through a user group in the WLM configuration",
    )
    draft.sink = {"redshift": sink}


def options_of_copy(draft: Draft, reading: ReadFormat) -> CopyOptions:
    """Translate `commandOptions`, and note what becomes of each option."""
    slot = draft.activity.slot("commandOptions")
    made = copy_options(draft.fixed_texts(draft.activity, "commandOptions"), reading)
    node = draft.definition.one(draft.activity.slot("input"))
    if node is not None and node.has("dataFormat"):
        draft.not_needed(slot, "AWS Data Pipeline ignored these options, because the input has a dataFormat")
        return CopyOptions(reading, made.role)
    for each in made.handled:
        draft.not_needed(slot, each)
    for each in made.to_do:
        draft.to_do(slot, each)
        draft.suspended = draft.suspended or not each.startswith("MAXERROR")  # all other options change rows
    return made


def _created(draft: Draft, node: ResolvedObject) -> Table | None:
    slot = node.slot("createTableSql")
    if not slot.values:
        return None
    statement = draft.fixed_text_or_empty(node, "createTableSql")
    found = table_of(statement)
    if statement:
        draft.files[TABLE] = statement.rstrip().rstrip(";") + ";\n"
        draft.to_do(slot, f"stream does not create the table (`create: false`): run {TABLE} once, before the first run")
    return found


def _keys(draft: Draft, node: ResolvedObject, created: Table | None, columns: tuple[Column, ...]) -> tuple[str, ...]:
    """The columns of the key, spelled as in the table."""
    named = [key.strip() for each in draft.fixed_texts(node, "primaryKeys") for key in each.split(",") if key.strip()]
    table = created.columns if created is not None else columns
    written = {each.name.lower(): each.name for each in table}
    return tuple(written.get(key.lower(), key) for key in named or (created.keys if created is not None else ()))


def _target(draft: Draft, node: ResolvedObject, copy: CopyOptions) -> dict[str, Any]:
    table = draft.text(node, "tableName")
    database = draft.definition.one(node.slot("database"))
    if table is None or database is None or database.type != "RedshiftDatabase":
        missing = "tableName" if table is None else "a database of the type RedshiftDatabase"
        msg = f"`{node.id}` has no {missing}; add it, and import again"
        raise Refused(msg)
    schema = draft.text(node, "schemaName")
    named = table.render(draft.run_times)
    sink: dict[str, Any] = {"staging": "", "table": f"{schema.render(draft.run_times)}.{named}" if schema is not None else named}
    draft.taken_over(node.slot("tableName"), "sinks: redshift.table")
    draft.taken_over(node.slot("schemaName"), "sinks: redshift.table")
    draft.taken_over(node.slot("database"), "sinks: redshift.database")
    sink |= _database(draft, database)
    sink["iam_role"] = copy.role or "${COPY_ROLE:-default}"
    if not copy.role:
        draft.not_needed(
            draft.activity.slot("resourceRole"),
            "COPY reads with `iam_role`: the default role of the cluster, or the role in the environment variable COPY_ROLE; `stream iam "
            "--role redshift-copy` prints its policy",
        )
    if node.has("createTableSql"):
        sink["create"] = False
    return sink


def _database(draft: Draft, database: ResolvedObject) -> dict[str, Any]:
    """The options `database`, `cluster` or `workgroup`, and `db_user`.

    No password is needed: the loader gets temporary credentials from IAM.
    """
    link = draft.fixed_text(database, "connectionString")
    found = _HOST.match(link)
    name = draft.text(database, "databaseName")
    sink: dict[str, Any] = {"database": name.render(draft.run_times) if name is not None else found["db"] if found else ""}
    cluster = draft.text(database, "clusterId")
    kind = "workgroup" if found is not None and found["less"] != "redshift" else "cluster"
    if cluster is None and found is None:
        msg = (
            f"`{database.id}` names no cluster: add clusterId, or a connectionString such as "
            "jdbc:redshift://NAME....redshift.amazonaws.com:5439/DB"
        )
        raise Refused(msg)
    # Redshift stores cluster identifiers in lower case, whatever the user typed.
    sink[kind] = cluster.lower().render(draft.run_times) if cluster is not None else found["name"].lower() if found else ""
    if not sink["database"]:
        msg = f"`{database.id}` has no databaseName; add it, and import again"
        raise Refused(msg)
    for field in ("clusterId", "connectionString"):
        draft.taken_over(database.slot(field), f"sinks: redshift.{kind}")
    draft.taken_over(database.slot("databaseName"), "sinks: redshift.database")
    user = draft.text(database, "username")
    if user is not None and kind == "cluster":
        sink["db_user"] = user.render(draft.run_times)
        draft.taken_over(database.slot("username"), "sinks: redshift.db_user")
        draft.to_do(
            database.slot("*password"),
            "not needed, and never written to a file: `db_user` logs in with temporary credentials from IAM; change the password, "
            "because the definition file contained it",
        )
    elif user is not None:
        draft.not_needed(
            database.slot("username"), "in a workgroup, the IAM role of the worker is the database user; `secret_arn` can name another"
        )
    return sink


def _mode(draft: Draft, mode: str, keys: tuple[str, ...], node: ResolvedObject, sink: dict[str, Any]) -> None:
    """Set the sink's mode, which is always `append`.

    `upsert` keeps the row with the greatest sequence number. For rows from objects that number is a place in an object, not a time, so that
    a view picks the first or last row of a key instead.
    """
    slot = draft.activity.slot("insertMode")
    sink["mode"] = "append"
    draft.taken_over(slot, "sinks: redshift.mode")
    if mode not in MERGING:
        draft.not_needed(node.slot("primaryKeys"), "rows are appended, whatever their keys")
    else:
        name, statement = _view(draft, mode, keys, node)
        draft.files[VIEW] = statement
        draft.taken_over(node.slot("primaryKeys"), "PARTITION BY", VIEW)
        which = "last" if mode == "OVERWRITE_EXISTING" else "first"
        draft.to_do(
            slot,
            f"rows are always appended; the view `{name}` has the {which} row of each key: create it with {VIEW}, and let queries use the "
            "view",
        )
    if mode == "TRUNCATE":
        draft.to_do(slot, "stream appends rows and never empties the table: run TRUNCATE in an Airflow task before each load")
    draft.suspended = draft.suspended or mode != "APPEND"


def _view(draft: Draft, mode: str, keys: tuple[str, ...], node: ResolvedObject) -> tuple[str, str]:
    """The name of the view with one row per key, and the statement that creates it. Rows loaded before the migration have no `_arrival`."""
    names = [each for each in (draft.fixed_text(node, "schemaName"), draft.fixed_text(node, "tableName")) if each]
    if not all(_NAME.fullmatch(each) for each in (*names, *keys)):
        msg = f"the table or a key of `{node.id}` has a name that Redshift only takes in quotes; rename it, and import again"
        raise Refused(msg)
    table = ".".join(names)
    is_last = mode == "OVERWRITE_EXISTING"
    view = f"{table}_{'last' if is_last else 'first'}"
    # S3 tells times of objects in whole seconds. Of objects with the same time, later shards hold those that were listed later.
    order = (
        "_arrival DESC NULLS LAST, _shard DESC, LENGTH(_sequence) DESC, _sequence DESC"
        if is_last
        else "_arrival NULLS FIRST, _shard, LENGTH(_sequence), _sequence"
    )
    of_each = ", ".join(f'"{each.lower()}"' for each in keys)
    numbered = f"SELECT *, ROW_NUMBER() OVER (PARTITION BY {of_each} ORDER BY {order}) AS place FROM {table}"  # noqa: S608 - a file, not run
    return view, f"CREATE VIEW {view} AS SELECT * FROM ({numbered}) AS numbered WHERE place = 1;\n"  # noqa: S608


def _transform(draft: Draft) -> bool:
    """Make `transformSql` a stage if it looks at one row at a time. Returns whether it did."""
    slot = draft.activity.slot("transformSql")
    if not slot.values:
        return False
    statement = draft.fixed_text_or_empty(draft.activity, "transformSql")
    found = _SIMPLE.fullmatch(statement)
    if found is None or _MANY.search(found["what"] + " " + (found["rest"] or "")):
        if statement:
            draft.to_do(
                slot,
                "it looks at more than one row, or cannot be understood: write it as stages, or as a view over the table, before the "
                "first run",
            )
        draft.suspended = True
        return False
    what = found["what"]
    columns = what if what.strip() == "*" else f"_row, {what}"
    query = f"SELECT {columns} FROM batch AS staging{found['rest'] or ''}"  # noqa: S608 - Polars runs it over one batch
    draft.unverified_stages.append((slot, {"sql": {"query": query}}))
    draft.to_do(
        slot,
        "name its columns like those of the table, with AS: stream matches columns by name, where AWS Data Pipeline matched them by "
        "position",
    )
    return True
