"""``stream ddl``: CREATE TABLE statements for what a pipeline's sinks write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Annotated, Final

import typer

from stream.cli.loading import libraries_wanted
from stream.cli.options import File
from stream.errors import DefinitionError, StreamError

if libraries_wanted():
    import polars as pl

    from stream import watchdog
    from stream.cli.explain import EXIT_DEFINITION, checked
    from stream.pipeline.model import Pipeline
    from stream.pipeline.plan import local_resources, output_schema
    from stream.pipeline.resources.fetching import parse_table
    from stream.sink.athena import Statement, external_table
    from stream.sink.iceberg import IcebergSinkConfig
    from stream.sink.objects import ObjectsSinkConfig, SinkConfig
    from stream.sink.redshift import RedshiftSinkConfig
    from stream.sink.redshift_sql import create_ledger, create_table
    from stream.sink.redshift_upsert import deleted_layout, needs_deleted_keys
    from stream.transform.stage import Resources, SchemaMismatch
    from stream.worker.opening.places import read_object, session_of

SINCE: Final = "2020-01-01"


def ddl(
    file: File,
    sink: Annotated[str | None, typer.Option("--sink", help="Only this sink.", show_default="all of them")] = None,
    table: Annotated[
        str | None,
        typer.Option("--table", help="Name of the table of an s3 sink, as database.table.", show_default="default.<application>"),
    ] = None,
    since: Annotated[str, typer.Option("--since", help="First day of the projected range of time partitions.")] = SINCE,
) -> None:
    """Print CREATE TABLE statements for what the sinks write: for Athena over `s3` sinks, for Redshift over `redshift` sinks.

    Creates nothing. Notes about a table, such as a column name that Athena lowercases, go to standard error. Reads reference tables if
    columns depend on them, and nothing else.

    Exit code 0: printed; 2: no such table is possible, or the command is wrong.
    """
    try:
        first = date.fromisoformat(since)
    except ValueError as error:
        msg = f"--since {since}: write a day as {SINCE}"
        raise typer.BadParameter(msg) from error
    try:
        pipeline = checked(file)
        chosen = _chosen(pipeline, sink)
        if table is not None and len([each for each in chosen if isinstance(each, ObjectsSinkConfig)]) != 1:
            msg = "--table names the table of one s3 sink; choose it with --sink"
            raise DefinitionError(msg)
        schema = output_schema(pipeline, _resources(pipeline, file.parent))
        statements = [each for config in chosen for each in _statements(config, schema, table or _name(pipeline, config), first)]
    except (StreamError, SchemaMismatch) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(EXIT_DEFINITION) from error
    for each in statements:
        for note in each.notes:
            typer.echo(f"note: {note}", err=True)
        if each.text:
            typer.echo(f"{each.text};\n")


def _chosen(pipeline: Pipeline, sink: str | None) -> Sequence[SinkConfig]:
    found = [config for config in pipeline.sinks if sink in {None, config.name}]
    if not found:
        msg = f"--sink {sink}: the pipeline has {', '.join(config.name for config in pipeline.sinks)}"
        raise DefinitionError(msg)
    return found


def _name(pipeline: Pipeline, config: SinkConfig) -> str:
    """A table in Athena's database `default`, named after the application, and after the sink too if there are several."""
    several = len([each for each in pipeline.sinks if isinstance(each, ObjectsSinkConfig)]) > 1
    whole = f"{pipeline.application}_{config.name}" if several else pipeline.application
    return "default." + "".join(each if each.isalnum() else "_" for each in whole.lower())


def _statements(config: SinkConfig, schema: pl.Schema, table: str, since: date) -> list[Statement]:
    if isinstance(config, ObjectsSinkConfig):
        return [external_table(config, schema, table, since)]
    if isinstance(config, RedshiftSinkConfig):
        layout = config.layout(schema)
        tables = [(config.target, layout), *([(config.deleted_keys, deleted_layout(layout))] if needs_deleted_keys(config, layout) else [])]
        return [Statement(create_ledger(config)), *(Statement(create_table(*each)) for each in tables)]
    if isinstance(config, IcebergSinkConfig):
        return [Statement("", (f"sink {config.name}: an Iceberg table is made by its catalog, which the loader asks for it",))]
    return [Statement("", (f"sink {config.name}: nothing is kept of it, so there is no table",))]


def _resources(pipeline: Pipeline, base: Path) -> Resources:
    """The resources that the pipeline's columns depend on, read from this machine or from S3. Databases are not queried."""
    resources = local_resources(pipeline, base)
    urls = [url for stage in pipeline.stages for url in stage.table_urls()]
    tables = [url for url in urls if url.startswith("s3://") and url not in resources.tables]
    files = [url for url in pipeline.source.decode.file_urls() if url.startswith("s3://") and url not in resources.files]
    if not tables and not files:
        return resources

    async def read() -> dict[str, bytes]:
        session = session_of(pipeline)
        return {url: await read_object(session, url) for url in (*tables, *files)}

    found = watchdog.run(read())
    return replace(
        resources,
        tables={**resources.tables, **{url: parse_table(url, found[url]) for url in tables}},
        files={**resources.files, **{url: found[url] for url in files}},
    )
