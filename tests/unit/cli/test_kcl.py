import subprocess
import sys

import pytest
from typer.testing import CliRunner

from stream.cli.main import app
from tests.standard_error import without_loading


@pytest.mark.parametrize("kind", ["device", "file"])
def test_a_child_without_a_pipe_says_who_should_start_it(tmp_path, kind):
    """The event loop would abort the process if it had to wait for a file, which is always readable."""
    file, given = tmp_path / "pipeline.yaml", tmp_path / "input"
    file.write_text("application: a\n")
    given.write_text("")
    command = [sys.executable, "-m", "stream", "kcl", "run", str(file)]
    with (given if kind == "file" else type(given)("/dev/null")).open() as stdin:
        done = subprocess.run(command, stdin=stdin, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert without_loading(done.stderr).startswith("error: standard input is no pipe: the KCL's daemon starts this command")


@pytest.mark.parametrize(("coordination", "is_noted"), [("", True), ("coordination: native\n", True), ("coordination: kcl\n", False)])
def test_properties_for_a_file_with_another_coordination_come_with_a_note(tmp_path, coordination, is_noted):
    file = tmp_path / "pipeline.yaml"
    source = "source: {kinesis: {stream: e}, schema: {n: int64}}\n"
    file.write_text(f"application: e\n{source}sinks: [{{s3: {{url: 's3://lake/e/'}}}}]\nstate: s3://lake/state/\n{coordination}")
    done = CliRunner().invoke(app, ["kcl", "properties", str(file)])
    assert (done.exit_code, "applicationName = e\n" in done.stdout) == (0, True), done.output
    assert ("note: under the KCL's daemon, write `coordination: kcl`" in done.stderr) == is_noted
