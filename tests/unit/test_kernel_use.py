"""The list of files that are run without the compiled kernel too."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from stream.native import KERNEL
from tests import kernel_use

ROOT = Path(__file__).parents[2]

USES = """
from stream.native import KERNEL

def test_it():
    if KERNEL is not None:
        KERNEL.varints(bytes(8))
"""


def test_what_is_listed_exists_and_is_where_the_kernel_is_tested():
    assert [
        path
        for path in (*kernel_use.WHOLE, *kernel_use.EXCEPT, *kernel_use.PROCESSES, *kernel_use.FILES, *kernel_use.ABOVE)
        if not (ROOT / path).exists()
    ] == []
    assert [path for path in kernel_use.FILES if not path.startswith(kernel_use.ROOMS)] == []


def test_the_rooms_are_those_that_call_the_kernel():
    modules = [path.relative_to(ROOT / "stream") for path in (ROOT / "stream").rglob("*.py") if "KERNEL" in path.read_text()]
    assert {f"tests/unit/{path.parts[0]}/" for path in modules} - {"tests/unit/native.py/"} == {*kernel_use.ROOMS} - {"tests/contract/"}


@pytest.mark.parametrize(
    ("file", "listed"),
    [
        ("tests/unit/operations/records/test_tracing.py", True),
        ("tests/unit/worker/process/test_allocators.py", True),
        ("tests/unit/audit/test_new.py", True),
        ("tests/unit/audit/test_arrivals.py", False),
        ("tests/unit/aws/test_new.py", False),
        ("tests/unit/worker/test_new.py", True),
        ("tests/contract/test_new.py", False),
        ("tests/integration/test_new.py", True),
    ],
)
def test_only_new_files_of_rooms_that_use_the_kernel_must_be_listed(file, listed):
    assert kernel_use.is_listed(file) is listed


def test_files_that_look_at_the_kernel_themselves_are_listed():
    for folder in kernel_use.ROOMS:
        for path in (ROOT / folder).rglob("test_*.py"):
            if "stream.native import" in path.read_text() or "tests.kernel import" in path.read_text():
                assert kernel_use.is_listed(str(path.relative_to(ROOT))), path


def test_a_call_of_the_kernel_is_noted():
    kernel_use.called.clear()
    if KERNEL is not None:
        KERNEL.varints(bytes(8))
    assert kernel_use.called == ({"varints"} if KERNEL is not None else set())


def test_what_is_made_once_for_many_tests_is_not_called_by_the_first_of_them():
    kernel_use.called.clear()
    kernel_use.called.add("plan")
    with kernel_use.made_once():
        kernel_use.called.add("varints")
    assert kernel_use.called == {"plan"}
    kernel_use.called.clear()


def test_a_test_that_calls_the_kernel_fails_if_its_file_is_not_listed(tmp_path):
    folder = tmp_path / "tests" / "unit" / "aws"
    folder.mkdir(parents=True)
    (tmp_path / "tests" / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    (folder / "test_new.py").write_text(USES)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
        "-o",
        f"pythonpath={ROOT}",
        "tests",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    if KERNEL is None:
        assert done.returncode == 0, done.stdout
    else:
        assert "this test calls varints of the kernel: list tests/unit/aws/test_new.py in tests/kernel_use.py" in done.stdout
        assert done.returncode == 1
