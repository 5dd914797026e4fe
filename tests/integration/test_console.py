"""A pipeline that prints to the console, run by hand."""

import json
import subprocess
import sys

import pytest

PIPELINE = """
application: look
source:
  s3: {url: "file:in/"}
  schema: {carrier: string, delay: int64}
stages:
  - filter: delay > 0
sinks:
  - console: {}
  - files: {url: "file:out", format: ndjson, compression: none, lineage: false}
state: file:state
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "pipeline.yaml").write_text(PIPELINE)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.ndjson").write_text('{"carrier":"UA","delay":20}\n{"carrier":"AA","delay":-1}\n{"carrier":"Zoë","delay":5}\n')
    return tmp_path


def stream(folder, *words):
    return subprocess.run([sys.executable, "-m", "stream", *words], cwd=folder, capture_output=True, text=True, timeout=60, check=False)


def test_rows_are_printed_and_the_audit_checks_the_files_beside_them(folder):
    done = stream(folder, "run", "pipeline.yaml", "--metrics-port", "0")
    assert done.returncode == 0, done.stderr
    assert [json.loads(line) for line in done.stdout.splitlines()] == [{"carrier": "UA", "delay": 20}, {"carrier": "Zoë", "delay": 5}]
    assert [path.read_text() for path in (folder / "out").rglob("*.ndjson")] == [done.stdout]
    for words in (("--contents",), ("--names-only",)):
        verified = stream(folder, "audit", "verify", "pipeline.yaml", *words)
        assert verified.returncode == 0, verified.stdout
    again = stream(folder, "run", "pipeline.yaml", "--metrics-port", "0")
    assert (again.returncode, again.stdout) == (0, "")
    (folder / "pipeline.yaml").write_text(PIPELINE.replace("  - console: {}\n", ""))
    assert stream(folder, "audit", "verify", "pipeline.yaml").returncode == 0
