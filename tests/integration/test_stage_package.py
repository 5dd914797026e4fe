"""A stage in a package of its own: installed, checked, held to the contract, run."""

import os
import shutil
import subprocess
import sys

import pytest

from stream.pipeline.checks.lint import check
from stream.testing.stages import STAGE_CHECKS
from tests.docs.generate import ROOT

PACKAGE = ROOT / "examples" / "stream-stage-luhn"
DESCRIBE = "import sys; from setuptools import build_meta; build_meta.prepare_metadata_for_build_editable(sys.argv[1])"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Runs Python where the package is installed as an editable install would: its code in the path, its metadata beside it."""
    place, metadata = tmp_path_factory.mktemp("package") / "luhn", tmp_path_factory.mktemp("metadata")
    shutil.copytree(PACKAGE, place)
    subprocess.run([sys.executable, "-c", DESCRIBE, metadata], cwd=place, check=True, capture_output=True)
    path = os.pathsep.join(map(str, (place, metadata, ROOT)))
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}

    def python(*arguments):
        return subprocess.run(
            [sys.executable, *map(str, arguments)], check=False, cwd=ROOT, env=environment, capture_output=True, text=True
        )

    return python


def test_the_package_passes_its_own_tests_and_the_stage_contract(run):
    done = run(
        "-m", "pytest", "-v", "-p", "no:cacheprovider", "-p", "no:xdist", PACKAGE / "tests", "tests/contract/test_stage.py", "-k", "luhn"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("tests/contract/test_stage.py::test_the_contract_holds[luhn-") == len(STAGE_CHECKS)
    assert "test_only_one_check_digit_fits PASSED" in done.stdout


def test_the_installed_stage_rejects_records(run, tmp_path):
    (tmp_path / "s.ndjson").write_text('{"card":"4111-1111-1111-1111","amount":1}\n{"card":"4111-1111-1111-1112","amount":1}\n')
    shown = run("-m", "stream", "preview", PACKAGE / "pipeline.yaml", "--sample", tmp_path / "s.ndjson")
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "1 x luhn:card" in shown.stdout
    assert "****-****-****-1111" in shown.stdout


def test_without_the_package_the_finding_names_the_unknown_stage():
    (finding, *_) = check(PACKAGE / "pipeline.yaml", {}).findings
    assert finding.code == "unknown_stage"
    assert "luhn" in finding.message
