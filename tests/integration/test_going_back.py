"""An operator rewinds a shard, and what must not be written twice because of it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from pyiceberg.catalog import load_catalog
from typer.testing import CliRunner

from stream import events
from stream.cli.main import app
from stream.contracts import ObjectInfo
from stream.errors import DefinitionError
from stream.pipeline.checks.lint import check
from stream.storage.directory import DirectoryStore
from stream.worker.objects.slices import Window
from stream.worker.sources.dead_letters import DeadLetters
from stream.worker.sources.reading import Reading
from tests.integration.stage import PIPELINE, Stage, sealed


def test_units_whose_dead_letters_were_redriven_cannot_be_rewound(stage: Stage) -> None:
    """What a redrive wrote stays, so processing its records again would write them twice."""
    for numbers in ([1, "two"], [3, 4]):
        stage.put(numbers)
        stage.work(sealed(2))
    fixed = stage.folder / "fixed.yaml"
    fixed.write_text((stage.folder / "pipeline.yaml").read_text().replace("n: int64", "n: string"))
    redriven = CliRunner().invoke(app, ["dlq", "redrive", str(stage.folder / "pipeline.yaml"), "--pipeline", str(fixed)])
    assert redriven.exit_code == 0, redriven.output
    first, second = (manifest.last for manifest in stage.manifests() if manifest.stream == "numbers")
    before = sorted(path.name for path in (stage.folder / "lake").rglob("*.parquet"))

    refused = CliRunner().invoke(app, ["leases", "rewind", str(stage.folder / "pipeline.yaml"), stage.shard, "start", "--yes"])
    assert refused.exit_code == 2
    assert "redrive 1" in refused.output
    assert f"after {first}" in " ".join(refused.output.split())
    assert sorted(path.name for path in (stage.folder / "lake").rglob("*.parquet")) == before

    done = CliRunner().invoke(app, ["leases", "rewind", str(stage.folder / "pipeline.yaml"), stage.shard, str(second), "--yes"])
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize(
    ("sink", "says"), [('s3: {url: "file:lake", name: clean}', "this pipeline does not have"), ('s3: {url: "file:sea"}', "sea now")]
)
def test_units_of_a_removed_or_moved_sink_cannot_be_rewound(stage: Stage, sink: str, says: str) -> None:
    """Their files would stay, and the same records would be in other files as well."""
    for numbers in ([1, 2], [3, 4]):
        stage.put(numbers)
        stage.work(sealed(2))
    first, _ = (manifest.last for manifest in stage.manifests())
    file = stage.folder / "pipeline.yaml"
    text = file.read_text()
    file.write_text(text.replace('s3: {url: "file:lake"}', sink))
    before, links = sorted(stage.folder.rglob("*.parquet")), len(stage.manifests())

    refused = CliRunner().invoke(app, ["leases", "rewind", str(file), stage.shard, str(first), "--yes"])
    assert refused.exit_code == 2
    assert says in " ".join(refused.output.split())
    assert (sorted(stage.folder.rglob("*.parquet")), len(stage.manifests())) == (before, links)

    file.write_text(text)
    done = CliRunner().invoke(app, ["leases", "rewind", str(file), stage.shard, str(first), "--yes"])
    assert done.exit_code == 0, done.output


def test_a_shard_whose_parent_has_not_been_read_to_its_end_is_not_begun_by_a_rewind(stage: Stage) -> None:
    """To look for its head would create the first link of its chain, which must follow the ends of its parents."""
    stage.put([1])
    stage.work(sealed(1))
    stage.client.split_shard(StreamName="numbers", ShardToSplit=stage.shard, NewStartingHashKey=str(2**127))
    child = "shardId-000000000001"
    refused = CliRunner().invoke(app, ["leases", "rewind", str(stage.folder / "pipeline.yaml"), child, "start", "--yes"])
    assert refused.exit_code == 2
    assert f"has not begun: its parent {stage.shard}" in " ".join(refused.output.split())
    assert not list(stage.folder.rglob(f"commits/numbers/{child}/*"))

    stage.work(lambda event: isinstance(event, events.ShardEnded))
    done = CliRunner().invoke(app, ["leases", "rewind", str(stage.folder / "pipeline.yaml"), child, "start", "--yes"])
    assert "has not begun" not in done.output


def test_units_whose_files_moved_with_the_pipeline_can_be_rewound(stage: Stage) -> None:
    stage.put([1, 2])
    stage.work(sealed(2))
    (stage.folder / "lake").rename(stage.folder / "sea")
    file = stage.folder / "pipeline.yaml"
    file.write_text(file.read_text().replace("file:lake", "file:sea"))
    done = CliRunner().invoke(app, ["leases", "rewind", str(file), stage.shard, "start", "--yes"])
    assert done.exit_code == 0, done.output
    assert not list((stage.folder / "sea").rglob("*.parquet"))


def test_overlapping_ranges_are_refused_and_adjacent_ones_are_not(stage: Stage) -> None:
    begin = stage.clock.now().replace(microsecond=0) - timedelta(minutes=5)
    stage.put(range(5))
    stage.clock.ahead = timedelta(hours=2)
    hours = [begin + timedelta(minutes=each) for each in (0, 30, 60)]

    def read(*bounds: datetime) -> int:
        heard = stage.work(lambda _event: False, reading=Reading(window=Window(*bounds), disjoint=True))
        return sum(count for event in heard if isinstance(event, events.UnitSealed) for _, count in event.outcomes)

    assert read(hours[0], hours[1]) == 5
    assert read(hours[1], hours[2]) == 0
    for bounds in ((hours[0], hours[2]), (hours[0] + timedelta(minutes=1), hours[0] + timedelta(minutes=2))):
        with pytest.raises(DefinitionError, match="overlaps the one from"):
            read(*bounds)
    assert read(hours[0], hours[1]) == 0
    assert read(hours[0] - timedelta(minutes=9), hours[0]) == 0


def test_a_unit_begun_before_the_state_moved_is_finished_at_the_new_place(stage: Stage) -> None:
    stage.put([1, "two", 3])
    stage.work(sealed(3))
    stage.unseal_last()
    (stage.folder / "state").rename(stage.folder / "moved")
    file = stage.folder / "pipeline.yaml"
    file.write_text(file.read_text().replace("file:state", "file:moved"))
    ran = CliRunner().invoke(app, ["run", "--once", str(file)])
    assert ran.exit_code == 0, ran.output
    proof = CliRunner().invoke(app, ["audit", "verify", str(file)])
    assert proof.exit_code == 0, proof.output
    assert not (stage.folder / "state").exists()


class Meanwhile(DirectoryStore):
    """A state in which ``act`` happens once, before somebody first looks at what is claimed."""

    def __init__(self, folder: Path, act: Callable[[], None]) -> None:
        super().__init__(folder, fsync=False, url=f"file:{folder}")
        self._act = act

    async def list(self, prefix: str, after: str = "") -> AsyncIterator[ObjectInfo]:
        if prefix.startswith("claims/"):
            act, self._act = self._act, lambda: None
            await asyncio.to_thread(act)
        async for info in super().list(prefix, after):
            yield info


def test_letters_of_units_that_are_taken_back_meanwhile_are_not_redriven(stage: Stage) -> None:
    """The units are processed again, and so are their letters; a claim on them could never be carried out, and would hold up all others."""
    stage.put([1, "two"])
    stage.work(sealed(2))
    file = stage.folder / "pipeline.yaml"
    state = stage.folder / "state" / "app"
    pipeline = check(file, {}).pipeline
    assert pipeline is not None

    def rewind() -> None:
        done = CliRunner().invoke(app, ["leases", "rewind", str(file), stage.shard, "start", "--yes"])
        assert done.exit_code == 0, done.output

    letters = DeadLetters("numbers", Meanwhile(state, rewind), DirectoryStore(state / "rejects"), pipeline.rejects.redrive, stage.clock)
    kept = {path: path.read_bytes() for path in (state / "rejects").rglob("*.parquet")}
    assert len(kept) == 1
    assert asyncio.run(letters.redrive(None, None, "w")) is None
    assert not list((state / "rejects").rglob("*.parquet"))

    # The file may still be there, if the rewind was interrupted before it had removed everything.
    for path, body in kept.items():
        path.write_bytes(body)
    assert asyncio.run(letters.table()).is_empty()
    stage.work(sealed(2))
    redriven = CliRunner().invoke(app, ["dlq", "redrive", str(file), "--dry-run"])
    assert redriven.exit_code == 0, redriven.output
    assert redriven.output == "1 dead letter would be redriven\n"


@pytest.fixture
def table_beside(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[int]]:
    """The stage's sink loads an Iceberg table; what is returned reads it."""
    catalog = f"sqlite:///{stage.folder}/catalog.db"
    sink = f'iceberg: {{name: lake, location: "file:lake", table: lake.numbers, catalog: {{type: sql, uri: "{catalog}"}}, every: 1s}}'
    sink = sink.replace("{", "{{").replace("}", "}}")
    monkeypatch.setattr("tests.integration.stage.PIPELINE", PIPELINE.replace('s3: {{url: "file:lake"}}', sink))

    def read() -> list[int]:
        opened = load_catalog("default", type="sql", uri=catalog)
        try:
            return sorted(opened.load_table("lake.numbers").scan().to_arrow()["n"].to_pylist())
        finally:
            opened.close()

    return read


@pytest.mark.parametrize("rolled_back", [False, True], ids=["table", "files-in-its-place"])
def test_rows_of_a_table_are_not_taken_back(stage: Stage, table_beside: Callable[[], list[int]], rolled_back: bool) -> None:
    """They are in the table for good; also if the file was rolled back to one without the table, whose files are in the same place."""
    stage.put([1, 2])
    stage.work(lambda event: isinstance(event, events.UnitsLoaded))
    (unit,) = stage.manifests()
    file = stage.folder / "pipeline.yaml"
    if rolled_back:
        file.write_text(re.sub("sinks: .*", 'sinks: [s3: {name: lake, url: "file:lake"}]', file.read_text()))
    for confirmed in (["--yes"], []):
        refused = CliRunner().invoke(app, ["leases", "rewind", str(file), stage.shard, "start", *confirmed], input="y\n")
        assert refused.exit_code == 2, refused.output
        said = " ".join(refused.output.split())
        assert "table lake.numbers" in said
        assert "nothing was changed" in said
        assert "`stream backfill --namespace`" in said
        assert ("take back" in said) == (rolled_back and not confirmed), "it is not asked what is refused anyway"
    assert stage.manifests() == [unit]
    assert table_beside() == [1, 2]
