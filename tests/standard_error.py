"""What a process writes to standard error."""

from __future__ import annotations

import re
import subprocess


def read_until(child: subprocess.Popen[str], pattern: str) -> str:
    """What the process has written to standard error up to the line that ``pattern`` matches. The time limit of tests is the limit."""
    seen = []
    for line in child.stderr:
        seen.append(line)
        if re.search(pattern, line):
            return "".join(seen)
    raise AssertionError("".join(seen))


def without_loading(said: str) -> str:
    """What a command has said, except that it was still loading its libraries, as it says first on a busy machine."""
    return "".join(line for line in said.splitlines(keepends=True) if not line.startswith("still loading libraries after "))
