import subprocess
import sys

import pytest

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
