"""Opens what loaders need: for the worker, which loads all the time, and for commands about loads."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from contextlib import AsyncExitStack
from functools import partial

from stream import events
from stream.aws.redshift_data import Database, open_redshift_data
from stream.aws.session import AwsSession
from stream.commit.log import CommitLog
from stream.contracts import Clock, Emit, ObjectStore
from stream.errors import DefinitionError
from stream.lease.loader import LoaderLease, life_for
from stream.pipeline.model import Pipeline
from stream.sink.iceberg import IcebergSinkConfig
from stream.sink.redshift import RedshiftSinkConfig
from stream.sink.redshift_sql import Owner
from stream.sink.tables import TableSinkConfig
from stream.worker.recipes.definitions import Definitions
from stream.worker.tables.iceberg import IcebergWarehouse
from stream.worker.tables.iceberg_catalog import CatalogTable
from stream.worker.tables.iceberg_properties import catalog_properties
from stream.worker.tables.loaded_positions import LoadedPositions
from stream.worker.tables.loadlog import LoadLog, LoadState, recorded_staging, table_in_words
from stream.worker.tables.parts import LoaderParts
from stream.worker.tables.warehouse import RedshiftWarehouse, Warehouse


async def open_loader_parts(
    pipeline: Pipeline,
    stream: str,
    session: AwsSession,
    log: CommitLog,
    stores: Mapping[str, ObjectStore],
    definitions: Definitions,
    identity: tuple[str, Clock, Emit],
    stack: AsyncExitStack,
) -> tuple[LoaderParts, ...]:
    """The parts of a loader for each sink that is a table, for one stream. Connections live as long as ``stack``; nothing is called yet.

    ``identity``: the worker's name, its clock, and its ``Emit``.
    """
    worker, clock, emit = identity
    found = []
    for config in pipeline.sinks:
        if not isinstance(config, TableSinkConfig):
            continue
        state, store = LoadState(log.store, config.name, stream, table_in_words(config)), stores[config.name]
        if isinstance(config, IcebergSinkConfig):
            properties = catalog_properties(config, session, definitions.secret)
            accounts = LoadedPositions(log.store, config.name, stream, config.unique_table)
            table = CatalogTable(config, store.url, properties)
            stack.callback(table.close)
            warehouse: Warehouse = IcebergWarehouse(table, pipeline.application, stream, accounts, clock)
        elif isinstance(config, RedshiftSinkConfig):
            database = Database(config.database, config.cluster, config.workgroup, config.db_user, config.secret_arn)
            client = await stack.enter_async_context(open_redshift_data(session, database))
            # Names of objects are derived from content; a client token is the opposite: the API must never have seen it.
            nonce = f"{worker}/{secrets.token_hex(16)}"
            owner = Owner(pipeline.application, stream, several=bool(pipeline.source.kinesis.streams))
            warehouse = RedshiftWarehouse(client, config, owner, store, clock, nonce)
        else:
            msg = f"there is no loader for {type(config).__qualname__}"
            raise DefinitionError(msg)
        others = [sink for sink in pipeline.sinks if sink is not config]
        parts = LoaderParts(
            config=config,
            stream=stream,
            log=LoadLog(log, stream, recorded_staging(definitions, config, others, partial(_passed_over, config, stream, emit))),
            state=state,
            warehouse=warehouse,
            staging=store,
            lease=LoaderLease(log.store, f"{state.root}lease.json", worker, clock, life_for(config.every)),
            clock=clock,
            emit=emit,
        )
        found.append(parts)
    return tuple(found)


def _passed_over(config: TableSinkConfig, stream: str, emit: Emit, table: str) -> None:
    remedy = (
        f"`stream loads ls` with the former pipeline file shows how many rows wait for the {table}. To load them there, run that file once "
        "more with `stream run FILE --once`, or keep its sink under another name. Files of one kind of table are not loaded into another"
    )
    emit(events.UnitsPassedOver(stream, "", config.name, table, remedy))
