"""The CPU time of an idle worker: ``python benchmarks/idle.py [--shards 4] [--seconds 60]``."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from common import cpu_seconds
from memory import PIPELINE, environment, fill

from stream.local.process import helper


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=60.0)
    given = parser.parse_args()
    with helper("stream.local.kinesis") as kinesis, tempfile.TemporaryDirectory() as folder:
        fill(kinesis.url, given.shards, 1000, 350)
        path = Path(folder, "pipeline.yaml")
        path.write_text(PIPELINE.format(budget="256MiB"))
        with subprocess.Popen(
            [sys.executable, "-m", "stream", "run", str(path)], stderr=subprocess.DEVNULL, env=environment(kinesis.url)
        ) as worker:
            rest(worker, 15.0)
            before = cpu_seconds(worker.pid)
            rest(worker, given.seconds)
            used = cpu_seconds(worker.pid) - before
            worker.send_signal(signal.SIGTERM)
    print(f"{given.shards} idle shards: {100 * used / given.seconds:.2f} % of a core over {given.seconds:.0f} s")


def rest(worker: subprocess.Popen[bytes], seconds: float) -> None:
    try:
        worker.wait(seconds)
    except subprocess.TimeoutExpired:
        return
    sys.exit(f"the worker ended with {worker.returncode}")


if __name__ == "__main__":
    main()
