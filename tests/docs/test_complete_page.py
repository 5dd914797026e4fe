"""The commands of docs/complete.md, on a stream in the emulator whose records are all sealed."""

import json

from tests.docs.commands import carried_out, commands, emulated, fields
from tests.docs.generate import ROOT

PAGE = (ROOT / "docs" / "complete.md").read_text()
COMMANDS = commands(PAGE, "sh complete")
PIPELINE = """
application: app
source:
  kinesis: {stream: numbers, start: trim_horizon}
  schema: {n: int64}
sinks: [s3: {url: "file:lake"}]
state: file:state
metrics: {port: 0}
"""


def test_the_commands_on_the_page_work_as_described(tmp_path):
    with emulated(tmp_path, PIPELINE, "numbers", 2) as client:
        client.put_record(StreamName="numbers", Data=b'{"n": 1}', PartitionKey="k")
        assert "no worker has begun with this stream" in carried_out(COMMANDS[0], code=1).stdout
        carried_out("stream run pipeline.yaml --once")
        said = [carried_out(line).stdout for line in COMMANDS]
    assert len(COMMANDS) == 3
    assert "Complete: everything that arrived before 2026-01-01T14:00:00+00:00 is there." in said[0]
    found = json.loads(said[2])
    assert found["complete"] is True
    keys = [set(found), set(found["streams"][0]), set(found["streams"][0]["shards"][0])]
    assert [each - fields(PAGE) - {"streams", "shards", "tables", "sink"} for each in keys] == [set(), set(), set()]
