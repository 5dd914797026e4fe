"""The transcripts of docs/simulate.md, made again; only how long it took is not compared."""

import re

import pytest

from tests.docs.commands import block, carried_out
from tests.docs.generate import ROOT

PAGE = (ROOT / "docs" / "simulate.md").read_text()
IMPURE = """
application: orders
source:
  kinesis: {stream: orders}
  schema: {id: int64, city: string}
stages:
  - derive: {big: id > 10}
  - python: {function: "tests.unit.simulation.impure:clock", adds: {x: float64}}
sinks: [s3: {url: s3://lake/orders/}]
state: s3://lake/_stream/
"""


def transcript(name):
    """The command, and what the page says that it prints."""
    command, _, rest = block(PAGE, f"text {name}").partition("\n")
    return command.removeprefix("$ "), rest


def without_times(text):
    return re.sub(r"(schedules?) in [\d.]+ s", r"\1 in ... s", text)


def test_the_example_pipeline_keeps_every_promise_as_shown(monkeypatch):
    monkeypatch.chdir(ROOT)
    command, shown = transcript("simulate")
    assert without_times(carried_out(command).stdout) == without_times(shown)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "pipeline.yaml").write_text(IMPURE)
    (tmp_path / "pipeline.test.yaml").write_text("cases:\n  - {name: all, given: [{json: {id: 1, city: Oslo}}], expect: {}}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def test_the_impure_stage_is_reported_as_shown(folder):
    command, shown = transcript("impure")
    assert moments(carried_out(command, code=1).stdout) == moments(shown)


def moments(text):
    return re.sub(r"\b1\d{9}\.\d+", "(a time)", without_times(text))
