"""An Iceberg table as the loader sees it: what is loaded, make it fit, commit these files.

The account of what is loaded is the table's own: a property for each shard, changed in the same commit that adds the files. A commit
replaces the table's metadata by compare-and-swap, so of two loaders that know the same state one commits and the other is refused.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from stream.aws.session import AwsSession
from stream.errors import DefinitionError, Retryable, StreamError
from stream.pipeline.secrets import SecretReader, find_secret
from stream.sink.iceberg import CatalogType, IcebergSinkConfig, PartitionField, Transform
from stream.sink.layouts import Layout
from stream.sink.loads import Failure, Load
from stream.sink.tables import Evolve
from stream.worker.warehouse import LoadFailed

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.manifest import DataFile
    from pyiceberg.schema import Schema
    from pyiceberg.table import Table

T = TypeVar("T")

LOADED: Final = "kst.loaded."
"""What the names of the properties begin with that say how far a shard is loaded; application, stream and shard follow."""

NEW_TABLE: Final = {
    "format-version": "2",
    "commit.manifest-merge.enabled": "true",
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "100",
}
"""Properties of a table made here, unless the sink names others: metadata of a table that is committed to every minute must stay small."""

NO_RETRY: Final = {"commit.retry.num-retries": "0"}
"""PyIceberg would answer a conflict by adding the same files to the new state, where another loader may have added them just now."""

_DENIED: Final = ("AccessDenied", "Forbidden", "Unauthorized", "not authorized", "InvalidAccessKeyId", "SignatureDoesNotMatch")

Properties = Callable[[], Awaitable[Mapping[str, str]]]
"""The catalog's properties as they are now: keys of AWS change."""

Secret = Callable[[str], Awaitable[str]]
"""What a reference leads to now; raises as ``find_secret`` does."""


class IcebergTable:
    """``worker.warehouse.Warehouse`` over a catalog. ``root`` is the table's location as a URL."""

    def __init__(self, config: IcebergSinkConfig, application: str, stream: str, root: str, properties: Properties) -> None:
        self._config = config
        self._whose = {"kst.application": application, "kst.stream": stream}
        self._prefix = f"{LOADED}{application}.{stream}."
        self._root = as_iceberg(root).rstrip("/") + "/"
        self._properties = properties
        self._known: tuple[Mapping[str, str], Catalog] | None = None
        # Whoever is cancelled leaves a thread behind that goes on: what comes next has to see what came of it.
        self._one_at_a_time = threading.Lock()

    async def positions(self) -> dict[str, int]:
        """See ``Warehouse``; what has no table is not loaded."""
        return await self._with_catalog(self._positions)

    async def positions_before(self, cutoff: datetime) -> dict[str, int]:  # noqa: ARG002 - the files are the table
        """See ``Warehouse``; nothing that is loaded may go."""
        return {}

    async def fit(self, layout: Layout) -> None:
        """See ``Warehouse``: the table is made, or columns that it lacks are added, as the sink says."""
        await self._with_catalog(lambda catalog: self._fit(catalog, layout))

    async def load(self, load: Load) -> None:
        """See ``Warehouse``."""
        await self._with_catalog(lambda catalog: self._load(catalog, load))

    async def look(self) -> str:
        """What there is, in a few words; raises as ``fit`` does."""
        return await self._with_catalog(self._look)

    async def files(self) -> list[str]:
        """Keys, relative to the location, of the data files that the table consists of now; raises as ``fit`` does."""
        return await self._with_catalog(self._files)

    async def _with_catalog(self, work: Callable[[Catalog], T]) -> T:
        properties = await self._properties()

        def carry_out() -> T:
            with self._one_at_a_time, understood(self._config.table):
                if self._known is None or self._known[0] != properties:
                    self._known = properties, _open(properties)
                return work(self._known[1])

        return await asyncio.to_thread(carry_out)

    def _positions(self, catalog: Catalog) -> dict[str, int]:
        table = self._found(catalog)
        return {} if table is None else self._loaded(table)

    def _loaded(self, table: Table) -> dict[str, int]:
        own = {name.removeprefix(self._prefix): value for name, value in table.properties.items() if name.startswith(self._prefix)}
        try:
            return {shard: int(value) for shard, value in own.items()}
        except ValueError:
            msg = f"properties of {self._config.table} beginning with {self._prefix} are no sequence numbers: somebody edited them"
            raise LoadFailed(msg, Failure.SETUP) from None

    def _found(self, catalog: Catalog) -> Table | None:
        from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError

        try:
            return catalog.load_table(self._config.table)
        except (NoSuchTableError, NoSuchNamespaceError):
            return None

    def _files(self, catalog: Catalog) -> list[str]:
        table = self._found(catalog)
        paths = [] if table is None else table.inspect.data_files()["file_path"].to_pylist()
        return [path.removeprefix(self._root) for path in paths if path.startswith(self._root)]

    def _look(self, catalog: Catalog) -> str:
        namespace = self._config.table.rpartition(".")[0]
        if not catalog.namespace_exists(namespace) and self._config.catalog["type"] == CatalogType.GLUE:
            msg = f"Glue has no database {namespace}; create it, since it says where tables lie and who may see them"
            raise LoadFailed(msg, Failure.SETUP)
        table = self._found(catalog)
        if table is not None:
            return f"allowed; the table has {len(table.schema().fields)} columns"
        if not self._config.create:
            msg = f"there is no table {self._config.table}"
            raise LoadFailed(msg, Failure.SETUP)
        return "allowed; the table is not there yet"

    def _fit(self, catalog: Catalog, layout: Layout) -> None:
        from pyiceberg.exceptions import ValidationError

        wanted = schema_of(layout)
        table = self._found(catalog) or self._made(catalog, wanted)
        self._check_partitions(table)
        there = {field.name: field for field in table.schema().fields}
        missing = [column.name for column in layout.columns if column.name not in there]
        if missing and self._config.evolve is Evolve.HALT:
            msg = f"{self._config.table} lacks the columns {', '.join(missing)}; add them, or write `evolve: add`"
            raise LoadFailed(msg, Failure.SETUP)
        if needed := [field.name for field in table.schema().fields if field.required]:
            msg = f"{self._config.table} requires values in the columns {', '.join(needed)}, which files do not promise; make them optional"
            raise LoadFailed(msg, Failure.SETUP)
        try:
            with table.update_schema() as update:
                update.union_by_name(wanted)
        except (ValidationError, ValueError, TypeError) as error:
            msg = f"{self._config.table} cannot take these columns: {error}. Cast them in a stage, or load another table."
            raise LoadFailed(msg, Failure.SETUP) from error

    def _made(self, catalog: Catalog, wanted: Schema) -> Table:
        from pyiceberg.catalog import Catalog as Names
        from pyiceberg.exceptions import TableAlreadyExistsError

        config = self._config
        if not config.create:
            msg = f"there is no table {config.table}; create it, or write `create: true`"
            raise LoadFailed(msg, Failure.SETUP)
        namespace = Names.namespace_from(config.table)
        if not catalog.namespace_exists(namespace):
            catalog.create_namespace(namespace)
        properties = NEW_TABLE | config.properties
        try:
            table = catalog.create_table(config.table, wanted, location=self._root.rstrip("/"), properties=properties)
        except TableAlreadyExistsError as error:
            msg = f"{config.table} was made by somebody else just now"
            raise Retryable(msg) from error
        if config.fields:
            with table.update_spec() as update:
                for field in config.fields:
                    update.add_field(field.column, field.transform.value, field.name)
        return table.refresh()

    def _check_partitions(self, table: Table) -> None:
        """Files have one value of each of the sink's fields; the table may be partitioned by these, and by no other."""
        schema = table.schema()
        for field in table.spec().fields:
            column, transform = schema.find_column_name(field.source_id), str(field.transform)
            if transform in set(Transform) and PartitionField(Transform(transform), str(column)) in self._config.fields:
                continue
            wanted = column if transform == Transform.IDENTITY else f"{transform}({column})"
            msg = f"{self._config.table} is partitioned by {wanted}, and files of this sink are not; add it to `partition_by`"
            raise LoadFailed(msg, Failure.SETUP)

    def _load(self, catalog: Catalog, load: Load) -> None:
        table = self._found(catalog)
        if table is None:
            msg = f"{self._config.table} is gone"
            raise Retryable(msg)
        after = self._loaded(table)
        for link in load.links:
            if after.get(link.shard, 0) != link.after:
                msg = f"{link.shard} is loaded up to {after.get(link.shard, 0)}, not up to {link.after}: another loader was here"
                raise LoadFailed(msg, Failure.RACE)
            after[link.shard] = link.last
        files = [self._file(table, as_iceberg(file.url), file.rows, file.size) for file in load.files]
        moved = {f"{self._prefix}{shard}": str(after[shard]) for shard in dict.fromkeys(link.shard for link in load.links)}
        told = self._whose | {"kst.units": str(sum(link.links for link in load.links))}
        table.metadata = table.metadata.model_copy(update={"properties": table.properties | NO_RETRY})
        with table.transaction() as change:
            if change.table_metadata.name_mapping() is None:
                # The files carry no numbers of fields: their columns are found by name.
                change.set_properties({"schema.name-mapping.default": table.schema().name_mapping.model_dump_json()})
            change.set_properties(moved)
            with change.update_snapshot(snapshot_properties=told).merge_append() as append:
                for file in files:
                    append.append_data_file(file)

    def _file(self, table: Table, url: str, rows: int, size: int) -> DataFile:
        from pyiceberg.io.pyarrow import parquet_file_to_data_file

        try:
            found = parquet_file_to_data_file(table.io, table.metadata, url)
        except FileNotFoundError as error:
            msg = f"{url} is missing"
            raise LoadFailed(msg, Failure.DATA) from error
        except (ValueError, TypeError) as error:
            msg = f"{url} does not fit {self._config.table}: {error}"
            raise LoadFailed(msg, Failure.DATA) from error
        if (found.record_count, found.file_size_in_bytes) != (rows, size):
            msg = f"{url} holds {found.record_count} rows in {found.file_size_in_bytes} bytes, the manifest says {rows} in {size}"
            raise LoadFailed(msg, Failure.DATA)
        return found


def schema_of(layout: Layout) -> Schema:
    """The table's columns for files of ``layout``, all of them optional. Needs the extra ``iceberg``."""
    from pyiceberg.schema import Schema, assign_fresh_schema_ids

    fields = [
        {"id": number, "name": column.name, "required": False, "type": json.loads(column.type) if column.type[0] == "{" else column.type}
        for number, column in enumerate(layout.columns, 1)
    ]
    return assign_fresh_schema_ids(Schema.model_validate({"type": "struct", "fields": fields}))


def as_iceberg(url: str) -> str:
    """A location as Iceberg writes it, where this project also takes ``file:/path``."""
    return f"file://{url.removeprefix('file:')}" if url.startswith("file:") and not url.startswith("file://") else url


def secrets_of(env: Mapping[str, str], base: Path, managed: SecretReader) -> Secret:
    """Secrets out of ``env``, of files below ``base``, or read by ``managed``."""

    async def secret(reference: str) -> str:
        return (await find_secret(reference, env, base, managed)).decode()

    return secret


def catalog_properties(config: IcebergSinkConfig, session: AwsSession, secret: Secret) -> Properties:
    """Properties of ``config`` and its secrets, with this process's own keys, region and endpoints of AWS where AWS is used at all."""
    aws = config.url.startswith("s3:") or config.catalog["type"] == CatalogType.GLUE

    async def now() -> Mapping[str, str]:
        secrets = {name: await secret(reference) for name, reference in config.secrets.items()}
        return (await ours() if aws else {}) | config.catalog | secrets

    async def ours() -> dict[str, str]:
        given = {f"{service}.endpoint": session.endpoint_override(service) for service in ("s3", "glue")}
        keys = await session.credentials()
        given |= {"client.access-key-id": keys.access_key, "client.secret-access-key": keys.secret_key, "client.region": session.region}
        given["client.session-token"] = keys.token
        return {name: value for name, value in given.items() if value}

    return now


def _open(properties: Mapping[str, str]) -> Catalog:
    from pyiceberg.catalog import load_catalog

    # A catalog in SQL tells the tables of several catalogs apart by their names; to the others a name means nothing.
    return load_catalog(**{"name": "default", **properties})


@contextmanager
def understood(table: str) -> Iterator[None]:
    """What PyIceberg and what it calls raise, as what the loader has to do about it."""
    try:
        yield
    except StreamError:
        raise
    except ImportError as error:
        msg = f"loading Iceberg tables needs a library; install it: pip install 'kinesis-stream[iceberg]' ({error})"
        raise DefinitionError(msg) from error
    except Exception as error:
        words = f"{type(error).__name__}: {error}"
        if any(word.lower() in words.lower() for word in _DENIED):
            msg = f"the catalog or the files of {table} may not be used: {words}"
            raise LoadFailed(msg, Failure.SETUP) from error
        if isinstance(error, _lasting()):
            msg = f"the catalog refuses {table}: {words}"
            raise LoadFailed(msg, Failure.SETUP) from error
        msg = f"{table}: {words}"
        raise Retryable(msg) from error


def _lasting() -> tuple[type[Exception], ...]:
    """What is the same next time."""
    from pyiceberg import exceptions as known

    return known.BadRequestError, known.OAuthError, known.NotInstalledError, known.ValidationError, known.NoSuchNamespaceError
