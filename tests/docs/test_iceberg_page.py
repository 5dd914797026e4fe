"""The examples of docs/iceberg.md, run next to the page's files, and its statements on a table that the sink has loaded."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime

import duckdb
import pyarrow.feather
import pytest
import sqlglot

from tests.docs.commands import block, blocks, commands, forked_out
from tests.docs.generate import ROOT

PAGE = (ROOT / "docs" / "iceberg.md").read_text()


def test_the_example_on_the_page_works_as_described(tmp_path):
    (tmp_path / "local.yaml").write_text(block(PAGE, "yaml pipeline\n# local.yaml"))
    (tmp_path / "in").mkdir()
    lines = [json.dumps({"id": number, "page": "home" if number % 3 else "cart"}) for number in range(30)]
    (tmp_path / "in" / "a.json").write_text("\n".join(lines))
    free = ("--metrics-port", "0")  # the usual one may be in use
    shown = commands(PAGE, "sh iceberg")
    said = [forked_out(line, tmp_path, *(free if line.startswith("stream run ") else ()), env={}).stdout for line in shown]
    assert "loaded" in said[1]
    assert "All 30 records are accounted for, once." in said[2]
    done = subprocess.run([sys.executable, "-c", block(PAGE, "python iceberg")], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "20\n"


def change(minute, operation, number, state=None):
    metadata = {"record-type": "data", "operation": operation, "schema-name": "public", "table-name": "orders"}
    when = f"2026-01-01T06:{minute:02}:00Z"
    return {"data": {"order_id": number, "state": state, "amount": "1.50"}, "metadata": {**metadata, "timestamp": when}}


BEFORE = [change(0, "load", 1, "new"), change(0, "insert", 2, "new"), change(0, "insert", 3, "new"), change(9, "update", 4, "last")]
AFTER = [
    change(2, "update", 1, "paid"),
    change(1, "update", 1, "open"),  # late: it was before `paid`
    change(2, "update", 1, "paid"),  # twice
    change(5, "delete", 2),
    change(4, "update", 2, "late"),  # of a key that was deleted after it
    change(3, "insert", 4, "first"),  # late, and the newer one was merged by an earlier run
    change(1, "insert", 5, "brief"),
    change(2, "delete", 5),
]
STATEMENTS = blocks(PAGE, "sql iceberg")


READ = """
import sys
import pyarrow.feather
from pyiceberg.catalog import load_catalog

table = load_catalog("default", type="sql", uri="sqlite:///catalog.db").load_table("lake.orders_history")
pyarrow.feather.write_feather(table.scan().to_arrow(), sys.argv[1])
"""


@pytest.fixture(scope="module")
def loads(tmp_path_factory):
    """The table of changes after each of two loads of the page's pipeline, from files of two days, as Arrow."""
    folder = tmp_path_factory.mktemp("orders")
    text = block(PAGE.partition("## One row per key")[2], "yaml pipeline")
    for old, new in (
        ("kinesis: {stream: orders-cdc, start: trim_horizon}", 's3: {url: "file:./in", shards: 1, watch: {}}'),
        ("location: s3://lake/orders_history/", 'location: "file:./table", catalog: {type: sql, uri: "sqlite:///catalog.db"}'),
        ("state: s3://lake/_stream/", 'state: "file:./state"\nmetrics: {port: 0}'),
    ):
        assert text.count(old) == 1
        text = text.replace(old, new)
    (folder / "pipeline.yaml").write_text(text)
    (folder / "in").mkdir()
    found = []
    for day, changes in ((datetime(2025, 12, 31, tzinfo=UTC), BEFORE), (datetime(2026, 1, 2, tzinfo=UTC), AFTER)):
        file = folder / "in" / f"{day:%Y%m%d}.json"
        file.write_text("\n".join(map(json.dumps, changes)))
        os.utime(file, (day.timestamp(), day.timestamp()))
        forked_out("stream run pipeline.yaml --once", folder, env={})
        subprocess.run([sys.executable, "-c", READ, f"{day:%Y%m%d}.arrow"], cwd=folder, check=True)
        found.append(pyarrow.feather.read_table(folder / f"{day:%Y%m%d}.arrow"))
    assert [each.num_rows for each in found] == [len(BEFORE), len(BEFORE) + len(AFTER)]
    return found


@pytest.mark.parametrize("engine", ["duckdb", "athena", "spark", "trino"])
def test_the_statements_on_the_page_keep_one_row_per_key(loads, engine):
    view, merge = (text if engine == "duckdb" else sqlglot.transpile(text, read=engine, write="duckdb")[0] for text in STATEMENTS)
    since = next(line for line in STATEMENTS[1].splitlines() if "_arrival >=" in line)
    everything = STATEMENTS[1].replace(since, since.partition(" WHERE _arrival")[0] + ")")
    with duckdb.connect() as lake:
        lake.execute(
            "SET TimeZone = 'UTC'; CREATE SCHEMA lake; CREATE TABLE lake.orders (order_id BIGINT, state TEXT, amount DECIMAL(12, 2))"
        )
        seen = []
        for history, statement in ((loads[0], everything), (loads[1], merge), (loads[1], merge)):
            lake.register("loaded", history)
            lake.execute("CREATE OR REPLACE TABLE lake.orders_history AS FROM loaded")
            lake.execute(statement)
            lake.execute("DROP VIEW IF EXISTS lake.orders_now")
            lake.execute(view)
            kept, viewed = (sorted(lake.table(f"lake.{name}").select("order_id", "state").fetchall()) for name in ("orders", "orders_now"))
            assert kept == viewed
            seen.append(kept)
    assert seen[0] == [(1, "new"), (2, "new"), (3, "new"), (4, "last")]
    assert seen[1] == seen[2] == [(1, "paid"), (3, "new"), (4, "last")]
