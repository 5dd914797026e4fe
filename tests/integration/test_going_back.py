"""An operator goes back in a shard, and what must not be twice because of it."""

from __future__ import annotations

from typer.testing import CliRunner

from stream.cli.main import app
from tests.integration.stage import Stage, sealed


def test_units_whose_dead_letters_were_redriven_are_not_taken_back(stage: Stage) -> None:
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
    assert f"behind {first}" in " ".join(refused.output.split())
    assert sorted(path.name for path in (stage.folder / "lake").rglob("*.parquet")) == before

    done = CliRunner().invoke(app, ["leases", "rewind", str(stage.folder / "pipeline.yaml"), stage.shard, str(second), "--yes"])
    assert done.exit_code == 0, done.output
