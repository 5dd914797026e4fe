from __future__ import annotations

import sys

import pytest

from stream.errors import DefinitionError
from stream.pipeline.components import DECODERS, SINKS, STAGES, canonical_name, stage_class, stage_names

FOREIGN = """
from typing import ClassVar
from stream.transform.stage import StageConfig

class Shout(StageConfig):
    name: ClassVar[str] = "shout"

class Filter(StageConfig):
    name: ClassVar[str] = "filter"

other = 5
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """An importable package that registers stages, valid and invalid ones."""
    (tmp_path / "foreign_stages.py").write_text(FOREIGN)
    info = tmp_path / "foreign_stages-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: foreign-stages\nVersion: 1.0\n")
    points = ["shout = foreign_stages:Shout", "filter = foreign_stages:Filter", "five = foreign_stages:other"]
    points += ["gone = no_such_module_here:X", "whisper = foreign_stages:Shout", "lost = foreign_stages:Lost"]
    (info / "entry_points.txt").write_text("[stream.stages]\n" + "\n".join(points) + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("foreign_stages", None)


def test_each_component_is_registered_under_its_own_name():
    assert {name: stage.name for name, stage in STAGES.items()} == {name: name for name in STAGES}
    assert {name: decoder.name for name, decoder in DECODERS.items()} == {name: name for name in DECODERS}
    assert {"filter", "derive", "lookup", "mask", "select", "rename", "cast", "python"} <= set(STAGES)
    assert canonical_name(SINKS["files"](url="file:./x")) == "s3"


@pytest.mark.usefixtures("installed")
def test_an_installed_stage_is_imported_on_first_use():
    assert "shout" in stage_names()
    assert "foreign_stages" not in sys.modules
    assert stage_class("shout").__module__ == "foreign_stages"


@pytest.mark.usefixtures("installed")
def test_built_in_stages_take_precedence():
    assert stage_class("filter") is STAGES["filter"]


def test_an_unknown_name_is_not_a_stage():
    assert stage_class("shout") is None


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("five", "subclass of StageConfig"),
        ("whisper", "with the name `whisper`"),
        ("gone", "cannot be imported"),
        ("lost", "cannot be imported"),
    ],
)
def test_a_broken_entry_point_is_reported(name, says):
    with pytest.raises(DefinitionError, match=says):
        stage_class(name)
