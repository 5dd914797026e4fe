"""The function of docs/pipeline.md, with its pipeline and cases, carried out as the page says."""

from tests.docs.commands import block, blocks, commands, forked_out
from tests.docs.generate import ROOT

PAGE = (ROOT / "docs" / "pipeline.md").read_text()


def test_the_function_on_the_page_is_found_tested_and_simulated(tmp_path):
    for text in (block(PAGE, "python function"), *blocks(PAGE, "yaml function")):
        name, _, content = text.partition("\n")
        (tmp_path / name.removeprefix("# ")).write_text(content)
    export, *lines = commands(PAGE, "sh function")
    assert export == "export PYTHONPATH=$PWD"
    more = {"stream simulate": ("--seeds", "3")}
    said = [forked_out(line, tmp_path, *more.get(line.rpartition(" ")[0], ()), env={"PYTHONPATH": str(tmp_path)}).stdout for line in lines]
    assert "pipeline.yaml: ok" in said[0]
    assert said[1].splitlines() == ["ok   a delay counts twice", "ok   whatever comes", "2 cases, 0 failed"]
    assert "every promise held" in said[2], said[2]
