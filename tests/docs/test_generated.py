"""The tables generated from the code are up to date."""

import pytest
import typer.main

from stream.cli.main import app
from stream.metrics.catalog import CATALOG
from stream.pipeline.components import DECODERS, SINKS, STAGES
from tests.docs.generate import BLOCK, ROOT, TABLES, files, pages, regenerated
from tests.docs.tables import table
from tests.unit.metrics.every_event import CLASSES


@pytest.mark.parametrize("page", [page for page in pages() if BLOCK.search(page.read_text())], ids=lambda page: str(page.relative_to(ROOT)))
def test_generated_tables_are_current(page):
    text = page.read_text()
    assert text == regenerated(text), "run `make docs`"


def test_generated_files_are_current():
    made = dict(files())
    stale = [name for name, content in made.items() if not (ROOT / name).exists() or (ROOT / name).read_text() != content]
    kept = {str(path.relative_to(ROOT)) for path in (ROOT / "docs" / "reference").rglob("*.md")}
    assert (stale, kept - set(made)) == ([], set()), "run `make docs`"
    assert len(made) > len(STAGES) + len(DECODERS) + len(SINKS)


def test_every_generated_table_is_on_a_page():
    found = {match[2] for page in pages() for match in BLOCK.finditer(page.read_text())}
    assert found == set(TABLES)


def test_the_tables_list_every_component_metric_and_event():
    verbs = typer.main.get_command(app).list_commands(None)
    assert len(verbs) >= 4
    made = {name: TABLES[name]() for name in ("commands", "stages", "decoders", "sinks", "metrics", "events")}
    assert [verb for verb in verbs if f"### `stream {verb}" not in made["commands"]] == []
    for kind, known in (("stages", STAGES), ("decoders", DECODERS), ("sinks", SINKS)):
        assert [name for name in known if f"(reference/{kind}/{name}.md)" not in made[kind]] == []
    assert [each.name for each in CATALOG if f"`{each.name}`" not in made["metrics"]] == []
    assert made["events"].count("\n") == len(CLASSES) + 1


def test_a_stale_table_is_detected():
    assert regenerated("<!-- generated: metrics -->\nold\n<!-- end -->") != "<!-- generated: metrics -->\nold\n<!-- end -->"


def test_a_cell_cannot_break_its_table():
    assert table(["a"], [["x|y\nz"]]).splitlines()[2] == "| x\\|y z |"
