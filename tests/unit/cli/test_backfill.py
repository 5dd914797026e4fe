import pytest
from typer.testing import CliRunner

from stream.cli.main import app


@pytest.mark.parametrize("moment", ["yesterday", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_an_invalid_moment_is_refused(tmp_path, moment):
    file = tmp_path / "pipeline.yaml"
    file.write_text("application: a\n")
    done = CliRunner().invoke(app, ["backfill", str(file), "--from", moment, "--to", "2026-01-01"], env={"COLUMNS": "200"})
    assert done.exit_code == 2
    assert f"--from {moment}: give a moment as" in done.stderr
