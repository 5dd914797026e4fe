"""A renamed sink, and folders that are renamed: what was sealed stays as it was and exists once."""

import asyncio
import re

import polars as pl
import pytest
from typer.testing import CliRunner

from stream.aws.session import AwsSession
from stream.cli.main import app
from stream.storage.open import open_store
from stream.worker.tables.loadlog import LoadState

PIPELINE = """\
application: app
source:
  s3: {{url: "file:in"}}
  schema: {{n: int64}}
sinks:
  - s3: {{url: "file:{lake}", {name}}}
state: "file:{state}"
metrics: {{port: 0}}
"""


class Place:
    """Objects, a pipeline, and commands over it."""

    def __init__(self, folder):
        self.folder = folder
        self.written = 0

    def define(self, name, lake="lake", state="state"):
        (self.folder / "pipeline.yaml").write_text(PIPELINE.format(name=name, lake=lake, state=state))

    def source(self, folder):
        file = self.folder / "pipeline.yaml"
        file.write_text(re.sub('file:(in|out)[^"]*', f"file:{folder}", file.read_text()))

    def put(self, name):
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / name).write_text("".join(f'{{"n": {n}}}\n' for n in range(5)))

    def run(self):
        self.put(f"in/{self.written}.json")
        self.written += 1
        assert self.command("run", "--once") == (0, ""), self.said
        return self.files()

    def command(self, *arguments):
        ran = CliRunner().invoke(app, [*arguments, str(self.folder / "pipeline.yaml")])
        self.said = ran.output
        return ran.exit_code, ran.stdout

    def files(self):
        files = [path for path in self.folder.rglob("*.parquet") if "ledger" not in path.parts]
        return {path.relative_to(self.folder): path.read_bytes() for path in files}


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"name": "name: raw"}, {"name": "name: clean"}),
        ({"name": "name: raw", "lake": "lake/raw"}, {"name": "name: raw"}),
        ({"name": "name: raw"}, {"name": "name: raw", "lake": "sea/raw"}),
        ({"name": "name: raw"}, {"name": "name: clean", "lake": "sea/clean"}),
        ({"name": "name: raw"}, {"name": "partition_by: [n]"}),
    ],
)
def test_files_of_an_earlier_definition_are_not_leftovers(place, before, after):
    place.define(**before)
    place.run()
    place.define(**after)
    files = place.run()
    place.command("audit", "verify", "--repair")
    assert place.files() == files
    code, _ = place.command("audit", "verify")
    assert code == 0, place.said


def test_a_repair_leaves_files_of_another_application_in_the_same_place(place):
    """It reads the same objects, so its units have the same bounds, and its files are named like ours."""
    place.define("name: raw")
    place.run()
    ours = place.folder / "pipeline.yaml"
    text = ours.read_text()
    ours.write_text(text.replace("application: app", "application: other").replace("sinks:", "stages: [derive: {m: n * 2}]\nsinks:"))
    assert place.command("run", "--once") == (0, ""), place.said
    files = place.files()
    ours.write_text(text)
    code, _ = place.command("audit", "verify", "--repair")
    assert (code, "whether another pipeline" in place.said.replace("\n", " ")) == (1, True)
    assert place.files() == files
    assert len(files) == 2


def test_files_moved_while_their_sink_was_renamed_are_not_removed(place):
    place.define("name: raw")
    place.run()
    (place.folder / "lake").rename(place.folder / "sea")
    place.define("name: clean", lake="sea")
    files = place.run()
    code, _ = place.command("audit", "verify", "--repair")
    assert place.files() == files
    assert code == 1


def test_files_of_another_pipeline_in_the_same_place_are_never_removed(place):
    """Units of objects are numbered, so all pipelines that read objects have units of the same names."""
    pipelines = []
    for name in ("north", "south"):
        place.define("name: lake")
        file = place.folder / "pipeline.yaml"
        file.write_text(file.read_text().replace("application: app", f"application: {name}").replace("file:in", f"file:{name}"))
        pipelines.append(file.read_text())
        (place.folder / name).mkdir()
        (place.folder / name / "0.json").write_text("".join(f'{{"n": {len(pipelines) + n}}}\n' for n in range(5)))
        assert place.command("run", "--once") == (0, ""), place.said
    files = place.files()
    assert len(files) == 2
    for text in pipelines:
        file.write_text(text)
        assert place.command("audit", "verify", "--repair")[0] == 1
        assert "whether another pipeline writes here" in " ".join(place.said.split())
        assert place.files() == files


def test_files_removed_after_their_load_are_not_missed_when_their_sink_is_gone(place):
    place.define("name: warehouse")
    (staged,) = place.run()
    place.define("name: lake", lake="other")
    place.run()
    (place.folder / staged).unlink()
    assert place.command("audit", "verify")[0] == 1
    assert "the file is missing" in place.said
    shard, _, last = staged.name.partition(".")[0].rpartition("-")
    state = LoadState(open_store(f"file:{place.folder}/state/app/", AwsSession()), "warehouse", "objects")
    asyncio.run(state.note_removed(shard.rpartition("-")[0], int(last)))
    assert place.command("audit", "verify")[0] == 0, place.said


@pytest.mark.parametrize(("before", "after", "rows"), [("in", "in/deep", 0), ("in/deep", "in", 5), ("in", "out", 0)])
def test_objects_are_read_once_even_if_the_folder_in_the_url_changes(place, before, after, rows):
    place.define("name: raw")
    place.put("in/0.json")
    place.put("in/deep/1.json")
    place.source(before)
    assert place.command("run", "--once") == (0, ""), place.said
    first = sum(pl.read_parquet(body).height for body in place.files().values())
    if after == "out":
        (place.folder / "in").rename(place.folder / "out")
    place.source(after)
    assert place.command("run", "--once") == (0, ""), place.said
    assert sum(pl.read_parquet(body).height for body in place.files().values()) == first + rows
