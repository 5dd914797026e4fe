"""The commands of docs/complete.md, on a stream in the emulator whose records are all sealed."""

import json
import re
import shlex

import boto3
from typer.testing import CliRunner

from stream.cli.main import app
from stream.local.kinesis.server import running
from tests.docs.generate import ROOT
from tests.integration.stage import PIPELINE

PAGE = (ROOT / "docs" / "complete.md").read_text()
COMMANDS = [line for block in re.findall(r"^```sh complete\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE) for line in block.splitlines()]


def test_the_commands_on_the_page_work_as_described(tmp_path, monkeypatch):
    for name, value in {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    with running() as emulator:
        client = boto3.client("kinesis", endpoint_url=emulator.url, region_name="us-east-1")
        client.create_stream(StreamName="numbers", ShardCount=2)
        client.put_record(StreamName="numbers", Data=b'{"n": 1}', PartitionKey="k")
        client.close()
        (tmp_path / "pipeline.yaml").write_text(PIPELINE.format(url=emulator.url, on_expired="gap", start="trim_horizon"))

        def run(*words, code=0):
            done = CliRunner().invoke(app, words)
            assert done.exit_code == code, f"{words}: {done.output}"
            return done.stdout

        first = shlex.split(COMMANDS[0])[1:]
        assert "no worker has begun with this stream" in run(*first, code=1)
        run("run", "pipeline.yaml", "--once")
        said = [run(*shlex.split(line)[1:]) for line in COMMANDS]
    assert len(COMMANDS) == 3
    assert "Complete: everything that arrived before 2026-01-01T14:00:00+00:00 is there." in said[0]
    found = json.loads(said[2])
    assert found["complete"] is True
    keys = [set(found), set(found["streams"][0]), set(found["streams"][0]["shards"][0])]
    named = set(re.findall(r"`([a-z_]+)`", PAGE.partition("## The JSON document")[2])) | {"streams", "shards", "tables", "sink"}
    assert [each - named for each in keys] == [set(), set(), set()]
