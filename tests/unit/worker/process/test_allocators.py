import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[4]

# Blocks of a size that glibc would keep in its heap once a larger one was freed, with a small one behind each to pin the heap's end.
PROGRAM = """
import ctypes, re
from stream.worker.process.allocators import give_memory_back, prepare_allocators
prepare_allocators()
def resident():
    with open("/proc/self/status") as status:
        return int(re.search(r"VmRSS:\\s+(\\d+)", status.read())[1]) // 1024
large = b"x" * (30 << 20)
del large
before = resident()
blocks, pins = [], []
for _ in range(60):
    blocks.append(b"x" * (2 << 20))
    pins.append(b"x" * 1000)
blocks.clear()
kept = resident() - before
give_memory_back()
print(kept, resident() - before)
"""


def test_freed_blocks_are_kept_for_reuse_until_they_are_given_back():
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, check=True, text=True)
    kept, left = map(int, done.stdout.split())
    assert kept > 60
    assert left < 20
