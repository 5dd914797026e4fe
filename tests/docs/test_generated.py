"""Tables made from the code say what the code says now."""

import pytest
import typer.main

from stream.cli.main import app
from stream.metrics.catalog import CATALOG
from stream.pipeline.components import DECODERS, SINKS, STAGES
from tests.docs.generate import BLOCK, ROOT, TABLES, pages, regenerated, table
from tests.unit.metrics.every_event import CLASSES


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_says_what_the_code_says(page):
    text = page.read_text()
    assert text == regenerated(text), "run `make docs`"


def test_every_table_stands_on_some_page():
    found = {match[2] for page in pages() for match in BLOCK.finditer(page.read_text())}
    assert found == set(TABLES)


def test_nothing_is_left_out_of_the_tables():
    verbs = typer.main.get_command(app).list_commands(None)
    assert len(verbs) >= 4
    assert [verb for verb in verbs if f"### `stream {verb}" not in TABLES["commands"]()] == []
    assert [name for name in STAGES if f"### {name}\n" not in TABLES["stages"]()] == []
    assert [name for name in DECODERS if f"### {name}\n" not in TABLES["decoders"]()] == []
    assert [name for name in SINKS if name not in TABLES["sinks"]()] == []
    assert [each.name for each in CATALOG if f"`{each.name}`" not in TABLES["metrics"]()] == []
    assert TABLES["events"]().count("\n") == len(CLASSES) + 1


def test_a_stale_table_shows():
    assert regenerated("<!-- generated: metrics -->\nold\n<!-- end -->") != "<!-- generated: metrics -->\nold\n<!-- end -->"


def test_a_cell_cannot_break_its_table():
    assert table(["a"], [["x|y\nz"]]).splitlines()[2] == "| x\\|y z |"
