import subprocess
import sys

import pytest

from stream.cli.limits import ADDRESS_SPACE

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
        ["/bin/bash", "-c", f"ulimit -v {kilobytes} && {command}"], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert words in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_the_least_that_is_asked_for_is_enough():
    done = subprocess.run(
        ["/bin/bash", "-c", f"ulimit -v {ADDRESS_SPACE // 1024} && {VERB}"], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
