"""A forked ``stream`` ends and prints as one that Python starts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import forked
from tests.standard_error import without_loading


@pytest.mark.parametrize(("name", "code"), [("filter", 0), ("filtre", 1)])
def test_it_has_the_code_and_the_output_of_the_command_with_its_folder_and_environment(tmp_path: Path, name: str, code: int) -> None:
    text = (forked.ROOT / "examples" / "flights" / "pipeline.yaml").read_text()
    (tmp_path / "pipeline.yaml").write_text(text.replace("filter:", f"{name}:"))
    env = {"COLUMNS": "60", "PYTHONPATH": str(forked.ROOT)}  # no MASK_KEY, which is said
    words = ["check", "pipeline.yaml"]
    started = subprocess.run([sys.executable, "-m", "stream", *words], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    done = forked.run(*words, cwd=tmp_path, env=env)
    assert (done.returncode, done.stdout) == (started.returncode, started.stdout)
    assert without_loading(done.stderr) == without_loading(started.stderr)
    assert done.returncode == code


def test_a_signal_that_ends_it_is_its_code() -> None:
    ours, theirs = os.pipe()
    with Path(os.devnull).open("r+") as nothing:
        process = forked.Forked(["kcl", "run", "missing.yaml"], (ours, nothing.fileno(), nothing.fileno()), target=signal_itself)
    os.close(ours)
    os.close(theirs)
    assert process.wait() == -signal.SIGTERM


def signal_itself(_: object) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
