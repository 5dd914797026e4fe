import os
import subprocess
import sys
from pathlib import Path

import pytest

from stream.worker.process.startup import unchanged_code

ROOT = Path(__file__).parents[4]

CODE = "7f00000a1000-7f00000b2000 r-xp 00001000 fe:00 42                         /usr/lib/some library.so\n"
CLEAN = "Size:                 68 kB\nRss:                  64 kB\nAnonymous:             0 kB\nSwap:                  0 kB\n"
BOUNDS = (0x7F00000A1000, 0x7F00000B2000)


def test_code_of_files_is_found():
    other = CODE.replace("7f00000", "7e00000")
    assert list(unchanged_code(CODE + CLEAN)) == [BOUNDS]
    assert list(unchanged_code(CODE + CLEAN + other + CLEAN)) == [BOUNDS, (0x7E00000A1000, 0x7E00000B2000)]
    assert list(unchanged_code("")) == []


@pytest.mark.parametrize(
    "block",
    [
        CODE + CLEAN.replace("Anonymous:             0", "Anonymous:             4"),
        CODE + CLEAN.replace("Swap:                  0", "Swap:                 12"),
        CODE.replace("r-xp", "r--p") + CLEAN,
        CODE.replace("r-xp", "rwxp") + CLEAN,
        CODE.replace("r-xp", "r-xs") + CLEAN,
        CODE.replace("/usr/lib/some library.so", "[vdso]") + CLEAN,
        CODE.replace("/usr/lib/some library.so", "") + CLEAN,
    ],
    ids=["changed", "changed and swapped out", "data", "written", "shared", "of the kernel", "of no file"],
)
def test_what_could_not_be_read_again_is_left_alone(block):
    after = CODE.replace("7f00000", "7f10000") + CLEAN
    assert list(unchanged_code(block)) == []
    assert list(unchanged_code(CODE + CLEAN + block + after)) == [BOUNDS, (0x7F10000A1000, 0x7F10000B2000)]


PROGRAM = """
import re
import polars as pl
from stream.worker.process.startup import leave_startup_behind
def resident():
    with open("/proc/self/status") as status:
        return int(re.search(r"RssFile:\\s+(\\d+)", status.read())[1]) // 1024
frame = pl.DataFrame({"text": ["b", "a", "b"]})
before = frame.group_by("text").len().sort("text").rows(), resident()
leave_startup_behind()
left = resident()
after = frame.group_by("text").len().sort("text").rows()
print(before[0] == after == [("a", 1), ("b", 2)], before[1], left)
"""


def test_code_leaves_memory_and_is_run_again():
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, check=True, text=True)
    right, before, left = done.stdout.split()
    assert right == "True"
    assert int(left) < int(before) - 10
