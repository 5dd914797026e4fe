"""A ``worker.warehouse.Warehouse`` in memory, and the behaviours that it shares with the real one.

test_warehouse.py runs the behaviours on it; tests/redshift/campaign_contract.py runs them on the Redshift double.
"""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from stream.contracts import ObjectStore
from stream.pipeline.components import make_sink
from stream.sink.layouts import HasLayout, Layout
from stream.sink.loads import Failure, Link, Load, StagedFile
from stream.sink.redshift import RedshiftSinkConfig
from stream.sink.redshift_checks import LoadedRow
from stream.sink.tables import TableSinkConfig
from stream.worker.tables.warehouse import LoadFailed, MergedRows, Overtaken, Warehouse
from tests.frames import rows

STAGING = "s3://{bucket}/staging/"


def config(bucket: str = "lake", table: str = "events", **options: Any) -> RedshiftSinkConfig:
    given = {"database": "dev", "workgroup": "analytics", "iam_role": "arn:aws:iam::123456789012:role/loader", "table": table}
    return RedshiftSinkConfig.model_validate({"staging": STAGING.format(bucket=bucket), **given, **options})


@dataclass
class MemoryWarehouse:
    """Rows and load ledger in lists; a load is applied completely or not at all.

    ``before`` and ``after`` are called around each load and may raise. ``asked`` counts calls that do not load.
    """

    staging: ObjectStore
    clock: Any
    rows: list[dict[str, Any]] = field(default_factory=list)
    ledger: list[tuple[str, int, int, datetime]] = field(default_factory=list)
    loads: list[Load] = field(default_factory=list)
    fitted: list[Layout] = field(default_factory=list)
    before: Callable[[Load], None] = lambda load: None
    after: Callable[[Load], None] = lambda load: None
    asked: int = 0

    async def positions(self) -> dict[str, int]:
        self.asked += 1
        return self._until(None)

    async def positions_before(self, cutoff: datetime) -> dict[str, int]:
        self.asked += 1
        return self._until(cutoff)

    def _until(self, cutoff: datetime | None) -> dict[str, int]:
        found: dict[str, int] = {}
        for shard, _, last, at in self.ledger:
            if cutoff is None or at < cutoff:
                found[shard] = max(last, found.get(shard, 0))
        return found

    async def row_counts(self) -> dict[str, int] | None:
        self.asked += 1
        return dict(Counter(row["_shard"] for row in self.rows))

    async def records(self, values: Mapping[str, str], most: int) -> list[tuple[str, str, int]] | None:
        self.asked += 1
        if not values.keys() <= {name for row in self.rows for name in row}:
            return None
        rows = [row for row in self.rows if all(str(row.get(column)) == value for column, value in values.items())]
        return list(dict.fromkeys((row["_shard"], row["_sequence"], row["_subsequence"]) for row in rows))[:most]

    def passing_over(self, link: Link) -> str:
        return f"pass over {link.shard} from {link.after} to {link.last}"

    async def forget(self, cutoff: datetime) -> None:
        self.asked += 1

    async def fit(self, layout: Layout) -> None:
        self.fitted.append(layout)

    async def load(self, load: Load) -> None:
        self.before(load)
        positions = self._until(None)
        for link in load.links:
            if positions.get(link.shard, 0) != link.after:
                raise LoadFailed(f"{link.shard} is at {positions.get(link.shard, 0)}, not at {link.after}", Failure.RACE)
            positions[link.shard] = link.last
        added: list[dict[str, Any]] = []
        for file in load.files:
            stored = await self.staging.get(file.url.removeprefix(self.staging.url))
            if stored is None or len(stored.body) != file.size:
                raise LoadFailed(f"{file.url} is not as it was", Failure.DATA)
            added += pl.read_parquet(io.BytesIO(stored.body)).to_dicts()
        if len(added) != load.rows:
            raise LoadFailed(f"{len(added)} rows instead of {load.rows}", Failure.DATA)
        self.rows += added
        self.ledger += [(link.shard, link.after, link.last, self.clock.now()) for link in load.links]
        self.loads.append(load)
        self.after(load)


@dataclass
class MergingMemory(MemoryWarehouse):
    """The same, merged by the keys of each load's layout: of rows with equal keys the last stays, by version if there is one.

    ``deleted``: the rows that deleted their keys.
    """

    deleted: list[dict[str, Any]] = field(default_factory=list)
    layout: Layout | None = None

    async def load(self, load: Load) -> None:
        there, self.rows = self.rows, []
        try:
            await super().load(load)
        except BaseException:
            self.rows = there
            raise
        added, self.rows = self.rows, there
        self.layout = load.layout or self.layout
        for row in added:
            self._merge(row)

    def _merge(self, row: dict[str, Any]) -> None:
        if not self.layout or not self.layout.keys:
            self.rows.append(row)
            return
        older = [each for each in self._of(self._key(row)) if self._order(each) <= self._order(row)]
        self.rows = [each for each in self.rows if not any(each is one for one in older)]
        self.deleted = [each for each in self.deleted if not any(each is one for one in older)]
        if not self._of(self._key(row)):
            gone = self.layout.deletes if self.layout else None
            (self.deleted if gone is not None and row[gone.name] else self.rows).append(row)

    def _of(self, key: tuple[str, ...]) -> list[dict[str, Any]]:
        return [each for each in (*self.rows, *self.deleted) if self._key(each) == key]

    def _key(self, row: dict[str, Any]) -> tuple[str, ...]:
        return tuple(str(row[key]) for key in self.layout.keys) if self.layout else ()

    def _order(self, row: dict[str, Any]) -> tuple[Any, ...]:
        version = self.layout.version if self.layout else None
        return (row[version.name] if version else 0, int(row["_sequence"]), row["_subsequence"], row.get("_line", 0))

    async def merged_rows(self, layout: Layout) -> MergedRows | None:
        shards = {row["_shard"] for row in self.rows}
        keys = Counter(tuple(str(row[key]) for key in layout.keys) for row in self.rows)
        by_shard = {each: [int(row["_sequence"]) for row in self.rows if row["_shard"] == each] for each in shards}
        return MergedRows(sum(count > 1 for count in keys.values()), {each: (len(all_), max(all_)) for each, all_ in by_shard.items()})

    async def some_records(self, most: int, salt: str) -> list[tuple[str, str, int]]:
        rows = sorted(self.rows, key=lambda row: hashlib.md5(f"{row['_shard']}{row['_sequence']}{salt}".encode()).digest())  # noqa: S324
        return [(row["_shard"], row["_sequence"], row["_subsequence"]) for row in rows[:most]]

    async def overtaken(self, layout: Layout, rows: Sequence[LoadedRow]) -> list[Overtaken]:
        found = []
        for row in rows:
            place = (int(row.version) if layout.version else 0, row.sequence, row.subsequence)
            if any(self._order(each)[:3] >= place for each in self._of(row.keys)):
                continue
            there = sum(self._key(each) == row.keys for each in self.rows)
            oldest = min((int(each["_sequence"]) for each in self.deleted), default=None)
            known = (oldest is not None and oldest <= row.sequence) if layout.deletes else None
            found += [Overtaken(row, there, known)] if there or not row.deletes else []
        return found


@dataclass
class Bench:
    """A warehouse and the staging store that it copies from. ``count`` returns the number of rows in its table."""

    warehouse: Warehouse
    config: TableSinkConfig
    staging: ObjectStore
    count: Callable[[], Awaitable[int]]


async def staged(bench: Bench, shard: str, after: int, last: int, count: int) -> Link:
    """A link with one staged file of ``count`` rows, or without a file for 0."""
    frame = rows({"n": list(range(after, after + count)), "word": ['it\'s; "x" ü'] * count}, {"n": pl.Int64(), "word": pl.String()})
    sink = make_sink(bench.config, frame.schema)
    assert isinstance(sink, HasLayout)
    encoded = sink.encode(frame, f"{shard}-{after}-{last}")
    for file in encoded.files:
        await bench.staging.put(file.key, file.body)
    files = tuple(StagedFile(f"{bench.config.url}{file.key}", len(file.body), file.rows) for file in encoded.files)
    return Link(shard, after, last, files, sink.layout if files else None, "2026-01-01T00:00:00+00:00")


def load_of(*links: Link) -> Load:
    return Load(links, next((link.layout for link in links if link.layout), None))


async def continues_where_the_ledger_ends(bench: Bench) -> None:
    assert await bench.warehouse.positions() == {}
    first = load_of(await staged(bench, "a", 0, 10, 3), await staged(bench, "a", 10, 20, 0), await staged(bench, "b", 0, 7, 2))
    await bench.warehouse.fit(first.layout)
    await bench.warehouse.load(first)
    assert await bench.warehouse.positions() == {"a": 20, "b": 7}
    await bench.warehouse.load(load_of(await staged(bench, "a", 20, 30, 4)))
    assert await bench.warehouse.positions() == {"a": 30, "b": 7}
    assert await bench.count() == 9


async def refuses_loads_that_repeat_or_leave_a_gap(bench: Bench) -> None:
    load = load_of(await staged(bench, "a", 0, 10, 3))
    await bench.warehouse.positions()
    await bench.warehouse.fit(load.layout)
    await bench.warehouse.load(load)
    for wrong in (load, load_of(await staged(bench, "a", 11, 20, 1)), load_of(await staged(bench, "b", 5, 6, 1), *load.links)):
        assert (await failure(bench, wrong)) is Failure.RACE
    assert await bench.warehouse.positions() == {"a": 10}
    assert await bench.count() == 3


async def loads_all_or_nothing(bench: Bench) -> None:
    good, bad = await staged(bench, "a", 0, 10, 3), await staged(bench, "b", 0, 10, 3)
    await bench.staging.delete(bad.files[0].url.removeprefix(bench.config.url))
    await bench.warehouse.positions()
    await bench.warehouse.fit(good.layout)
    assert (await failure(bench, load_of(good, bad))) is Failure.DATA
    assert await bench.warehouse.positions() == {}
    assert await bench.count() == 0
    await bench.warehouse.load(load_of(good))
    assert await bench.count() == 3


async def counts_the_rows_that_it_copies(bench: Bench) -> None:
    link = await staged(bench, "a", 0, 10, 3)
    (file,) = link.files
    wrong = Link("a", 0, 10, (StagedFile(file.url, file.size, 4),), link.layout)
    await bench.warehouse.positions()
    await bench.warehouse.fit(link.layout)
    assert (await failure(bench, load_of(wrong))) is Failure.DATA
    assert await bench.count() == 0


async def knows_what_was_loaded_by_when(bench: Bench) -> None:
    load = load_of(await staged(bench, "a", 0, 10, 1))
    await bench.warehouse.positions()
    await bench.warehouse.fit(load.layout)
    await bench.warehouse.load(load)
    assert await bench.warehouse.positions_before(datetime(2000, 1, 1, tzinfo=UTC)) == {}
    assert await bench.warehouse.positions_before(datetime.now(UTC) + timedelta(days=1)) == {"a": 10}  # noqa: TID251 - the real clock


async def failure(bench: Bench, load: Load) -> Failure:
    try:
        await bench.warehouse.load(load)
    except LoadFailed as error:
        return error.failure
    raise AssertionError("the load was not refused")


async def counts_its_rows_by_shard(bench: Bench) -> None:
    assert not await bench.warehouse.row_counts()
    load = load_of(await staged(bench, "a", 0, 10, 3), await staged(bench, "b", 0, 7, 2))
    await bench.warehouse.positions()
    await bench.warehouse.fit(load.layout)
    assert not await bench.warehouse.row_counts()
    await bench.warehouse.load(load)
    assert await bench.warehouse.row_counts() == {"s": 5}  # what tests.frames.rows says
    await bench.warehouse.load(load_of(await staged(bench, "b", 7, 9, 0), await staged(bench, "a", 10, 20, 1)))
    assert await bench.warehouse.row_counts() == {"s": 6}


async def finds_the_records_that_have_a_value(bench: Bench) -> None:
    assert await bench.warehouse.records({"n": "1"}, 10) is None
    load = load_of(await staged(bench, "a", 0, 10, 3), await staged(bench, "b", 0, 7, 2))
    await bench.warehouse.positions()
    await bench.warehouse.fit(load.layout)
    await bench.warehouse.load(load)
    (found,) = await bench.warehouse.records({"n": "1"}, 10) or []
    assert found[0] == "s"  # what tests.frames.rows says
    assert await bench.warehouse.records({"n": "7"}, 10) == []
    word = 'it\'s; "x" ü'
    everything = await bench.warehouse.records({"word": word}, 10) or []
    assert found in everything
    assert len(everything) == 3  # of the five rows, some are of one record: tests.frames.rows counts from the first on in each unit
    assert len(await bench.warehouse.records({"word": word}, 2) or []) == 2
    assert await bench.warehouse.records({"nothing": "1"}, 10) is None
    assert await bench.warehouse.records({"word": word, "n": "1"}, 10) == [found]
    assert await bench.warehouse.records({"n": "1", "word": "other"}, 10) == []
    assert await bench.warehouse.records({"word": "other", "n": "1"}, 10) == []
    assert await bench.warehouse.records({"n": "1", "nothing": "1"}, 10) is None


BEHAVIOURS = (
    continues_where_the_ledger_ends,
    refuses_loads_that_repeat_or_leave_a_gap,
    loads_all_or_nothing,
    counts_the_rows_that_it_copies,
    knows_what_was_loaded_by_when,
    counts_its_rows_by_shard,
    finds_the_records_that_have_a_value,
)
