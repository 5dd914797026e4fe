"""An Iceberg table as the loader sees it: ask what is loaded, make the table fit, commit files.

The table itself names the account of what is loaded: in a property, changed in the same commit that adds the files. A commit
replaces the table's metadata by compare-and-swap, so of two loaders that know the same state one commits and the other is refused.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from stream.batch import SEQUENCE, SHARD, SUBSEQUENCE
from stream.contracts import Clock
from stream.errors import Retryable
from stream.sink.iceberg import PartitionField, Transform
from stream.sink.layouts import Layout
from stream.sink.loads import Failure, Link, Load
from stream.sink.tables import Evolve
from stream.worker.tables.iceberg_catalog import CatalogTable, as_iceberg
from stream.worker.tables.loaded_positions import LoadedPositions
from stream.worker.tables.warehouse import LoadFailed

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.manifest import DataFile
    from pyiceberg.partitioning import PartitionSpec
    from pyiceberg.schema import Schema
    from pyiceberg.table import Table
    from pyiceberg.types import IcebergType

LOADED: Final = "kst.loaded."
"""Prefix of the table property that names the account; application and stream follow."""

ACCOUNT: Final = "kst.account"
"""Name of the property in which a snapshot's summary names the account: who rolls the table back to it sets that back to this one."""

MAX_NAME: Final = 255
"""Longest name of a parameter in Glue, which keeps a table's properties as parameters (Glue API reference, "Table")."""

NEW_TABLE: Final = {
    "format-version": "2",
    "commit.manifest-merge.enabled": "true",
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "100",
}
"""Default properties of a table that the loader creates: with a commit every minute, the metadata must be kept small."""

METRICS: Final = "write.metadata.metrics."
"""Prefix of the properties that say which bounds of which columns are kept (Iceberg documentation, "Table properties")."""

MOST_BEHIND: Final = 55.0
"""Seconds by which a commit may be older than the one before it; Iceberg's Java library tolerates a minute (``TableMetadata``)."""

FOOTERS_AT_ONCE: Final = 8
"""Files whose footers are read at a time; each takes a request or two, and a load has hundreds of files."""

NO_RETRY: Final = {"commit.retry.num-retries": "0"}
"""No retries by PyIceberg: after a conflict it would add the same files again, which another loader may just have added."""


logging.getLogger("pyiceberg").addHandler(logging.NullHandler())
# It warns of each column without bounds, in plain text among the worker's lines of JSON.

_DIGITS: Final = re.compile(r"^\d+: ")
_LACKING: Final = re.compile(r"PyArrow table contains more columns: (.*?)\. Update the schema")


class IcebergWarehouse:
    """``worker.warehouse.Warehouse`` over a catalog."""

    def __init__(self, table: CatalogTable, application: str, stream: str, accounts: LoadedPositions, clock: Clock) -> None:
        self._catalog = table
        self._config = table.config
        self._whose = {"kst.application": application, "kst.stream": stream}
        name = f"{LOADED}{application}/{stream}"
        self._property = name if len(name) <= MAX_NAME else f"{LOADED}{hashlib.sha256(name.encode()).hexdigest()}"
        self._accounts = accounts
        self._clock = clock

    async def positions(self) -> dict[str, int]:
        """See ``Warehouse``; if there is no table, nothing is loaded."""
        table = await self._catalog.ask(self._catalog.found)
        return await self._accounts.read(self._account(table))

    async def positions_before(self, cutoff: datetime) -> dict[str, int]:  # noqa: ARG002 - the files are the table
        """See ``Warehouse``; no loaded file may be removed."""
        return {}

    async def row_counts(self) -> dict[str, int] | None:
        """See ``Warehouse``: reads one column of the files that the table consists of, and leaves out rows that were deleted from them."""
        return await self._catalog.ask(self._row_counts)

    async def records(self, values: Mapping[str, str], most: int) -> list[tuple[str, str, int]] | None:
        """See ``Warehouse``: reads the files that may have the values, by the bounds that the table keeps."""
        return await self._catalog.ask(lambda catalog: self._records(catalog, values, most))

    def passing_over(self, link: Link) -> str:  # noqa: ARG002 - no loaded file is ever removed
        """See ``Warehouse``; the property of the table names an account, which no statement can write."""
        return ""

    async def forget(self, cutoff: datetime) -> None:
        """See ``Warehouse``: removes accounts that were written before then and are out of date."""
        table = await self._catalog.ask(self._catalog.found)
        await self._accounts.tidy(self._account(table), cutoff)

    async def fit(self, layout: Layout) -> None:
        """See ``Warehouse``: creates the table, or adds columns that it lacks, as the sink says."""
        await self._catalog.ask(lambda catalog: self._fit(catalog, layout))

    async def load(self, load: Load) -> None:
        """See ``Warehouse``."""
        table = await self._catalog.ask(self._catalog.found)
        if table is None:
            msg = f"{self._config.table} is gone"
            raise Retryable(msg)
        after = await self._accounts.read(self._account(table))
        for link in load.links:
            if after.get(link.shard, 0) != link.after:
                msg = f"{link.shard} is loaded up to {after.get(link.shard, 0)}, not up to {link.after}: another loader was faster"
                raise LoadFailed(msg, Failure.RACE)
            after[link.shard] = link.last
        account = await self._accounts.write(after)
        await self._catalog.ask(lambda _: self._commit(table, load, account))

    def _row_counts(self, catalog: Catalog) -> dict[str, int] | None:
        table = self._catalog.found(catalog)
        if table is None:
            return {}
        if SHARD not in {field.name for field in table.schema().fields}:
            return None
        counts: Counter[str] = Counter()
        for batch in table.scan(selected_fields=(SHARD,)).to_arrow_batch_reader():
            for each in batch.column(SHARD).value_counts().to_pylist():
                counts[str(each["values"])] += each["counts"]
        del counts[str(None)]
        return dict(counts)

    def _records(self, catalog: Catalog, values: Mapping[str, str], most: int) -> list[tuple[str, str, int]] | None:
        from pyiceberg.expressions import AlwaysTrue, And, BooleanExpression, EqualTo, Reference
        from pyiceberg.expressions.literals import literal

        table, lineage = self._catalog.found(catalog), (SHARD, SEQUENCE, SUBSEQUENCE)
        if table is None or not {*values, *lineage} <= {field.name for field in table.schema().fields}:
            return None
        found: dict[tuple[str, str, int], None] = {}
        hold: BooleanExpression = AlwaysTrue()
        try:
            for column, value in values.items():
                typed = _as_typed(value, table.schema().find_type(column))
                hold = And(hold, EqualTo(term=Reference(column), value=literal(typed)))
            for batch in table.scan(hold, selected_fields=lineage).to_arrow_batch_reader():
                rows = zip(*(batch.column(name).to_pylist() for name in lineage), strict=True)
                found |= dict.fromkeys((str(shard), str(sequence), int(sub)) for shard, sequence, sub in rows if sequence is not None)
                if len(found) >= most:
                    break
        except (ValueError, TypeError, ArithmeticError):
            return None  # a column's type has no such value
        return list(found)[:most]

    def _account(self, table: Table | None) -> str:
        return "" if table is None else table.properties.get(self._property, "")

    def _fit(self, catalog: Catalog, layout: Layout) -> None:
        from pyiceberg.exceptions import ValidationError

        wanted = schema_of(layout)
        table = self._catalog.found(catalog) or self._made(catalog, wanted)
        self._check_clock(table)
        self._check_partitions(table)
        fields = {field.name: field for field in table.schema().fields}
        missing = [column.name for column in layout.columns if column.name not in fields]
        if missing and self._config.evolve is Evolve.HALT:
            msg = f"{self._config.table} lacks the columns {', '.join(missing)}; add them, or write `evolve: add`"
            raise LoadFailed(msg, Failure.SETUP)
        if needed := [field.name for field in table.schema().fields if field.required]:
            msg = f"{self._config.table} requires values in the columns {', '.join(needed)}, which files may lack; make them optional"
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
            msg = f"there is no table {config.table}; create it, or set `create: true`"
            raise LoadFailed(msg, Failure.SETUP)
        namespace = Names.namespace_from(config.table)
        if not catalog.namespace_exists(namespace):
            catalog.create_namespace(namespace)
        properties = NEW_TABLE | config.properties
        try:
            return catalog.create_table(
                config.table, wanted, self._catalog.root.rstrip("/"), spec_of(config.fields, wanted), properties=properties
            )
        except TableAlreadyExistsError as error:
            msg = f"{config.table} was created by somebody else at the same moment"
            raise Retryable(msg) from error

    def _check_clock(self, table: Table) -> None:
        """PyIceberg dates a commit by this machine's clock, and any engine in Java refuses a table whose commits are not in order."""
        behind = table.metadata.last_updated_ms / 1000 - self._clock.now().timestamp()
        if behind > MOST_BEHIND:
            msg = (
                f"this machine's clock is {behind:.0f} s behind the last commit of {self._config.table}, or the clock of the machine that "
                "made it was ahead; engines such as Spark and Athena could no longer read the table. Set the clocks; loads continue "
                "once this clock is past that commit"
            )
            raise LoadFailed(msg, Failure.SETUP)

    def _check_partitions(self, table: Table) -> None:
        """Each file has one value of each of the sink's fields, so the table may be partitioned only by these."""
        schema = table.schema()
        for field in table.spec().fields:
            column, transform = schema.find_column_name(field.source_id), str(field.transform)
            if transform in set(Transform) and PartitionField(Transform(transform), str(column)) in self._config.fields:
                continue
            wanted = column if transform == Transform.IDENTITY else f"{transform}({column})"
            msg = f"{self._config.table} is partitioned by {wanted}, but the files of this sink are not; add it to `partition_by`"
            raise LoadFailed(msg, Failure.SETUP)

    def _commit(self, table: Table, load: Load, account: str) -> None:
        """Add the files to ``table``, if it has not changed since the account was read."""
        self._check_clock(table)
        with ThreadPoolExecutor(FOOTERS_AT_ONCE, "footers") as pool:
            files = list(pool.map(lambda file: self._file(table, as_iceberg(file.url), file.rows, file.size), load.files))
        properties = self._whose | {"kst.units": str(sum(link.links for link in load.links)), ACCOUNT: account}
        table.metadata = table.metadata.model_copy(update={"properties": table.properties | NO_RETRY})
        with table.transaction() as change:
            if change.table_metadata.name_mapping() is None:
                # The files carry no field ids, so their columns are found by name.
                change.set_properties({"schema.name-mapping.default": table.schema().name_mapping.model_dump_json()})
            change.set_properties({self._property: account})
            with change.update_snapshot(snapshot_properties=properties).merge_append() as append:
                for file in files:
                    append.append_data_file(file)

    def _file(self, table: Table, url: str, rows: int, size: int) -> DataFile:
        try:
            found = _described(table, url)
        except FileNotFoundError as error:
            msg = f"{url} is missing"
            raise LoadFailed(msg, Failure.DATA) from error
        except (ValueError, TypeError) as error:
            # PyIceberg says so of a file with several values of a partition field (``partition_record_value``).
            several = "partition" in str(error) and bool(table.spec().fields)
            remedy = f". {self._remedy([field.name for field in table.spec().fields])}" if several else ""
            msg = f"{url} does not fit {self._config.table}: {difference(str(error))}{remedy}"
            raise LoadFailed(msg, Failure.DATA) from error
        if (found.record_count, found.file_size_in_bytes) != (rows, size):
            msg = f"{url} holds {found.record_count} rows in {found.file_size_in_bytes} bytes, the manifest says {rows} in {size}"
            raise LoadFailed(msg, Failure.DATA)
        for field in table.spec().fields:
            # The footer's bounds, from which PyIceberg takes the partition, say nothing of rows without a value.
            if 0 < found.null_value_counts.get(field.source_id, 0) < rows:
                column = table.schema().find_column_name(field.source_id)
                msg = (
                    f"{url} has rows with and without a value in {column}, by which {self._config.table} is partitioned, and a file must "
                    f"be of one partition: it was written before `partition_by` named {column}. {self._remedy([field.name])}"
                )
                raise LoadFailed(msg, Failure.DATA)
        return found

    def _remedy(self, fields: Sequence[str]) -> str:
        table = self._config.table
        drop = "; ".join(f"ALTER TABLE {table} DROP PARTITION FIELD {field}" for field in fields)
        return f"To load it: {drop} (Spark's SQL), then `stream loads retry`, then add the partition again; the rows loaded meanwhile stay"


def difference(message: str) -> str:
    """PyIceberg's ``message`` on a file that does not fit, in a phrase: it draws a table of all columns, or advises how to call it."""
    cells = [[cell.strip() for cell in line.split("│")[2:4]] for line in message.splitlines() if "❌" in line]
    if cells:
        return "; ".join(f"the table has `{_DIGITS.sub('', table)}`, the file `{_DIGITS.sub('', file)}`" for table, file in cells)
    lacking = _LACKING.match(message)
    return f"the table lacks the columns {lacking[1]}" if lacking else message


def _described(table: Table, url: str) -> DataFile:
    from pyiceberg.io.pyarrow import parquet_file_to_data_file

    try:
        return parquet_file_to_data_file(table.io, table.metadata, url)
    except UnicodeEncodeError:
        # PyIceberg truncates the bounds of text, and increments U+D7FF to an invalid character. Full bounds avoid that.
        others = {name: value for name, value in table.properties.items() if not name.startswith(METRICS)}
        properties = {**others, f"{METRICS}default": "full"}
        return parquet_file_to_data_file(table.io, table.metadata.model_copy(update={"properties": properties}), url)


def schema_of(layout: Layout) -> Schema:
    """The table's columns for files of ``layout``, all of them optional. Needs the extra ``iceberg``."""
    from pyiceberg.schema import Schema, assign_fresh_schema_ids

    fields = [
        {"id": number, "name": column.name, "required": False, "type": json.loads(column.type) if column.type[0] == "{" else column.type}
        for number, column in enumerate(layout.columns, 1)
    ]
    return assign_fresh_schema_ids(Schema.model_validate({"type": "struct", "fields": fields}))


def spec_of(fields: Sequence[PartitionField], schema: Schema) -> PartitionSpec:
    """The table's partitions by ``fields``, which are of columns of ``schema``."""
    from pyiceberg import partitioning
    from pyiceberg.transforms import parse_transform

    return partitioning.PartitionSpec(
        *(
            partitioning.PartitionField(
                source_id=schema.find_field(field.column).field_id,
                field_id=partitioning.PARTITION_FIELD_ID_START + number,
                transform=parse_transform(field.transform.value),
                name=field.name,
            )
            for number, field in enumerate(fields)
        )
    )


def _as_typed(text: str, kind: IcebergType) -> str:
    """``text`` as PyIceberg reads a value of ``kind``: a decimal with all of its places, so that 76.5 is 76.50."""
    from pyiceberg.types import DecimalType

    if not isinstance(kind, DecimalType):
        return text
    value = Decimal(text)
    padded = value.quantize(Decimal(1).scaleb(-kind.scale))
    return str(padded if padded == value else value)
