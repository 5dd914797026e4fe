"""The commands of docs/data-pipeline.md, over its own definition."""

from tests.docs.commands import block, carried_out, commands
from tests.docs.generate import ROOT

PAGE = (ROOT / "docs" / "data-pipeline.md").read_text()
DEFINITION = block(PAGE, "json definition")
COMMANDS = commands(PAGE, "sh definition")


def test_the_commands_on_the_page_work_as_described(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sales.json").write_text(DEFINITION)
    said = [carried_out(line).stdout for line in COMMANDS]
    assert len(COMMANDS) == 4
    assert "sales/copy-sales/pipeline.yaml: ok, sales-copy-sales: objects, 0 stages, 1 sink" in said[1]
    for name in ("pipeline.yaml", "values.yaml"):
        assert (tmp_path / "sales" / "copy-sales" / name).read_text() == block(PAGE, f"yaml imported {name}")
    assert block(PAGE, "text imported Raw") in (tmp_path / "sales" / "report.md").read_text()
