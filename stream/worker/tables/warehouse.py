"""A Redshift table as the loader sees it: ask what is loaded, make the table fit, load units."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Final, Protocol, TypeVar, runtime_checkable

from stream.aws.redshift_data import ColumnInfo, RedshiftDataClient, Result, Statement
from stream.batch import SHARD
from stream.contracts import Clock, ObjectStore
from stream.errors import Halted, Retryable, StreamError
from stream.sink import redshift_checks as checks
from stream.sink import redshift_sql as sql
from stream.sink.layouts import Layout
from stream.sink.loads import Failure, Link, Load
from stream.sink.redshift import COPY_MANIFESTS, RedshiftSinkConfig
from stream.sink.redshift_checks import LoadedRow
from stream.sink.redshift_evolve import ExistingColumn, evolve
from stream.sink.redshift_names import folded
from stream.sink.redshift_sql import Owner, Step
from stream.sink.redshift_upsert import deleted_layout, needs_deleted_keys

T = TypeVar("T")

CALLS: Final = 6
"""Attempts at one call whose outcome is unknown, before the whole load is examined again; the pauses add up to six seconds."""
FIRST_PAUSE: Final = 0.2
POLL_PAUSE: Final = 0.2
"""Seconds between looks at a statement, in addition to the wait in the API itself."""


class LoadFailed(StreamError):
    """Nothing of the load is in the table; ``failure`` says how to respond."""

    def __init__(self, message: str, failure: Failure) -> None:
        super().__init__(message)
        self.failure = failure


class Warehouse(Protocol):
    """A table with its load ledger. Every method raises ``Retryable`` if the outcome is unknown."""

    async def positions(self) -> dict[str, int]:
        """The sequence number up to which each shard is loaded, by the ledger; shards of which nothing is loaded are absent."""
        ...

    async def positions_before(self, cutoff: datetime) -> dict[str, int]:
        """The positions as they were at ``cutoff`` (UTC)."""
        ...

    async def row_counts(self) -> dict[str, int] | None:
        """How many rows the table has, by their column ``_shard``; None if they lack it, or are merged by key, so that none has its own.

        Without a table, there are none.
        """
        ...

    async def records(self, values: Mapping[str, str], most: int) -> list[tuple[str, str, int]] | None:
        """``_shard``, ``_sequence`` and ``_subsequence`` of up to ``most`` records with a row that has ``values``, as text, by column.

        None if the table cannot tell: it is not there, or lacks a column or those of the lineage, or does not compare such values.
        """
        ...

    def passing_over(self, link: Link) -> str:
        """How a person has loads of a shard go on after ``link``, which has no files, without what is in it; empty if there is no way."""
        ...

    async def forget(self, cutoff: datetime) -> None:
        """Remove what is kept about loads before ``cutoff`` (UTC) and no longer needed; never what ``positions`` needs."""
        ...

    async def fit(self, layout: Layout) -> None:
        """Make sure that table and ledger exist and accept rows of ``layout``.

        Raises:
            LoadFailed: they do not and must not be changed; the message says what a person can do.
        """
        ...

    async def load(self, load: Load) -> None:
        """Load all of ``load``, or nothing.

        Raises:
            LoadFailed: nothing was loaded.
            Retryable: all or nothing was loaded, or will be soon; ``positions`` will tell.
        """
        ...


@dataclass(frozen=True, slots=True)
class MergedRows:
    """What a table that is merged by key has. ``twice``: keys of the stream with several rows.

    ``shards``: by ``_shard``, the number of rows and the greatest sequence number.
    """

    twice: int
    shards: Mapping[str, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Overtaken:
    """A row that was loaded, of whose key the table has neither that row nor a newer one, but ``there`` others.

    ``remembered``: whether what is kept about deleted keys goes back to before the row, so that a deletion of its key would be in it: it
    goes back as far as its oldest entry, since people remove the oldest ones. None if nothing is kept.
    """

    row: LoadedRow
    there: int
    remembered: bool | None = None


@runtime_checkable
class MergingWarehouse(Protocol):
    """A ``Warehouse`` that may merge rows by key, so that a row of the table is the newest of its key."""

    async def merged_rows(self, layout: Layout) -> MergedRows | None:
        """What the table has, whose rows of ``layout`` are merged by its keys; None if it lacks these, or columns of the lineage.

        Raises:
            Halted: there is no table, although rows were loaded into it.
        """
        ...

    async def some_records(self, most: int, salt: str) -> list[tuple[str, str, int]]:
        """``_shard``, ``_sequence`` and ``_subsequence`` of up to ``most`` rows of the table, others for each ``salt``."""
        ...

    async def overtaken(self, layout: Layout, rows: Sequence[LoadedRow]) -> list[Overtaken]:
        """Those of ``rows``, all of which were loaded, of whose key neither the table nor what is kept about deleted keys has one so new.

        Of those that delete, only where the table has an older row of the key.
        """
        ...


class RedshiftWarehouse:
    """``Warehouse`` and ``MergingWarehouse`` over the Data API.

    ``staging``: the store at the sink's URL, where manifests for COPY are put. ``nonce`` is used by no other warehouse, ever.
    """

    def __init__(
        self, client: RedshiftDataClient, config: RedshiftSinkConfig, owner: Owner, staging: ObjectStore, clock: Clock, nonce: str
    ) -> None:
        self._client = client
        self._config = config
        self._whose = owner
        self._staging = staging
        self._clock = clock
        self._nonce = nonce
        self._calls = 0
        self._ledger_is_there = False
        """Whether nothing has failed since it was there: somebody may drop it, to have everything loaded again."""

    async def positions(self) -> dict[str, int]:
        """See ``Warehouse``."""
        await self._have_ledger()
        return _positions(await self._query(sql.positions(self._config, self._whose)))

    async def positions_before(self, cutoff: datetime) -> dict[str, int]:
        """See ``Warehouse``."""
        await self._have_ledger()
        return _positions(await self._query(sql.positions_before(self._config, self._whose, cutoff)))

    async def row_counts(self) -> dict[str, int] | None:
        """See ``Warehouse``."""
        if self._config.keys:
            return None
        found = await self._columns(self._config.target, or_none=True)
        if found is None:
            return {}
        if SHARD not in {column.name for column in found}:
            return None
        return {str(shard): int(rows) for shard, rows in (await self._query(checks.row_counts(self._config))).rows}

    async def records(self, values: Mapping[str, str], most: int) -> list[tuple[str, str, int]] | None:
        """See ``Warehouse``. Values are parameters, never parts of the statement."""
        found = {each.name: each for each in await self._columns(self._config.target, or_none=True) or ()}
        if not found.keys() >= {*checks.LINEAGE, *map(folded, values)}:
            return None
        conditions, parameters = [], dict[str, str]()
        for at, (column, value) in enumerate(values.items()):
            wanted = found[folded(column)]
            compared = checks.comparison(ExistingColumn(wanted.name, wanted.type, wanted.length), value, f"value{at}")
            if compared is None:
                return None
            conditions.append(compared[0])
            parameters[f"value{at}"] = compared[1]
        rows = (await self._query(checks.records_where(self._config, conditions, most), parameters)).rows
        return [(str(shard), str(sequence), int(subsequence)) for shard, sequence, subsequence in rows]

    async def merged_rows(self, layout: Layout) -> MergedRows | None:
        """See ``MergingWarehouse``."""
        found = await self._columns(self._config.target, or_none=True)
        if found is None:
            msg = f"rows were merged into a table that is gone: {sql.missing_table(self._config)}"
            raise Halted(msg)
        names = {column.name for column in found}
        if not names >= {*checks.LINEAGE, *layout.keys}:
            return None
        shards = (await self._query(checks.newest_by_shard(self._config))).rows
        twice = (await self._query(checks.keys_twice(self._config, layout))).rows[0][0]
        return MergedRows(int(twice), {str(shard): (int(rows), int(last or 0)) for shard, rows, last in shards})

    async def some_records(self, most: int, salt: str) -> list[tuple[str, str, int]]:
        """See ``MergingWarehouse``."""
        rows = (await self._query(checks.some_records(self._config, most, salt))).rows
        return [(str(shard), str(sequence), int(subsequence)) for shard, sequence, subsequence in rows]

    async def overtaken(self, layout: Layout, rows: Sequence[LoadedRow]) -> list[Overtaken]:
        """See ``MergingWarehouse``. Keys and versions are parameters, never a part of the statements."""
        left, oldest = await self._left(self._config.target, layout, rows), None
        keeps = bool(left) and await self._columns(self._config.deleted_keys, or_none=True) is not None
        if keeps:
            left = await self._left(self._config.deleted_keys, layout, left)
            oldest = (await self._query(checks.oldest_deleted(self._config))).rows[0][0]
        found = []
        for row in left:
            there = int((await self._query(*checks.rows_of_key(self._config.target, layout, row))).rows[0][0])
            if there or not row.deletes:
                found.append(Overtaken(row, there, oldest is not None and int(oldest) <= row.sequence if keeps else None))
        return found

    async def _left(self, table: tuple[str, str], layout: Layout, rows: Sequence[LoadedRow]) -> list[LoadedRow]:
        """Those of ``rows`` of whose key ``table`` has no row that is not older."""
        left, kept = list(rows), {-1}
        while left and kept:  # of keys that the database takes for equal and that differ here, each answer has one
            kept = {int(at) for (at,) in (await self._query(*checks.not_older(table, layout, left))).rows}
            left = [row for at, row in enumerate(left) if at not in kept]
        return left

    def passing_over(self, link: Link) -> str:
        """See ``Warehouse``: a row in the load ledger."""
        return sql.passing_over(self._config, self._whose, link, self._clock.now())

    async def forget(self, cutoff: datetime) -> None:
        """See ``Warehouse``: the load ledger is a table of the user's, and stays as it is."""

    async def fit(self, layout: Layout) -> None:
        """See ``Warehouse``."""
        await self._have_ledger()
        await self._fit(self._config.target, layout, create=self._config.create)
        if needs_deleted_keys(self._config, layout):
            await self._fit(self._config.deleted_keys, deleted_layout(layout), create=True)

    async def _fit(self, table: tuple[str, str], layout: Layout, *, create: bool) -> None:
        if (found := await self._columns(table, or_none=create)) is None:
            if table == self._config.target and (await self._query(sql.most_rows(self._config))).rows[0][0]:
                raise LoadFailed(sql.missing_table(self._config), Failure.SETUP)
            await self._create(sql.create_table(table, layout))
            found = await self._columns(table) or ()
        existing = [ExistingColumn(column.name, column.type, column.length) for column in found]
        change = evolve(self._config, table, layout, existing, self._whose.shard_bytes)
        if change.problems:
            msg = f"the table {'.'.join(table)} cannot take the pipeline's rows: {'; '.join(change.problems)}"
            raise LoadFailed(msg, Failure.SETUP)
        for statement in change.statements:
            await self._query(statement)

    async def _columns(self, table: tuple[str, str], *, or_none: bool = False) -> Sequence[ColumnInfo] | None:
        """The columns of ``table``. With ``or_none``, None if there is no such table."""
        try:
            return (await self._query(sql.describe_table(table))).columns
        except LoadFailed as error:
            if or_none and sql.is_missing(str(error)):
                return None
            raise

    async def load(self, load: Load) -> None:
        """See ``Warehouse``; the manifest for COPY is named by content and removed once the load is done."""
        key = f"{COPY_MANIFESTS}{sql.load_id(self._whose, self._config, load)}.manifest"
        url = f"{self._staging.url.removesuffix('/')}/{key}"
        try:
            statements = sql.load_statements(self._config, self._whose, load, url, self._clock.now())
        except ValueError as error:
            raise LoadFailed(str(error), Failure.DATA if len(load.links) > 1 else Failure.SETUP) from error
        if load.files:
            await self._staging.put(key, sql.copy_manifest(load))
        texts = [text for _, text in statements]
        token = self._token("\n".join(texts))
        batch = await self._repeated(lambda: self._client.batch_execute(texts, token))
        done = await self._finished(batch)
        if done.status != "FINISHED":
            self._ledger_is_there = False
            step = statements[done.failed][0] if 0 <= done.failed < len(statements) else None
            raise await self._failed(step, done, load)
        if load.files:
            await self._staging.delete(key)

    async def _failed(self, step: Step | None, done: Statement, load: Load) -> LoadFailed | Retryable:
        failure = Failure.TRANSIENT if done.status == "ABORTED" else sql.judge(step, done.error)
        where = f"at step `{step}`" if step else "at an unknown step"
        msg = f"load into {self._config.table} {done.status} {where}: {done.error}"
        if failure is Failure.DATA and step is Step.COUNT:
            msg = f"load into {self._config.table}: the staged files do not contain as many rows as their manifests say"
        if failure is Failure.DATA and step is Step.MOVE:
            msg += sql.remedy(self._config.target, load.layout, done.error)
        if failure is Failure.DATA and step is Step.COPY and done.query_id:
            msg += await self._details(done.query_id)
        return LoadFailed(msg, failure)

    async def _details(self, query_id: int) -> str:
        """Details from the system view of load errors; empty if it cannot be read: the error of the load itself matters most."""
        try:
            rows = (await self._query(sql.load_errors(query_id))).rows
        except StreamError:
            return ""
        return "".join(f"; {file} row {line}, column {column}: {message}" for file, line, column, message in rows)

    async def _have_ledger(self) -> None:
        if not self._ledger_is_there:
            await self._create(sql.create_ledger(self._config))
            self._ledger_is_there = True

    async def _create(self, statement: str) -> None:
        """Create a table that may be created by another loader at this moment, or by a statement of ours that was given up."""
        try:
            await self._query(statement)
        except LoadFailed as error:
            if not sql.exists_already(str(error)):
                raise

    async def _query(self, statement: str, parameters: Mapping[str, str] = MappingProxyType({})) -> Result:
        """Run one statement that may be repeated."""
        token = self._token(statement)
        started = await self._repeated(lambda: self._client.execute(statement, token, parameters))
        done = await self._finished(started)
        if done.status != "FINISHED":
            self._ledger_is_there = False
            failure = Failure.TRANSIENT if done.status == "ABORTED" else sql.judge(None, done.error)
            if failure is Failure.TRANSIENT:
                msg = f"statement {statement[:200]} {done.status}: {done.error}"
                raise Retryable(msg)
            msg = f"{done.error}{sql.schema_remedy(done.error)} (statement: {statement[:200]})"
            raise LoadFailed(msg, Failure.SETUP)
        if not statement.startswith("SELECT"):
            return Result((), ())
        return await self._repeated(lambda: self._client.result(started))

    async def _finished(self, statement_id: str) -> Statement:
        while True:
            found = await self._repeated(lambda: self._client.describe(statement_id))
            if found.done:
                return found
            await self._clock.sleep(POLL_PAUSE)

    async def _repeated(self, call: Callable[[], Awaitable[T]]) -> T:
        """The result of ``call``, which is idempotent and is therefore retried a few times if no response comes."""
        pause = FIRST_PAUSE
        for _ in range(CALLS - 1):
            try:
                return await call()
            except Retryable:
                await self._clock.sleep(pause)
                pause *= 2
        return await call()

    def _token(self, text: str) -> str:
        """A new token for every attempt: for a known token, the API returns the old statement, failed or not."""
        self._calls += 1
        return hashlib.sha256(f"{self._nonce}/{self._calls}/{text}".encode()).hexdigest()


def _positions(result: Result) -> dict[str, int]:
    return {str(shard): int(last) for shard, last in result.rows}
