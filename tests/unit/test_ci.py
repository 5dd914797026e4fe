"""How .ci/run runs targets, with a Makefile of this test's own."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

MAKEFILE = """
prepare:
	@touch prepared
test: # Only a target beside it opens the other end of the pipe.
	@test -e prepared && mkfifo pipe; cat pipe
fleet:
	@while ! test -p pipe; do :; done; echo $$FLEET_SECONDS $$CI > pipe
redshift:
	@echo first line; echo last line >&2; exit 3
fuzz:
	@echo the text of what succeeds
demo:
	@exec sleep 600 > alive
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / ".ci").mkdir()
    for name in ("run", "targets.py"):
        shutil.copy(ROOT / ".ci" / name, tmp_path / ".ci")
    (tmp_path / "Makefile").write_text(MAKEFILE)
    return tmp_path


def run(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # By name, as it is run where its first line is not looked at.
    return subprocess.run(["bash", place / ".ci" / "run", *arguments], capture_output=True, text=True, timeout=120, check=False)


def test_two_targets_run_at_the_same_time_after_what_they_need_is_prepared(place: Path) -> None:
    done = run(place, "test", "fleet")
    assert done.returncode == 0, done.stdout
    assert (place / ".make" / "ci" / "test.log").read_text() == "180 1\n"


@pytest.fixture
def targets(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module, on a machine with two cores."""
    spec = importlib.util.spec_from_file_location("targets", ROOT / ".ci" / "targets.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "CORES", 2)
    return module


@pytest.mark.parametrize(
    ("jobs", "begun", "then"),
    [
        (1, ["test"], "fleet"),
        (2, ["test", "fleet"], "redshift"),
        (3, ["test", "fleet", "check"], "demo"),
        (4, ["test", "fleet", "redshift"], "fuzz"),
        (5, ["test", "fleet", "redshift", "check"], "demo"),
    ],
)
def test_so_many_targets_run_that_cores_have_work_and_one_that_mostly_waits_beside_them(
    targets: Any, jobs: int, begun: list[str], then: str
) -> None:
    waiting, running = ["test", "fleet", "localstack", "redshift", "fuzz", "check", "demo"], list[str]()
    while (target := targets._next(waiting, running, jobs)) is not None:
        waiting.remove(target)
        running.append(target)
    assert running == begun
    running.remove(begun[-1] if begun[-1] != "fleet" else "test")
    assert targets._next(waiting, running, jobs) == then
    running = [each for each in running if each != "fleet"]
    assert targets._next(waiting, running, jobs) == ("fleet" if jobs == 1 else "localstack")


def test_the_whole_output_of_a_failed_target_comes_last_and_the_others_still_run(place: Path) -> None:
    done = run(place, "--jobs", "1", "redshift", "fuzz")
    assert done.returncode == 1
    assert done.stdout.endswith("\n===== redshift ended with 2; it has written:\n" + (place / ".make/ci/redshift.log").read_text() + "\n")
    assert "first line\nlast line\n" in done.stdout
    assert "the text of what succeeds" not in done.stdout
    table = done.stdout.partition("3 targets in ")[2]
    assert re.findall(r"(?m)^(ok|FAILED) +\d+ s +\d+ s CPU  (\S+)$", table) == [("ok", "prepare"), ("FAILED", "redshift"), ("ok", "fuzz")]


def test_nothing_runs_if_the_preparation_fails(place: Path) -> None:
    (place / "Makefile").write_text(MAKEFILE.replace("@touch prepared", "@echo no network; exit 1"))
    done = run(place, "fuzz")
    assert done.returncode == 1
    assert "no network" in done.stdout
    assert not (place / ".make" / "ci" / "fuzz.log").exists()


def test_targets_end_with_it(place: Path) -> None:
    os.mkfifo(place / "alive")
    process = subprocess.Popen([place / ".ci" / "run", "demo"], stdout=subprocess.PIPE, text=True)
    with (place / "alive").open() as alive:  # which waits until the target has opened its end
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=120)
        assert process.returncode == 143
        assert alive.read() == ""  # which waits until the target has ended


def test_a_target_that_does_not_exist_is_refused_with_those_that_do(place: Path) -> None:
    done = run(place, "tset")
    assert done.returncode == 2
    assert "there is no target 'tset' here; there are: test, chaos, " in done.stderr


def test_every_target_is_in_the_makefile() -> None:
    named = re.findall(r'(?m)^    "([a-z-]+)": \{', (ROOT / ".ci" / "targets.py").read_text())
    assert len(named) >= 16
    assert set(named) <= set(re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text()))


def test_what_is_left_out_of_a_target_is_run_by_another_one(targets: Any) -> None:
    left_out = [each for variables in targets.TARGETS.values() for each in re.findall(r"--ignore=(\S+)", variables.get("ARGS", ""))]
    assert left_out == ["tests/chaos"]
    recipes = dict(re.findall(r"(?m)^([a-z-]+):.*\n\t@(.*)$", (ROOT / "Makefile").read_text()))
    assert recipes["chaos"].endswith(" -m pytest -q -n $(WORKERS) --dist worksteal tests/chaos $(ARGS)")
    assert targets.TARGETS["chaos"] == {}
