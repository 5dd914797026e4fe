"""The commands of docs/operate.md that pause and resume."""

import re
import shlex

import pytest
from typer.testing import CliRunner

from stream.cli.main import app
from stream.local.aws import LocalClients
from stream.local.start import LocalAws
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


def lines(info):
    (found,) = re.findall(rf"^```sh {info}\n(.*?)^```", SECTION, re.DOTALL | re.MULTILINE)
    return found.splitlines()


@pytest.fixture
def aws(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pipeline.yaml").write_text(PIPELINE)
    (tmp_path / "warehouse.yaml").write_text(WAREHOUSE)
    with LocalAws() as local, LocalClients(local.environment()) as clients:
        for name, value in local.environment().items():
            monkeypatch.setenv(name, value)
        clients.create_stream("numbers", 1)
        yield local


def carried_out(line):
    done = CliRunner().invoke(app, shlex.split(line)[1:])
    assert done.exit_code == 0, f"{line}: {done.output}"
    return done.stdout


def test_the_commands_of_the_section_pause_and_resume(aws):
    first, listed, resumed, shard, again = map(carried_out, lines("pause"))
    assert "reading of numbers is paused until" in first
    assert "new version of the lake's bucket policy" in listed
    assert "reading of numbers: goes on" in resumed
    assert "reading of numbers/shardId-000000000000 is paused, by" in shard
    assert "reading of numbers/shardId-000000000000: goes on" in again
    paused, loads = map(carried_out, lines("pause-loads"))
    assert "loads of numbers into all tables are paused until" in paused
    assert "loads of numbers into all tables: go on" in loads
