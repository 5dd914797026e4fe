"""A worker is killed at any point: the Iceberg table has each row of the files once."""

from __future__ import annotations

import polars as pl
import pytest
from pyiceberg.catalog import load_catalog
from typer.testing import CliRunner

from stream.cli.main import app

COLUMNS = ["_shard", "_sequence", "_subsequence", "id"]
SINK = """
sinks:
  - iceberg:
      location: "file:{folder}/table"
      table: lake.events
      catalog: {{type: sql, uri: "sqlite:///{folder}/catalog.db"}}
      partition_by: [kind]
      every: 1s
"""


def with_table(world, path):
    """The pipeline at ``path`` with a table beside its files."""
    text = path.read_text()
    assert "\nsinks:\n" in text
    path.write_text(text.replace("\nsinks:\n", SINK.format(folder=world.folder)))
    return path


def rows_in_table(world):
    catalog = load_catalog("default", type="sql", uri=f"sqlite:///{world.folder}/catalog.db")
    try:
        rows = catalog.load_table("lake.events").scan().to_arrow()
    finally:
        catalog.close()
    return pl.DataFrame(pl.from_arrow(rows)).select(COLUMNS).sort(COLUMNS)


def rows_in_files(world):
    found = sorted((world.folder / "lake").rglob("*.parquet"))
    rows = pl.concat([pl.read_parquet(path, hive_partitioning=False).select(COLUMNS) for path in found])
    return rows.cast({"_subsequence": pl.Int64}).sort(COLUMNS)


@pytest.mark.parametrize("at", ["LoadsWaiting:2", "UnitsLoaded", "FileWritten:6"])
def test_a_worker_that_dies_while_loading_leaves_every_row_in_the_table_once(make_world, at):
    world = make_world(2)
    path = with_table(world, world.pipeline(partition=""))
    world.produce(300)
    first = world.start(path, "--at", at)
    first.until(lambda: first.ended() is not None or world.committed())
    world.produce(200)
    assert first.exit() == -9, first.said()
    last = world.start(path, "--once")
    assert last.exit() == 0, last.said()
    assert world.committed()
    found = rows_in_table(world)
    assert found.equals(rows_in_files(world))
    assert found.height == found.unique().height > 200


STAGED = """
sinks:
  - redshift:
      staging: "s3://{bucket}/staging/"
      name: lake
      table: events
      database: dev
      workgroup: analytics
      iam_role: default
"""
NAMED = SINK.replace("      table:", "      name: lake\n      table:").replace("      partition_by: [kind]\n", "")


def test_a_sink_that_was_a_redshift_sink_loads_what_comes_and_says_what_waits_for_the_former_table(make_world, monkeypatch):
    world = make_world(1, s3=True)
    path = world.pipeline(partition="")
    head, _, tail = path.read_text().partition("\nsinks:\n")
    rest = tail[tail.index("\n", tail.index("- s3:")) :]
    path.write_text(f"{head}{STAGED.format(bucket=world.bucket)}{rest}")
    world.produce(100)
    worker = world.start(path)
    worker.until(world.committed)
    assert worker.drain() == 0, worker.said()
    staged = set(world.objects("staging/"))
    before = sum(pl.read_parquet(body).height for body in world.objects("staging/").values())
    path.write_text(f"{head}{NAMED.format(folder=world.folder)}{rest}")
    for name, value in world.environment.items():
        monkeypatch.setenv(name, value)
    listed = CliRunner().invoke(app, ["loads", "ls", str(path)])
    assert listed.exit_code == 0, listed.output
    assert "lake, s1: units that were sealed for the redshift table events are passed over" in listed.output.replace(world.stream, "s1")
    world.produce(100)
    last = world.start(path, "--once")
    assert last.exit() == 0, last.said()
    assert last.said().count('"event":"units_passed_over"') == 1
    assert world.committed()
    files = sorted((world.folder / "table/data").rglob("*.parquet"))
    assert rows_in_table(world).height == sum(pl.read_parquet(file).height for file in files) > 0 < before
    assert set(world.objects("staging/")) == staged
