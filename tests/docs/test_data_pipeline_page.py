"""The commands of docs/data-pipeline.md, over its own definition."""

import re
import shlex

from typer.testing import CliRunner

from stream.cli.main import app
from tests.docs.generate import ROOT

PAGE = (ROOT / "docs" / "data-pipeline.md").read_text()
(DEFINITION,) = re.findall(r"^```json definition\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
COMMANDS = [line for block in re.findall(r"^```sh definition\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE) for line in block.splitlines()]


def test_the_commands_on_the_page_work_as_described(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sales.json").write_text(DEFINITION)
    said = []
    for line in COMMANDS:
        done = CliRunner().invoke(app, shlex.split(line)[1:])
        assert done.exit_code == 0, f"{line}: {done.output}"
        said.append(done.stdout)
    assert len(COMMANDS) == 4
    assert "sales/copy-sales/pipeline.yaml: ok, sales-copy-sales: objects, 0 stages, 1 sink" in said[1]
    for name in ("pipeline.yaml", "values.yaml"):
        (shown,) = re.findall(rf"^```yaml imported {re.escape(name)}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
        assert (tmp_path / "sales" / "copy-sales" / name).read_text() == shown
    (shown,) = re.findall(r"^```text imported Raw\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    assert shown in (tmp_path / "sales" / "report.md").read_text()
