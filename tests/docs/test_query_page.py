"""The commands of docs/query.md, on a pipeline in the emulator with sealed and unsealed records."""

import json
import re
import shlex

import boto3
from typer.testing import CliRunner

from stream.cli.main import app
from stream.local.kinesis.server import running
from tests.docs.generate import ROOT

PAGE = (ROOT / "docs" / "query.md").read_text()
COMMANDS = [line for block in re.findall(r"^```sh query\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE) for line in block.splitlines()]
PIPELINE = """
application: flights
source:
  kinesis: {{stream: flights, endpoint: "{url}", start: trim_horizon}}
  schema: {{carrier: string, n: int64}}
sinks: [s3: {{url: "file:lake/flights", partition_by: carrier}}]
state: file:state
metrics: {{port: 0}}
"""


def test_the_commands_on_the_page_work_as_described(tmp_path, monkeypatch):
    for name, value in {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    with running() as emulator:
        client = boto3.client("kinesis", endpoint_url=emulator.url, region_name="us-east-1")
        client.create_stream(StreamName="flights", ShardCount=2)
        (tmp_path / "pipeline.yaml").write_text(PIPELINE.format(url=emulator.url))

        def put(*numbers):
            for n in numbers:
                record = {"carrier": ["UA", "AA", "UA"][n % 3], "n": n if n % 5 else "x"}
                client.put_record(StreamName="flights", Data=json.dumps(record).encode(), PartitionKey=str(n))

        def run(*words, code=0):
            done = CliRunner().invoke(app, words)
            assert done.exit_code == code, f"{words}: {done.output}"
            return done

        put(*range(1, 10))
        run("run", "pipeline.yaml", "--once")
        put(*range(10, 18))
        client.close()
        assert len(COMMANDS) == 4
        said = [run(*shlex.split(line)[1:]) for line in COMMANDS]
    cells = [re.findall(r"[\w]+", line) for line in said[0].stdout.splitlines() if "UA" in line or "AA" in line]
    assert cells == [["UA", "9"], ["AA", "5"]]
    counts = [re.findall(r"(\d+) +│ (true|false)", line) for line in said[1].stdout.splitlines() if "│" in line]
    assert sorted(each for found in counts for each in found) == [("6", "false"), ("8", "true")]
    document = json.loads(said[2].stdout)
    assert [row["n"] for row in document["rows"]] == [3]
    head, *lines = said[3].stdout.splitlines()
    assert head == "carrier,n,_shard,_sequence,_subsequence,_arrival,_sealed,_file"
    assert len(lines) == 5
    assert all(line.startswith("UA,") and ",true,file:" in line for line in lines)
    keys = [set(document), set(document["streams"][0]), set(document["streams"][0]["shards"][0])]
    named = set(re.findall(r"`([a-z_]+)`", PAGE.partition("## The JSON document")[2])) | {"streams"}
    assert [each - named for each in keys] == [set(), set(), set()]
