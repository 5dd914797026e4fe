"""A pipeline with an Iceberg table, from its objects to the rows that another reader finds, and what commands say of it."""

import asyncio
import json
from contextlib import AsyncExitStack

import polars as pl
import pytest
from pyiceberg.catalog import load_catalog
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import ForbiddenError
from typer.testing import CliRunner

from stream.cli.loads import _open
from stream.cli.main import app
from stream.pipeline.namespace import in_namespace
from stream.worker.tables.loading import Loader
from tests.replays import Place, row

SINK = """
  - iceberg:
      location: "file:./table"
      table: lake.events
      catalog: {{type: sql, uri: "sqlite:///{folder}/catalog.db", warehouse: "file://{folder}/warehouse"}}
      partition_by: [{fields}]
"""


class Lake(Place):
    fields = "day(_arrival), kind"

    def text(self, **changes):
        text = super().text(**changes)
        sink = SINK.format(folder=self.folder, fields=self.fields)
        return text.replace('\n  - s3: {url: "file:./lake", partition_by: [kind]}\n', sink)

    def catalog(self):
        return load_catalog("default", type="sql", uri=f"sqlite:///{self.folder}/catalog.db", warehouse=f"file://{self.folder}/warehouse")

    def table(self):
        catalog = self.catalog()
        try:
            return pl.from_arrow(catalog.load_table("lake.events").scan().to_arrow())
        finally:
            catalog.close()

    def invoke(self, *command):
        return CliRunner().invoke(app, [*command[:-1], str(self.file()), *([command[-1]] if command[-1] else [])])


@pytest.fixture
def lake(tmp_path, monkeypatch):
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    return Lake(tmp_path, {"rows": 50})


def numbers_of(frame):
    return frame["id"].sort().to_list()


def test_a_finished_run_has_loaded_what_it_sealed_and_the_next_adds_new_rows(lake):
    lake.lines("a.json", range(300))
    assert lake.run().code == 0
    found = lake.table()
    assert numbers_of(found) == list(range(300))
    assert found.sort("id").select("id", "kind", "value").to_dicts() == [row(number) for number in range(300)]
    lake.lines("b.json", range(300, 500))
    assert lake.run().code == 0
    assert numbers_of(lake.table()) == list(range(500))
    assert lake.proof() == []


def test_a_catalog_that_refuses_fails_the_run_and_loses_no_row(lake, monkeypatch):
    lake.lines("a.json", range(120))

    def refuse(*_given, **_more):
        raise ForbiddenError("not this role")

    with monkeypatch.context() as patched:
        patched.setattr(SqlCatalog, "commit_table", refuse)
        end = lake.run()
    assert end.code == 1
    assert "rows that this run sealed are not loaded (iceberg: " in end.error
    assert "the files of lake.events is denied: ForbiddenError: not this role" in end.error
    assert lake.run().code == 0
    assert numbers_of(lake.table()) == list(range(120))


def test_loads_trace_and_doctor_know_the_table(lake):
    lake.lines("a.json", range(60))
    assert lake.run().code == 0
    listed = lake.invoke("loads", "ls", "--json")
    assert listed.exit_code == 0, listed.output
    (sink,) = json.loads(listed.stdout)
    assert (sink["sink"], {row["units_waiting"] for row in sink["shards"]}) == ("iceberg", {0})
    sequence = lake.table()["_sequence"][0]
    traced = CliRunner().invoke(app, ["trace", str(lake.file()), sequence])
    assert traced.exit_code == 0, traced.output
    assert "table/data/_arrival_day=" in traced.output.replace("\n", "")
    looked = lake.invoke("doctor", "")
    assert "table lake.events in the catalog of type sql" in looked.output
    assert "the table has" in looked.output


@pytest.mark.parametrize("command", [("loads", "ls", ""), ("status", ""), ("audit", "verify", ""), ("doctor", "")], ids=" ".join)
def test_workers_and_commands_close_every_catalog_that_they_open(lake, monkeypatch, command):
    opened, closed, opens, closes = set(), set(), SqlCatalog.__init__, SqlCatalog.close

    def open_one(catalog, *given, **more):
        opens(catalog, *given, **more)
        opened.add(catalog)

    def close_one(catalog):
        closes(catalog)
        closed.add(catalog)

    monkeypatch.setattr(SqlCatalog, "__init__", open_one)
    monkeypatch.setattr(SqlCatalog, "close", close_one)
    lake.lines("a.json", range(60))
    assert lake.run().code == 0
    assert len(opened) == 1
    assert closed == opened
    assert lake.invoke(*command).exit_code in {0, 1}
    assert len(opened) > 1
    assert closed == opened


def test_a_value_is_found_by_the_table_after_its_maintenance_has_replaced_the_files(lake):
    lake.fields = "kind"  # what PyIceberg can write without a further package
    lake.lines("a.json", range(60))
    assert lake.run().code == 0

    def trace(*words):
        done = CliRunner().invoke(app, ["trace", str(lake.file()), "message", *words, "--json"])
        assert done.exit_code in {0, 1}, done.output
        return json.loads(done.stdout), done.stderr

    assert trace("id=44", "--source", "--since", "1h")[0] == trace("id=44")[0]
    assert len(trace("_partition_key=a.json", "--source", "--since", "1h")[0]) == 60
    before, said = trace("id=44")
    assert [fate["outcome"] for fate in before] == ["written"]
    assert "note: the table lake.events has 1 records with the value" in said
    catalog = lake.catalog()
    table = catalog.load_table("lake.events")
    table.overwrite(table.scan().to_arrow())
    catalog.close()
    for file in (lake.folder / "table" / "data").rglob(f"*.*.{'?' * 16}.parquet"):
        file.unlink()
    assert numbers_of(lake.table()) == list(range(60))
    assert trace("id=44")[0] == before
    found, said = trace("id=44", "--no-tables")
    assert found == []
    assert "files were not searched: they are not there any more" in said
    assert trace("id=none")[0] == []


async def note_what_is_loaded(lake):
    """A loader records what is loaded, when it starts and then every hour."""
    async with AsyncExitStack() as stack:
        (table,) = await _open(lake.pipeline(), lake.folder, None, stack)
        loader = Loader(table)
        assert await loader.attempt()
        await loader.finish()


def test_compaction_may_replace_loaded_files(lake):
    """A missing file is a loss while the table contains it, and not after compaction has moved its rows to other files."""
    lake.fields = "kind"  # what PyIceberg can write without a further package
    lake.lines("a.json", range(60))
    assert lake.run().code == 0
    asyncio.run(note_what_is_loaded(lake))
    gone = min((lake.folder / "table" / "data").rglob("*.parquet"))
    body = gone.read_bytes()
    gone.unlink()
    (finding,) = lake.proof()
    assert finding.object.endswith(gone.name)
    gone.write_bytes(body)
    catalog = lake.catalog()
    table = catalog.load_table("lake.events")
    table.overwrite(table.scan().to_arrow())
    catalog.close()
    gone.unlink()
    assert lake.proof() == []
    assert numbers_of(lake.table()) == list(range(60))


def test_a_backfill_in_a_namespace_loads_its_own_table(lake):
    lake.lines("a.json", range(60))
    assert lake.run().code == 0
    assert lake.run(pipeline=in_namespace(lake.pipeline(), "try-2")).code == 0
    catalog = lake.catalog()
    apart = pl.from_arrow(catalog.load_table("lake.events_try_2").scan().to_arrow())
    catalog.close()
    assert numbers_of(apart) == numbers_of(lake.table()) == list(range(60))


def test_rows_that_a_snapshot_drops_are_missed_by_the_proof(lake):
    """Whoever deletes rows or files from the table makes a snapshot that is as sound as any; compaction only writes the rows elsewhere."""
    lake.fields = "kind"
    lake.lines("a.json", range(60))
    assert lake.run().code == 0
    sound = lake.invoke("audit", "verify", "")
    assert (sound.exit_code, "tables 60" in sound.output) == (0, True), sound.output
    catalog = lake.catalog()
    table = catalog.load_table("lake.events")
    whole = table.scan().to_arrow()
    table.overwrite(whole)
    assert lake.invoke("audit", "verify", "").exit_code == 0
    table.delete("kind = 'a'")
    dropped = lake.invoke("audit", "verify", "")
    assert dropped.exit_code == 1, dropped.output
    assert "failed tables" in dropped.output
    assert "rows of this shard, but " in dropped.output
    assert lake.invoke("audit", "verify", "--no-tables", "").exit_code == 0
    table.append(whole)
    doubled = lake.invoke("audit", "verify", "")
    catalog.close()
    assert doubled.exit_code == 1
    assert "rows of the shards of archive, but only 60 were loaded by this application" in doubled.output
