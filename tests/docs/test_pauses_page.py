"""The commands of docs/operate.md that pause and resume."""

from tests.clocks import StandingClock
from tests.docs.commands import block, carried_out, local_aws
from tests.docs.generate import ROOT

SECTION = (ROOT / "docs" / "operate.md").read_text().partition("## Pause\n")[2].partition("\n## ")[0]
PIPELINE = """
application: app
source: {kinesis: {stream: numbers}, schema: {n: int64}}
sinks: [s3: {url: "file:lake"}]
state: file:state
"""
WAREHOUSE = """
application: warehouse
source: {kinesis: {stream: numbers}, schema: {n: int64}}
sinks: [iceberg: {location: "file:table", table: lake.numbers, catalog: {type: sql, uri: "sqlite:///catalog.db"}}]
state: file:state
"""


def said(info):
    return [carried_out(line).stdout for line in block(SECTION, info).splitlines()]


def test_the_commands_of_the_section_pause_and_resume(tmp_path, monkeypatch):
    # At half past five, the pause that is to end then would be refused as too short.
    monkeypatch.setattr("stream.cli.pausing.SystemClock", StandingClock)
    (tmp_path / "pipeline.yaml").write_text(PIPELINE)
    (tmp_path / "warehouse.yaml").write_text(WAREHOUSE)
    with local_aws(tmp_path, "numbers", 1):
        reading, loading = said("sh pause"), said("sh pause-loads")
    first, listed, resumed, shard, again = reading
    assert "reading of numbers is paused until" in first
    assert "new version of the lake's bucket policy" in listed
    assert "reading of numbers: goes on" in resumed
    assert "reading of numbers/shardId-000000000000 is paused, by" in shard
    assert "reading of numbers/shardId-000000000000: goes on" in again
    paused, loads = loading
    assert "loads of numbers into all tables are paused until" in paused
    assert "loads of numbers into all tables: go on" in loads
