"""The searches of docs/audit.md, on a pipeline in the emulator that writes, filters and refuses orders."""

import json

from tests.docs.commands import carried_out, commands, emulated
from tests.docs.generate import ROOT

PAGE = (ROOT / "docs" / "audit.md").read_text()
COMMANDS = commands(PAGE, "sh trace")
PIPELINE = """
application: orders
source:
  kinesis: {stream: orders, start: trim_horizon}
  schema: {order_id: string, amount: int64}
stages: [filter: amount > 0]
sinks: [s3: {url: "file:lake/orders"}]
state: file:state
metrics: {port: 0}
"""


def test_the_searches_on_the_page_find_what_became_of_each_record(tmp_path):
    with emulated(tmp_path, PIPELINE, "orders", 2) as client:

        def put(customer, **order):
            client.put_record(StreamName="orders", Data=json.dumps(order).encode(), PartitionKey=f"customer-{customer}")

        put(1, order_id="A-17", amount=5)
        put(1, order_id="A-17", amount=0)
        put(2, order_id="A-17", amount="many")
        put(3, order_id="A-170", amount=7)
        put(3, order_id="A-171", amount=0)
        carried_out("stream run pipeline.yaml --once")
        put(3, order_id="A-172", amount=9)
        assert len(COMMANDS) == 5
        said = [carried_out(f"{line} --json") for line in COMMANDS]
        shown = carried_out(COMMANDS[0])
    outcomes = [sorted(fate["outcome"] for fate in json.loads(each.stdout)) for each in said]
    letters = outcomes.pop(1)
    assert letters == ["dead_lettered"]
    assert outcomes == [["dead_lettered", "written"], ["dead_lettered", "filtered", "written"], ["filtered", "written"], ["filtered"] * 2]
    assert "filtered records are in no file; --source with --since finds them" in said[0].stderr
    assert "orders: read 6 records" in said[2].stderr
    assert "in the stream, but in no sealed unit yet: shardId-" in said[3].stderr
    assert "in s3" in shown.stdout
    assert "in rejects" in shown.stdout
    assert "note: searched " in shown.stderr
    assert " files and 1 dead letters\n" in shown.stderr
