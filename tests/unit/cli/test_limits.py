import subprocess
import sys

import pytest

from stream.cli.limits import ADDRESS_SPACE, OPEN_FILES, OPEN_FILES_WANTED
from tests.standard_error import without_loading

VERB = f"{sys.executable} -m stream schema"
THREADS = f"""\
{sys.executable} -c '
import threading
from stream.cli.process import command
threading.stack_size({ADDRESS_SPACE // 8})
command()
' schema
"""
"""Stacks so large that few threads fit into the address space."""


@pytest.mark.parametrize(
    ("kilobytes", "command", "words"),
    [
        (400_000, VERB, "error: the address space of this process is limited to 400000 kB (ulimit -v), and at least 786432 kB are needed"),
        (ADDRESS_SPACE // 1024 + 1, THREADS, "threads, and its libraries need"),
    ],
)
def test_a_limit_that_is_too_low_is_named_in_one_line(kilobytes, command, words):
    done = subprocess.run(
        ["/bin/bash", "-c", f"ulimit -v {kilobytes} && {command}"], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert words in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def bash(script):
    return subprocess.run(["/bin/bash", "-c", script], capture_output=True, text=True, timeout=120, check=False)


def test_too_few_open_files_are_refused_in_one_line():
    done = bash(f"ulimit -n {OPEN_FILES - 1} && {VERB}")
    assert (done.returncode, done.stdout) == (1, "")
    assert (
        done.stderr
        == "error: this process may have 63 files and connections open (ulimit -Hn), and at least 64 are needed; raise the limit\n"
    )


def test_as_many_files_may_be_open_as_the_hard_limit_allows():
    look = "import resource, stream.cli.limits as limits; limits.require_open_files(); print(resource.getrlimit(resource.RLIMIT_NOFILE))"
    for hard, soft in ((1000, 1000), (5000, OPEN_FILES_WANTED)):
        done = bash(f"ulimit -Sn 20 && ulimit -Hn {hard} && {sys.executable} -c '{look}'")
        assert (done.stdout, done.stderr) == (f"({soft}, {hard})\n", "")


def test_the_least_that_is_asked_for_is_enough():
    done = subprocess.run(
        ["/bin/bash", "-c", f"ulimit -v {ADDRESS_SPACE // 1024} && {VERB}"], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, without_loading(done.stderr)) == (0, "")
