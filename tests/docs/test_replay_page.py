"""The commands of docs/replay.md, run in order next to the page's files."""

import json
import re

import polars as pl

from tests.docs.commands import commands, forked_out
from tests.docs.generate import ROOT

PAGE = (ROOT / "docs" / "replay.md").read_text()
PIPELINES = re.findall(r"^```yaml pipeline\n# (\S+)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
COMMANDS = commands(PAGE, "sh replay")


def test_the_commands_on_the_page_work_as_described(tmp_path):
    for name, text in PIPELINES:
        (tmp_path / name).write_text(text)
    (tmp_path / "in").mkdir()
    lines = [json.dumps({"id": n, "value": None if n % 3 == 0 else n}) for n in range(1, 31)]
    (tmp_path / "in" / "a.json").write_text("\n".join(lines))
    said = {}
    for line in COMMANDS:
        said[line.split(" ", 3)[1] + " " + line.split(" ", 3)[2]] = forked_out(line, tmp_path, env={}).stdout
    assert len(COMMANDS) == 8
    assert re.search(r"10 +│ 10 +│ decode +│ decode +│ missing_field:value", said["dlq top"])
    assert re.search(r"one of the most frequent: stream dlq show orders.yaml objects-000001-\d+:\d+:0\n", said["dlq top"])
    assert {row["state"] for row in json.loads(said["dlq ls"])} == {"redriven"}
    assert "All 10 records are accounted for, once." in said["audit verify"]
    assert "2, first read as objects-000001-0001:1000000000003:0" in said["trace fixed.yaml"]
    lake = pl.concat([pl.read_parquet(path) for path in (tmp_path / "lake").rglob("*.parquet")])
    assert sorted(lake["id"]) == list(range(1, 31))
