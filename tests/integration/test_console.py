"""A pipeline that prints to the console, run by hand."""

import json

import pytest

from tests import forked

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


def test_rows_are_printed_and_the_audit_checks_the_files_beside_them(folder):
    done = forked.run("run", "pipeline.yaml", "--metrics-port", "0", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line) for line in done.stdout.splitlines()] == [{"carrier": "UA", "delay": 20}, {"carrier": "Zoë", "delay": 5}]
    assert [path.read_text() for path in (folder / "out").rglob("*.ndjson")] == [done.stdout]
    for words in (("--contents",), ("--names-only",)):
        verified = forked.run("audit", "verify", "pipeline.yaml", *words, cwd=folder)
        assert verified.returncode == 0, verified.stdout
    again = forked.run("run", "pipeline.yaml", "--metrics-port", "0", cwd=folder)
    assert (again.returncode, again.stdout) == (0, "")
    (folder / "pipeline.yaml").write_text(PIPELINE.replace("  - console: {}\n", ""))
    assert forked.run("audit", "verify", "pipeline.yaml", cwd=folder).returncode == 0
