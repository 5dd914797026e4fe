"""The commands of docs/compact.md, and its view for Athena, on the lake of a pipeline in the emulator."""

import json
import re

import duckdb

from tests.docs.commands import block, carried_out, commands, emulated
from tests.docs.generate import ROOT

PAGE = (ROOT / "docs" / "compact.md").read_text()
COMMANDS = commands(PAGE, "sh compact")
VIEW = block(PAGE, "sql athena")
PIPELINE = """
application: flights
source:
  kinesis: {stream: flights, start: trim_horizon}
  schema: {month: string, n: int64}
sinks: [s3: {url: "file:lake/flights", partition_by: month}]
state: file:state
flush: {age: 100ms}
metrics: {port: 0}
"""


def test_the_commands_and_the_view_on_the_page_work_as_described(tmp_path):
    with emulated(tmp_path, PIPELINE, "flights", 2) as client:
        for n in range(12):
            record = {"month": f"2013-{n % 6 + 1:02d}", "n": n}
            client.put_record(StreamName="flights", Data=json.dumps(record).encode(), PartitionKey=str(n))
            if n % 4 == 3:
                carried_out("stream run pipeline.yaml --once")
        said = [carried_out(line.replace("2026-01-01", "2100-01-01")).stdout for line in COMMANDS]
        assert len(COMMANDS) == 5
        assert all("Nothing to compact" in text for text in said[:3]), "everything arrived a moment ago"
        done = json.loads(said[3])["partitions"]
        assert [each["partition"] for each in done] == [f"month=2013-{n:02d}" for n in range(1, 7)]
        assert sum(each["rows"] for each in done) == 12
        assert "0 files" in said[4]
        named = re.fullmatch(r"s3://lake/flights-compacted/(\S+)\n", re.search(r"```text\n(.*?)```", PAGE, re.DOTALL)[1])[1]
        pattern = re.sub(r"2013-01|[0-9a-f]{16}", "*", named)
        assert len(list((tmp_path / "lake" / "flights-compacted").glob(pattern))) == 6
        file = next((tmp_path / "lake" / "flights-compacted").rglob("*.parquet"))
        assert "compacted s3" in carried_out(f"stream trace pipeline.yaml --object {file.parent.name}/{file.name}").stdout
        carried_out("stream audit verify pipeline.yaml")

    with duckdb.connect() as lake:
        for table, folder in {"flights": "flights", "flights_compacted": "flights-compacted"}.items():
            place = f"read_parquet('{tmp_path}/lake/{folder}/**/*.parquet')"
            lake.execute(f"CREATE VIEW {table} AS SELECT *, month AS departure_month FROM {place}")  # noqa: S608
        lake.execute(VIEW)
        assert lake.execute("SELECT n FROM flights_all ORDER BY n").fetchall() == [(n,) for n in range(12)]
