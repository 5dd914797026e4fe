"""Shared by the benchmarks: the replay server in a process of its own, pinning to processors, and printing and storing figures."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from contestants import environment
from shapes import Shape


@contextmanager
def replay(shape: Shape, records: int, shards: int, rate: float = 0.0) -> Iterator[dict[str, Any]]:
    """The replay server: its ``url``, the ``payload`` bytes of one shard, and its ``pid``."""
    script = str(Path(__file__).with_name("replay.py"))
    arguments = ["--shape", shape.name, "--records", str(records), "--shards", str(shards), "--rate", str(rate)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, script, *arguments], env=environment(""), **pipes) as process:  # type: ignore[call-overload]
        yield {**json.loads(process.stdout.readline()), "pid": process.pid}
        process.stdin.close()


@contextmanager
def pinned(processors: set[int]) -> Iterator[None]:
    """Processes started in the context run on these processors only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, processors)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cpu_seconds(pid: int) -> float:
    """User and system time of a running process so far."""
    fields = Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def machine() -> dict[str, Any]:
    """The machine on which the figures were made; ``load`` is the load before the first run, which should be near 0."""
    model = next((line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "?")
    where = {"platform": platform.platform(), "cpu": model, "cores": os.cpu_count(), "python": platform.python_version()}
    return {**where, "load": os.getloadavg()[0]}


def spread(values: Sequence[float], digits: int = 1) -> str:
    """The median of some runs, with minimum and maximum."""
    return f"{median(values):.{digits}f} [{min(values):.{digits}f} .. {max(values):.{digits}f}]"


def parser(about: str | None) -> argparse.ArgumentParser:
    """Common options: the number of runs, and the JSON file."""
    made = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--runs", type=int, default=3)
    made.add_argument("--json", type=Path, help="where the figures go")
    return made


def keep(file: Path | None, **figures: Any) -> None:
    """Write the figures and the machine as JSON."""
    if file is not None:
        file.write_text(json.dumps({"machine": machine(), **figures}, indent=2) + "\n")
