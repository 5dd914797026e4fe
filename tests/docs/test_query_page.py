"""The commands of docs/query.md, on a pipeline in the emulator with sealed and unsealed records."""

import json
import re

from tests.docs.commands import carried_out, commands, emulated, fields
from tests.docs.generate import ROOT

PAGE = (ROOT / "docs" / "query.md").read_text()
COMMANDS = commands(PAGE, "sh query")
PIPELINE = """
application: flights
source:
  kinesis: {stream: flights, start: trim_horizon}
  schema: {carrier: string, n: int64}
sinks: [s3: {url: "file:lake/flights", partition_by: carrier}]
state: file:state
metrics: {port: 0}
"""


def test_the_commands_on_the_page_work_as_described(tmp_path):
    with emulated(tmp_path, PIPELINE, "flights", 2) as client:

        def put(*numbers):
            for n in numbers:
                record = {"carrier": ["UA", "AA", "UA"][n % 3], "n": n if n % 5 else "x"}
                client.put_record(StreamName="flights", Data=json.dumps(record).encode(), PartitionKey=str(n))

        put(*range(1, 10))
        carried_out("stream run pipeline.yaml --once")
        put(*range(10, 18))
        assert len(COMMANDS) == 4
        said = [carried_out(line) for line in COMMANDS]
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
    assert [each - fields(PAGE) - {"streams"} for each in keys] == [set(), set(), set()]
