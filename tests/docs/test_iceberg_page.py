"""The example of docs/iceberg.md, run next to the page's file."""

import json
import subprocess
import sys

from tests.docs.commands import block, commands, forked_out
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
