"""The Iceberg warehouse with a catalog in SQLite and files in a directory; other engines read what PyIceberg writes."""

import asyncio
import sqlite3
from contextlib import ExitStack, closing
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyiceberg.catalog import load_catalog
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import CommitStateUnknownException, ForbiddenError
from pyiceberg.expressions import EqualTo, GreaterThan, IsNaN, NotEqualTo
from pyiceberg.types import StringType

from stream.batch import ROW
from stream.errors import Retryable
from stream.pipeline.components import make_sink
from stream.sink.encode import ROW_GROUP_ROWS
from stream.sink.iceberg import IcebergSinkConfig
from stream.sink.loads import Failure, Link, StagedFile
from stream.storage.directory import DirectoryStore
from stream.storage.memory import MemoryStore
from stream.worker.tables.iceberg import ACCOUNT, LOADED, IcebergWarehouse
from stream.worker.tables.iceberg_catalog import CatalogTable
from stream.worker.tables.loaded_positions import LoadedPositions
from stream.worker.tables.warehouse import LoadFailed
from tests.clocks import ShiftedClock
from tests.contract import warehouse as contract
from tests.contract.warehouse import Bench, failure, load_of
from tests.frames import rows

SHARED = [each for each in contract.BEHAVIOURS if each is not contract.knows_what_was_loaded_by_when]


class Place:
    """A catalog and the folder of one table."""

    def __init__(self, folder, **options):
        self.catalog = {"type": "sql", "uri": f"sqlite:///{folder}/catalog.db", "warehouse": f"file://{folder}/warehouse"}
        self.url = f"file://{folder}/table/"
        self.store = DirectoryStore(folder / "table", fsync=False, url=self.url)
        self.options = options
        self.state = MemoryStore(url="memory:state")
        self.opened = ExitStack()
        self.clock = ShiftedClock()

    def config(self, **options):
        given = {"location": self.url, "table": "lake.events", "catalog": self.catalog, **self.options, **options}
        return IcebergSinkConfig.model_validate(given)

    def bench(self, **options):
        config = self.config(**options)
        return Bench(self.table(config), config, self.store, self.count)

    def table(self, config=None, stream="events", sink="lake"):
        async def properties():
            return self.catalog

        table = CatalogTable(config or self.config(), self.url, properties)
        self.opened.callback(table.close)
        accounts = LoadedPositions(self.state, sink, stream, table.config.unique_table)
        return IcebergWarehouse(table, "flights", stream, accounts, self.clock)

    def accounts(self):
        return sorted(key.rpartition("/")[2] for key in self.state._objects if "/accounts/" in key)

    def reader(self):
        catalog = load_catalog("default", **self.catalog)
        self.opened.callback(catalog.close)
        return catalog

    def read(self):
        return self.reader().load_table("lake.events")

    def frame(self):
        return pl.from_arrow(self.read().scan().to_arrow())

    async def count(self):
        return self.frame().height if self.read_or_none() else 0

    def read_or_none(self):
        catalog = self.reader()
        return catalog.load_table("lake.events") if catalog.table_exists("lake.events") else None


@pytest.fixture
def place(tmp_path):
    place = Place(tmp_path)
    with place.opened:
        yield place


def link_of(bench, frame, after=0, last=10, shard="a"):
    """A unit's link, its files where the sink puts them."""
    sink = make_sink(bench.config, frame.schema)
    encoded = sink.encode(frame, f"{shard}-{after}-{last}")
    for file in encoded.files:
        asyncio.run(bench.staging.put(file.key, file.body))
    files = tuple(StagedFile(f"{bench.staging.url}{file.key}", len(file.body), file.rows) for file in encoded.files)
    return Link(shard, after, last, files, sink.layout, "2026-01-01T00:00:00+00:00")


def load(bench, *links):
    async def run():
        loaded = load_of(*links)
        await bench.warehouse.fit(loaded.layout)
        await bench.warehouse.load(loaded)

    asyncio.run(run())


@pytest.mark.parametrize("behaviour", SHARED, ids=lambda each: each.__name__)
def test_it_keeps_the_promises_of_a_warehouse(place, behaviour):
    asyncio.run(behaviour(place.bench()))


def test_files_belong_to_the_table_so_none_may_be_removed(place):
    bench = place.bench()
    load(bench, link_of(bench, rows({"n": [1]})))
    assert asyncio.run(bench.warehouse.positions_before(datetime(2100, 1, 1, tzinfo=UTC))) == {}
    assert place.frame().height == 1


def test_a_commit_whose_reply_was_lost_is_not_repeated(place, monkeypatch):
    bench = place.bench()
    link = link_of(bench, rows({"n": [1, 2, 3]}))
    asyncio.run(bench.warehouse.fit(link.layout))
    commit = SqlCatalog.commit_table

    def lost(*given, **more):
        commit(*given, **more)
        raise CommitStateUnknownException("the connection was cut")

    with monkeypatch.context() as patched:
        patched.setattr(SqlCatalog, "commit_table", lost)
        with pytest.raises(Retryable, match="the connection was cut"):
            asyncio.run(bench.warehouse.load(load_of(link)))
    assert asyncio.run(bench.warehouse.positions()) == {"a": 10}
    assert asyncio.run(failure(bench, load_of(link))) is Failure.RACE
    assert place.frame().height == 3


def test_of_two_loaders_in_the_same_state_exactly_one_commits(place, monkeypatch):
    """The second has read the table before the first commits; PyIceberg itself would add the files again."""
    one, two = place.bench(), place.bench()
    link = link_of(one, rows({"n": [1, 2, 3]}))
    asyncio.run(one.warehouse.fit(link.layout))
    commit, first = SqlCatalog.commit_table, []

    def overtaken(self, *given, **more):
        if not first:
            first.append(True)
            asyncio.run(two.warehouse.load(load_of(link)))
        return commit(self, *given, **more)

    monkeypatch.setattr(SqlCatalog, "commit_table", overtaken)
    with pytest.raises(Retryable, match="CommitFailedException"):
        asyncio.run(one.warehouse.load(load_of(link)))
    assert place.frame().height == 3
    assert len(place.read().snapshots()) == 1


def test_a_concurrent_commit_costs_one_attempt_and_keeps_the_other_writers_rows(place, monkeypatch):
    bench = place.bench(lineage=False)
    load(bench, link_of(bench, rows({"n": [1]}), 0, 10))
    commit, first = SqlCatalog.commit_table, []

    def overtaken(self, *given, **more):
        if not first:
            first.append(True)
            place.read().append(pa.table({"n": pa.array([100], pa.int64())}))
        return commit(self, *given, **more)

    link = link_of(bench, rows({"n": [2]}), 10, 20)
    with monkeypatch.context() as patched:
        patched.setattr(SqlCatalog, "commit_table", overtaken)
        with pytest.raises(Retryable):
            asyncio.run(bench.warehouse.load(load_of(link)))
    asyncio.run(bench.warehouse.load(load_of(link)))
    assert sorted(place.frame()["n"]) == [1, 2, 100]


def test_after_a_rollback_rows_are_loaded_again_only_if_the_account_is_set_back_too(place):
    bench = place.bench()
    links = [link_of(bench, rows({"n": [after]}), after, after + 10) for after in (0, 10, 20)]
    load(bench, links[0])
    before = place.read().current_snapshot()
    load(bench, *links[1:])
    table = place.read()
    with table.manage_snapshots() as change:
        change.rollback_to_snapshot(before.snapshot_id)
    assert place.frame()["n"].to_list() == [0]
    assert asyncio.run(bench.warehouse.positions()) == {"a": 30}
    with table.transaction() as change:
        change.set_properties({f"{LOADED}flights/events": before.summary[ACCOUNT]})
    assert asyncio.run(bench.warehouse.positions()) == {"a": 10}
    load(bench, *links[1:])
    assert sorted(place.frame()["n"]) == [0, 10, 20]


def test_each_stream_and_application_has_its_own_positions_in_a_shared_table(place):
    bench = place.bench()
    link = link_of(bench, rows({"n": [1]}))
    load(bench, link)
    other = place.table(stream="clicks")
    assert asyncio.run(other.positions()) == {}
    asyncio.run(other.load(load_of(link_of(bench, rows({"n": [2]}), 0, 5))))
    assert asyncio.run(other.positions()) == {"a": 5}
    assert asyncio.run(bench.warehouse.positions()) == {"a": 10}


def test_a_dropped_table_is_loaded_from_the_beginning(place):
    bench = place.bench()
    link = link_of(bench, rows({"n": [1, 2]}))
    load(bench, link)
    place.read().catalog.drop_table("lake.events")
    with pytest.raises(Retryable, match=r"lake\.events is gone"):
        asyncio.run(bench.warehouse.load(load_of(link)))
    assert asyncio.run(bench.warehouse.positions()) == {}
    load(bench, link)
    assert place.frame().height == 2


def test_a_table_that_another_loader_creates_meanwhile_is_used_at_the_next_attempt(place, monkeypatch):
    one, two = place.bench(), place.bench()
    link = link_of(one, rows({"n": [1]}))
    exists = SqlCatalog.namespace_exists

    def overtaken(self, *given):
        monkeypatch.undo()
        asyncio.run(two.warehouse.fit(link.layout))
        return exists(self, *given)

    monkeypatch.setattr(SqlCatalog, "namespace_exists", overtaken)
    with pytest.raises(Retryable, match=r"lake\.events was created by somebody else at the same moment"):
        load(one, link)
    load(one, link)
    assert place.frame().height == 1


# --- columns ---------------------------------------------------------------------------------------------------------------------

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
EVERYTHING = {
    "tiny": ([1, None], pl.Int8()),
    "wide": ([2**32 - 1, None], pl.UInt32()),
    "huge": ([2**64 - 1, None], pl.UInt64()),
    "long": ([-(2**63), None], pl.Int64()),
    "real": ([0.5, None], pl.Float32()),
    "double": ([float("inf"), None], pl.Float64()),
    "flag": ([True, None], pl.Boolean()),
    "text": (["ü\0\n", None], pl.String()),
    "kind": (["x", None], pl.Categorical()),
    "bytes": ([b"\xff\0", None], pl.Binary()),
    "day": ([date(1, 1, 1), None], pl.Date()),
    "money": ([Decimal("-12345678901234567890.123"), None], pl.Decimal(38, 3)),
    "at": ([NOON + timedelta(milliseconds=1), None], pl.Datetime("ms", "Europe/Berlin")),
    "wall": ([NOON.replace(tzinfo=None, microsecond=1), None], pl.Datetime("us")),
    "tags": ([["a", None], None], pl.List(pl.String)),
    "pairs": ([[{"k": 1, "v": [1, 2]}], None], pl.List(pl.Struct({"k": pl.UInt8, "v": pl.List(pl.Int16)}))),
    "place": ([{"lat": 1.5, "name": {"de": "Köln"}}, None], pl.Struct({"lat": pl.Float64, "name": pl.Struct({"de": pl.String})})),
    "fixed": ([[1, 2], None], pl.Array(pl.Int64, 2)),
    "nothing": ([None, None], pl.Null()),
}


def everything():
    return rows({name: values for name, (values, _) in EVERYTHING.items()}, {name: dtype for name, (_, dtype) in EVERYTHING.items()})


def test_values_of_all_types_are_read_back(place):
    bench = place.bench()
    load(bench, link_of(bench, everything()))
    found = place.frame()
    for name, (values, _) in EVERYTHING.items():
        # PyIceberg 0.12 itself reads a list of structs that is missing as an empty one.
        assert found[name].to_list() == ([values[0], []] if name == "pairs" else values), name
    types = {field.name: str(field.field_type) for field in place.read().schema().fields}
    assert (types["huge"], types["at"], types["wall"], types["tiny"]) == ("decimal(20, 0)", "timestamptz", "timestamp", "int")
    assert types["_sequence"] == "string"


def test_the_native_reader_of_polars_finds_the_same_rows(place, monkeypatch):
    monkeypatch.setenv("POLARS_ICEBERG_PLANNER", "pyiceberg")
    bench = place.bench()
    load(bench, link_of(bench, everything()))
    found = pl.scan_iceberg(place.read(), reader_override="native").collect()
    for name, (values, _) in EVERYTHING.items():
        assert found[name].to_list() == values, name


def test_a_decimal_is_found_however_many_places_it_is_written_with(place):
    bench = place.bench()
    prices = rows({"price": [Decimal("76.50"), Decimal("7.00")]}, {"price": pl.Decimal(12, 2)})
    link = link_of(bench, prices)

    async def run():
        await bench.warehouse.positions()
        await bench.warehouse.fit(link.layout)
        await bench.warehouse.load(load_of(link))
        return [await bench.warehouse.records({"price": text}, 10) for text in ("76.50", "76.5", "7", "8", "76.505", "many")]

    found = asyncio.run(run())
    assert [None if each is None else [sequence for _, sequence, _ in each] for each in found] == [["0"], ["0"], ["1"], [], None, None]


def test_new_columns_are_added_and_are_null_in_older_rows(place):
    bench = place.bench(lineage=False)
    load(bench, link_of(bench, rows({"n": [1]}), 0, 10))
    load(bench, link_of(bench, rows({"n": [2], "more": ["x"]}), 10, 20))
    load(bench, link_of(bench, rows({"more": ["y"]}), 20, 30))
    assert sorted(place.frame().select("n", "more").iter_rows(), key=str) == [(1, None), (2, "x"), (None, "y")]


def test_columns_are_not_added_with_evolve_halt(place):
    bench = place.bench()
    load(bench, link_of(bench, rows({"n": [1]})))
    strict = place.bench(evolve="halt")
    with pytest.raises(LoadFailed, match="lacks the columns more; add them, or write `evolve: add`"):
        load(strict, link_of(strict, rows({"n": [2], "more": ["x"]}), 10, 20))


def test_an_incompatible_type_stops_all_loads_with_an_error(place):
    bench = place.bench()
    load(bench, link_of(bench, rows({"n": [1]})))
    with pytest.raises(LoadFailed, match="cannot take these columns") as caught:
        load(bench, link_of(bench, rows({"n": ["text"]}), 10, 20))
    assert caught.value.failure is Failure.SETUP


def test_a_column_is_widened_and_narrower_values_still_fit(place):
    bench = place.bench(lineage=False)
    load(bench, link_of(bench, rows({"n": [1]}, {"n": pl.Int32()}), 0, 10))
    load(bench, link_of(bench, rows({"n": [2**40]}, {"n": pl.Int64()}), 10, 20))
    load(bench, link_of(bench, rows({"n": [3]}, {"n": pl.Int32()}), 20, 30))
    assert sorted(place.frame()["n"]) == [1, 3, 2**40]


def test_a_column_that_somebody_changed_in_the_table_is_named_in_a_phrase(place):
    bench = place.bench(lineage=False)
    load(bench, link_of(bench, rows({"n": [1], "more": [1]}, {"n": pl.Int32(), "more": pl.Int32()})))
    late = link_of(bench, rows({"n": [2], "more": [2]}, {"n": pl.Int32(), "more": pl.Int32()}), 10, 20)

    def refused():
        with pytest.raises(LoadFailed) as caught:
            asyncio.run(bench.warehouse.load(load_of(late)))
        assert caught.value.failure is Failure.DATA
        return str(caught.value).removeprefix(f"{late.files[0].url} does not fit {bench.config.table}: ")

    with place.read().update_schema(allow_incompatible_changes=True) as change:
        change.delete_column("more")
    assert refused() == "the table lacks the columns more"
    with place.read().update_schema() as change:
        change.add_column("more", StringType())
    assert refused() == "the table has `more: optional string`, the file `more: optional int`"


def test_a_table_is_not_created_with_create_false(place):
    bench = place.bench(create=False)
    with pytest.raises(LoadFailed, match=r"there is no table lake\.events; create it") as caught:
        load(bench, link_of(bench, rows({"n": [1]})))
    assert caught.value.failure is Failure.SETUP


# --- partitions ------------------------------------------------------------------------------------------------------------------


def moments():
    times = [datetime(2026, 1, 1, 23, 59, 59, 999999, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC), datetime(1969, 12, 31, 23, tzinfo=UTC)]
    columns = {"at": [*times, None, None], "origin": ["JFK", None, "a/b=c%", "", "JFK"], "n": [1, 2, 3, 4, 5]}
    return rows(columns, {"at": pl.Datetime("us", "UTC"), "origin": pl.String(), "n": pl.Int64()})


@pytest.mark.parametrize("fields", [["year(at)"], ["month(at)"], ["day(at)"], ["hour(at)"], ["day(at)", "origin"], ["origin"], ["n"]])
def test_each_file_has_one_partition_and_engines_can_prune_by_it(place, fields):
    bench = place.bench(partition_by=fields)
    link = link_of(bench, moments())
    load(bench, link)
    assert sorted(place.frame()["n"]) == [1, 2, 3, 4, 5]
    table = place.read()
    assert [field.name for field in table.spec().fields] == [field.name for field in bench.config.fields]
    files = {row["file_path"]: row["partition"] for row in table.inspect.files().to_pylist()}
    assert len(files) == len(link.files) == len({str(partition) for partition in files.values()})
    if "origin" in fields:
        wanted = [task.file.file_path for task in table.scan(row_filter="origin == 'a/b=c%'").plan_files()]
        assert len(wanted) == 1
        assert table.scan(row_filter="origin == 'a/b=c%'").to_arrow()["n"].to_pylist() == [3]


@pytest.mark.parametrize("text", ["\ud7ff" * 20, "x" * 15 + "\ud7ff" + "tail", "\U0010ffff" * 20])
@pytest.mark.parametrize("partition_by", [[], ["t"]])
def test_text_ending_in_the_last_character_before_a_gap_is_loaded_and_found(place, text, partition_by):
    bench = place.bench(partition_by=partition_by, properties={"write.metadata.metrics.column.t": "truncate(4)"})
    load(bench, link_of(bench, rows({"t": [text, "a", None]})))
    assert place.read().scan(row_filter=EqualTo("t", text)).to_arrow().num_rows == 1
    assert place.read().scan(row_filter=EqualTo("t", "a")).to_arrow().num_rows == 1


@pytest.mark.parametrize(
    ("values", "condition"),
    [
        ({"v": ["b"] * ROW_GROUP_ROWS + ["z" * 5000]}, GreaterThan("v", "c")),
        ({"v": [1.5] * ROW_GROUP_ROWS + [float("nan")]}, IsNaN("v")),
        ({"v": [1.5, float("nan"), 1.5]}, NotEqualTo("v", 1.5)),
    ],
    ids=["long text", "NaN in a row group of its own", "NaN among others"],
)
def test_column_bounds_never_hide_a_row(place, values, condition):
    bench = place.bench()
    load(bench, link_of(bench, rows(values)))
    assert place.read().scan(row_filter=condition).to_arrow().num_rows == 1


def test_a_table_partitioned_differently_from_the_files_is_refused(place):
    bench = place.bench()
    load(bench, link_of(bench, moments()))
    with place.read().update_spec() as update:
        update.add_field("at", "day", "at_day")
    with pytest.raises(LoadFailed, match=r"is partitioned by day\(at\), but the files of this sink are not") as caught:
        load(bench, link_of(bench, moments(), 10, 20))
    assert caught.value.failure is Failure.SETUP
    # Once the sink splits its files, what was staged before is refused on its own, and nothing else is.
    split = place.bench(partition_by=["day(at)", "origin"])
    load(split, link_of(split, moments(), 10, 20))
    assert place.frame().height == 10


def test_files_that_span_partitions_are_refused_for_their_unit_alone(place):
    split, whole = place.bench(partition_by=["day(at)"]), place.bench()
    load(split, link_of(split, moments(), 0, 10))
    assert asyncio.run(failure(split, load_of(link_of(whole, moments(), 10, 20)))) is Failure.DATA
    assert place.frame().height == 5


# --- what goes wrong -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("values", "refused"), [(["a", None], True), (["a", "b"], True), (["a", "a"], False), ([None, None], False)])
def test_files_staged_before_the_table_was_partitioned_need_a_single_partition(place, values, refused):
    """They wait while the table and the sink get a partition; without this, rows without a value would be found under another one's."""
    before, after = place.bench(), place.bench(partition_by=["origin"])
    load(before, link_of(before, rows({"origin": ["x"]})))
    waiting = link_of(before, rows({"origin": values}), 10, 20)
    with place.read().update_spec() as update:
        update.add_identity("origin")
    if refused:
        assert asyncio.run(failure(after, load_of(waiting))) is Failure.DATA
        assert place.frame().height == 1
        # What the message says to do.
        with pytest.raises(LoadFailed, match=r"ALTER TABLE lake\.events DROP PARTITION FIELD origin"):
            asyncio.run(after.warehouse.load(load_of(waiting)))
        with place.read().update_spec() as update:
            update.remove_field("origin")
        load(after, waiting)
        with place.read().update_spec() as update:
            update.add_identity("origin")
        load(after, link_of(after, rows({"origin": ["z"]}), 20, 30))
        assert sorted(place.frame()["origin"].to_list(), key=str) == sorted(["x", *values, "z"], key=str)
    else:
        load(after, waiting)
        assert place.frame()["origin"].to_list().count(values[0]) == 2


def test_nothing_is_committed_with_a_time_before_the_last_commit(place):
    """Java's ``TableMetadata`` refuses to read a table whose log of snapshots goes back by more than a minute."""
    bench = place.bench()
    load(bench, link_of(bench, rows({"n": [1]})))
    place.clock.ahead = timedelta(minutes=-4)
    with pytest.raises(LoadFailed, match=r"this machine's clock is 2[34]\d s behind the last commit of lake.events") as caught:
        load(bench, link_of(bench, rows({"n": [2]}), 10, 20))
    assert caught.value.failure is Failure.SETUP
    # Once the columns fit, a loader only commits.
    assert asyncio.run(failure(bench, load_of(link_of(bench, rows({"n": [2]}), 10, 20)))) is Failure.SETUP
    assert place.frame().height == 1
    place.clock.ahead = timedelta(seconds=-30)
    load(bench, link_of(bench, rows({"n": [2]}), 10, 20))
    assert place.frame().height == 2


def test_a_denied_call_needs_a_person_and_a_lost_connection_is_retryable(place, monkeypatch):
    bench = place.bench()
    link = link_of(bench, rows({"n": [1]}))
    load(bench, link)
    for error, wanted in ((ForbiddenError("no"), LoadFailed), (OSError("connection reset"), Retryable)):

        def refuses(*_given, error=error, **_more):
            raise error

        with monkeypatch.context() as patched:
            patched.setattr(SqlCatalog, "load_table", refuses)
            with pytest.raises(wanted, match=str(error)) as caught:
                asyncio.run(bench.warehouse.positions())
        assert not isinstance(caught.value, LoadFailed) or caught.value.failure is Failure.SETUP


def test_a_missing_or_edited_positions_file_stops_all_loads(place):
    bench = place.bench()
    load(bench, link_of(bench, rows({"n": [1]})))
    (name,) = [value for key, value in place.read().properties.items() if key == f"{LOADED}flights/events"]
    key = f"loads/lake/events/accounts/{name}.json"
    body = asyncio.run(place.state.get(key)).body
    for change, words in ((b'{"a":"5"}', "was changed"), (None, "is missing")):
        asyncio.run(place.state.delete(key) if change is None else place.state.put(key, change))
        with pytest.raises(LoadFailed, match=words) as caught:
            asyncio.run(bench.warehouse.positions())
        assert caught.value.failure is Failure.SETUP
    asyncio.run(place.state.put(key, body))
    assert asyncio.run(bench.warehouse.positions()) == {"a": 10}


def test_positions_written_under_an_earlier_name_of_the_sink_count(place):
    bench, renamed = place.bench(), place.table(sink="clicks")
    load(bench, link_of(bench, rows({"n": [1]})))
    assert asyncio.run(renamed.positions()) == {"a": 10}
    asyncio.run(renamed.load(load_of(link_of(bench, rows({"n": [2]}), 10, 20))))
    assert asyncio.run(renamed.positions()) == asyncio.run(bench.warehouse.positions()) == {"a": 20}


def test_old_positions_files_are_removed_and_the_current_one_is_kept(place):
    bench = place.bench()
    for number in range(3):
        load(bench, link_of(bench, rows({"n": [number]}), 10 * number, 10 * number + 10))
    assert len(place.accounts()) == 3
    asyncio.run(bench.warehouse.forget(datetime(2000, 1, 1, tzinfo=UTC)))
    assert len(place.accounts()) == 3
    asyncio.run(bench.warehouse.forget(datetime(2100, 1, 1, tzinfo=UTC)))
    assert len(place.accounts()) == 1
    assert len(place.state._objects) == 2
    assert asyncio.run(bench.warehouse.positions()) == {"a": 30}


class MarkedMeanwhile(MemoryStore):
    """Has another table's mark of an account come just as the account is deleted; notes what is deleted."""

    mark = ""

    def __init__(self, url):
        super().__init__(url=url)
        self.deleted = []

    async def delete(self, key):
        if self.mark and "/accounts/" in key:
            await self.put(self.mark, b"")
        self.deleted.append(key.rpartition("/")[2])
        await super().delete(key)


def test_the_current_positions_of_a_table_stay_while_another_one_has_the_name_of_its_sink(place):
    """The sink may get its former table back after years; what that one has would be unknown."""
    far, place.state = datetime(2100, 1, 1, tzinfo=UTC), MarkedMeanwhile("memory:state")
    first, second = place.bench(), place.bench(table="lake.others")
    load(first, link_of(first, rows({"n": [1]})))
    load(second, link_of(second, rows({"n": [1]})))  # to the same positions, so that both name one account
    (shared,) = place.accounts()
    load(second, link_of(second, rows({"n": [2]}), 10, 20))
    asyncio.run(second.warehouse.forget(far))
    assert shared in place.accounts()
    assert shared not in place.state.deleted  # the other table's loader may look at any moment
    assert asyncio.run(first.warehouse.positions()) == {"a": 10}
    load(first, link_of(first, rows({"n": [2]}), 10, 20))
    load(first, link_of(first, rows({"n": [3]}), 20, 30))
    asyncio.run(first.warehouse.forget(far))
    assert shared not in place.accounts()
    assert [asyncio.run(each.warehouse.positions()) for each in (first, second)] == [{"a": 30}, {"a": 20}]


def test_an_account_that_another_table_comes_to_while_it_is_removed_is_there_again(place):
    place.state = MarkedMeanwhile("memory:state")
    first = place.bench()
    for number in range(2):
        load(first, link_of(first, rows({"n": [number]}), 10 * number, 10 * number + 10))
    (old,) = {key for key in place.accounts() if asyncio.run(first.warehouse._accounts.read(key.removesuffix(".json"))) == {"a": 10}}
    place.state.mark = f"loads/lake/events/accounts_of/others/{old.removesuffix('.json')}"
    asyncio.run(first.warehouse.forget(datetime(2100, 1, 1, tzinfo=UTC)))
    assert old in place.accounts()


def test_accounts_of_older_builds_are_not_removed_since_nobody_knows_whose_they_are(place):
    bench = place.bench()
    load(bench, link_of(bench, rows({"n": [1]})))
    asyncio.run(place.state.put("loads/lake/events/accounts/abc.json", b"{}"))
    asyncio.run(bench.warehouse.forget(datetime(2100, 1, 1, tzinfo=UTC)))
    assert "abc.json" in place.accounts()


def test_long_names_fit_into_table_properties(place):
    async def properties():
        return place.catalog

    tables = {stream: CatalogTable(place.config(), place.url, properties) for stream in "bc"}
    warehouses = [
        IcebergWarehouse(
            table,
            "a" * 128,
            stream * 128,
            LoadedPositions(place.state, "lake", stream, ("lake",)),
            place.clock,
        )
        for stream, table in tables.items()
    ]
    for table in tables.values():
        place.opened.callback(table.close)
    link = link_of(place.bench(), rows({"n": [1]}))
    asyncio.run(warehouses[0].fit(link.layout))
    asyncio.run(warehouses[0].load(load_of(link)))
    assert [asyncio.run(each.positions()) for each in warehouses] == [{"a": 10}, {}]
    assert max(map(len, place.read().properties)) <= 255


def test_a_table_with_required_columns_is_refused(place):
    from pyiceberg.schema import Schema
    from pyiceberg.types import LongType, NestedField

    catalog = place.table()
    assert asyncio.run(catalog.positions()) == {}
    made = place.reader()
    made.create_namespace("lake")
    made.create_table("lake.events", Schema(NestedField(1, "n", LongType(), required=True)))
    bench = place.bench(lineage=False)
    with pytest.raises(LoadFailed, match="requires values in the columns n"):
        load(bench, link_of(bench, rows({"n": [1]})))


@settings(max_examples=12)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 3), st.sampled_from(["fine", "lost", "refused"])), max_size=8))
def test_whatever_happens_to_commits_each_row_is_in_the_table_once(tmp_path_factory, steps):
    """A loader that follows the account: what it says is loaded is loaded, and nothing else."""
    place = Place(tmp_path_factory.mktemp("table"))
    with place.opened:
        bench = place.bench()
        expected = 0
        commit = SqlCatalog.commit_table
        asyncio.run(bench.warehouse.fit(link_of(bench, rows({"n": [0]})).layout))
        for shard, count, fate in steps:

            def commit_with_fate(*given, fate=fate, **more):
                if fate == "refused":
                    raise OSError("connection refused")
                answer = commit(*given, **more)
                if fate == "lost":
                    raise OSError("connection reset")
                return answer

            after = asyncio.run(bench.warehouse.positions()).get(shard, 0)
            link = link_of(bench, rows({"n": list(range(count + 1))}), after, after + 10, shard)
            with pytest.MonkeyPatch.context() as patched:
                patched.setattr(SqlCatalog, "commit_table", commit_with_fate)
                try:
                    asyncio.run(bench.warehouse.load(load_of(link)))
                except Retryable:
                    assert fate != "fine"
            moved = asyncio.run(bench.warehouse.positions()).get(shard, 0) != after
            assert moved == (fate != "refused")
            expected += (count + 1) * moved
        assert asyncio.run(place.count()) == expected


def test_the_catalog_holds_exactly_one_table(place):
    bench = place.bench()
    load(bench, link_of(bench, rows({"n": [1]})))
    with closing(sqlite3.connect(place.catalog["uri"].removeprefix("sqlite:///"))) as connection:
        assert connection.execute("SELECT count(*) FROM iceberg_tables").fetchall() == [(1,)]


def test_the_row_number_is_written_to_no_file(place):
    bench = place.bench()
    load(bench, link_of(bench, rows({"n": [1]})))
    assert ROW not in place.frame().columns
