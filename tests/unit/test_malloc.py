"""The command's threads share one heap, whatever the libraries of its verbs start while they are imported."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

# A thread keeps the heap that it allocates from first, so each has to live until the last one has one.
PROGRAM = """
import ctypes, threading
from stream.cli.loading import load
load("stream.cli.run")
all_have_one = threading.Barrier(6)
def allocate():
    block = bytearray(2 << 20)
    all_have_one.wait()
threads = [threading.Thread(target=allocate) for _ in range(6)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
libc = ctypes.CDLL(None)
libc.fdopen.restype = ctypes.c_void_p
out = ctypes.c_void_p(libc.fdopen(1, b"w"))
libc.malloc_info(0, out)
libc.fflush(out)
"""


def test_all_threads_of_a_verb_share_one_heap():
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, check=True, text=True)
    assert done.stdout.count("<heap nr=") == 1
