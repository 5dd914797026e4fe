"""No file of the repository says anything that is true of one machine only, or is left half-done."""

import re
import subprocess

import pytest

from tests.docs.generate import ROOT

HOSTS = ["pypi" + ".org", "pythonhosted" + ".org", "npmjs" + ".org", "npmjs" + ".com", "crates" + ".io"]
"""Written in parts, so that this file does not hold them."""

MACHINE = re.compile("(?<![A-Za-z0-9_.<])/(?:" + "|".join(["wo" + "rk", "tmp/" + "v", "ro" + "ot", "home/" + "[a-z]+"]) + ")/")
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b|(?i:\b(for now|simplified|placeholder|dummy)\b)")
SECRET = re.compile(r"\b(AKIA|ASIA)[A-Z0-9]{16}\b|-----BEGIN [A-Z ]*PRIVATE KEY-----|\bghp_[A-Za-z0-9]{36}\b")


def texts():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    for name in filter(None, listed):
        path = ROOT / name
        if path.suffix not in {".parquet", ".png"} and path.is_file():
            yield name, path.read_text()


@pytest.fixture(scope="module")
def files():
    return dict(texts())


def found(files, pattern, under=""):
    return [
        f"{name}:{number}: {line.strip()}"
        for name, text in files.items()
        if name.startswith(under)
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]


def test_no_package_registry_is_named(files):
    assert found(files, re.compile("|".join(map(re.escape, HOSTS)))) == []


def test_no_path_of_one_machine_is_named(files):
    assert found(files, MACHINE) == []


def test_nothing_is_marked_as_unfinished(files):
    assert found(files, UNFINISHED, "stream/") == []
    assert found(files, UNFINISHED, "docs/") == []


def test_no_secret_is_in_the_repository(files):
    assert found(files, SECRET) == []


@pytest.mark.parametrize("line", ["see " + "/wo" + "rk/notes", "/ho" + "me/me/x"])
def test_the_pattern_for_machine_paths_matches(line):
    assert MACHINE.search(line)


def test_every_test_file_that_the_makefile_runs_under_sanitizers_exists():
    database = subprocess.run(["make", "-pn", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    (line,) = [each for each in database.splitlines() if each.startswith("SANITIZED ")]
    paths = line.partition("=")[2].split()
    assert len(paths) > 10
    assert [path for path in paths if not (ROOT / path).is_file()] == []
