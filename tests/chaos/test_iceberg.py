"""A worker is killed at any point: the Iceberg table has each row of the files once."""

from __future__ import annotations

import polars as pl
import pytest
from pyiceberg.catalog import load_catalog

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
