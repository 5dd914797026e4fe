"""`stream query` beside whole workers over the emulator: what it reads of files and of the stream, and what it says of both."""

from __future__ import annotations

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from stream import events
from stream.cli.main import app
from tests.integration.stage import PIPELINE, Stage, sealed


def run(*words: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, words)
    assert done.exit_code == code, f"{words}: {done.output}"
    return done.stdout if code == 0 else " ".join(done.stderr.split())


def document(stage: Stage, sql: str, *options: str) -> dict[str, Any]:
    file = stage.folder / "pipeline.yaml"
    if not file.exists():
        file.write_text(PIPELINE.format(url=stage.url, on_expired="gap", start="trim_horizon") + stage.more)
    found: dict[str, Any] = json.loads(run("query", str(file), sql, "--json", *options))
    return found


def numbers(stage: Stage, *options: str) -> list[tuple[int, bool]]:
    rows = document(stage, "SELECT n, _sealed, _file FROM rows ORDER BY _sequence", *options)["rows"]
    assert all((row["_file"] is not None) == row["_sealed"] for row in rows)
    return [(row["n"], row["_sealed"]) for row in rows]


def marked(sealed_ones: range, others: range = range(0)) -> list[tuple[int, bool]]:
    return [*((n, True) for n in sealed_ones), *((n, False) for n in others)]


def test_sealed_and_unsealed_rows_are_there_once(stage: Stage) -> None:
    assert numbers(stage) == []
    stage.put(range(3))
    assert numbers(stage) == marked(range(0), range(3)), "no worker has begun"
    stage.work(sealed(3))
    assert numbers(stage) == marked(range(3))
    stage.put(range(3, 5))
    assert numbers(stage) == marked(range(3), range(3, 5))
    assert numbers(stage, "--no-tail") == marked(range(3))
    found = document(stage, "SELECT count(*) AS many FROM rows")
    assert found["rows"] == [{"many": 5}]
    (shard,) = found["streams"][0]["shards"]
    assert (shard["sealed_rows"], shard["unsealed_records"], shard["unsealed_rows"], shard["why"]) == (3, 2, 2, "")
    assert int(shard["read_to"]) > int(shard["sealed_position"]) == int(stage.manifests()[-1].last or 0)
    stage.work(sealed(2))
    assert numbers(stage) == marked(range(5))
    assert sorted(path.name for path in stage.folder.iterdir()) == ["lake", "pipeline.yaml", "state"]


def test_a_unit_that_is_begun_and_not_sealed_is_there_once(stage: Stage) -> None:
    for some in (range(3), range(3, 6)):
        stage.put(some)
        stage.work(sealed(3))
    stage.put(range(6, 7))
    stage.unseal_last()
    assert numbers(stage) == marked(range(3), range(3, 7))
    stage.work(lambda event: isinstance(event, events.ManifestSealed))
    assert numbers(stage) == marked(range(7))
