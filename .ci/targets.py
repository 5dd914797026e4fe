"""What every change must pass, on a clean clone of Debian as root. What needs Java, and longer fire, is in .ci/system.

    .ci/run                 all targets, so many at a time that every core has work
    .ci/run --jobs 1 test   some of them, one after the other

Each target writes into .make/ci/TARGET.log. In the end, a table says how long each took, and what a target that failed has written is
printed whole after it; then the exit code is 1. A target that fails does not stop the others.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from resource import struct_rusage
from typing import Final

ROOT = Path(__file__).resolve().parents[1]
LOGS = ROOT / ".make" / "ci"

PREPARE = "prepare"
"""Runs first and alone: it installs what several targets need, so that no two of them install at once."""

TARGETS: dict[str, dict[str, str]] = {
    # The longest first, so that none of them is left alone at the end; beside it, those that cannot use more than one core.
    "test": {"ARGS": "--ignore=tests/chaos"},
    "chaos": {},
    "fleet": {"FLEET_SECONDS": "180"},
    "image-check": {},
    "native-check": {},
    "localstack": {},
    "airflow-check": {"WORKERS": "1"},
    "dashboards-check": {},
    "chart-check": {},
    "backfill-check": {},
    "audit-check": {},
    "check": {},
    "demo": {"ARGS": "--rows 20000"},
    "iam-check": {},
    "redshift": {},
    "test-without-kernel": {},
    "fuzz": {"ARGS": "--seed 1 --records 50000"},
}
"""Targets of the Makefile, and their variables. Longer fire, and a million records for each decoder, are in .ci/system.

`make test` runs the whole suite; what chaos runs is left out of it here, since it keeps two cores half busy and so runs beside the rest.
Each worker of airflow-check would start an Airflow. The whole demo runs in backfill-check."""

WAITING: Final = ("chaos", "fleet", "localstack")
"""Targets that mostly wait: for the time of their plan, or for what others start. One of them runs beside those that compute."""

PARALLEL: Final = ("test", "redshift", "test-without-kernel", "fuzz")
"""Targets with a process for each core. The others have work for one core, and now and then wait."""

CORES: Final = len(os.sched_getaffinity(0))

ENDING = {signal.SIGINT, signal.SIGTERM}

# The same random examples each time.
ENVIRONMENT = os.environ | {"CI": "1"}


class Run:
    """One target in a process group of its own."""

    def __init__(self, target: str, variables: dict[str, str]) -> None:
        self.target = target
        self.log = LOGS / f"{target}.log"
        self.began = time.monotonic()
        with self.log.open("wb") as log:
            command = [os.environ.get("MAKE", "make"), "--no-print-directory", "-C", str(ROOT), target]
            self.process = subprocess.Popen(
                command,
                env=ENVIRONMENT | variables,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING),
            )

    def end(self, status: int, usage: struct_rusage) -> None:
        """Remember how it went."""
        self.process.returncode = self.code = os.waitstatus_to_exitcode(status)
        self.seconds, self.cpu = time.monotonic() - self.began, usage.ru_utime + usage.ru_stime

    def line(self) -> str:
        """What the table says of it."""
        return f"{'ok' if self.code == 0 else 'FAILED':6}  {self.seconds:6.0f} s  {self.cpu:6.0f} s CPU  {self.target}"


def say(text: str) -> None:
    """Print a line at once, for whoever follows a log."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def run_all(targets: Iterable[str], jobs: int) -> Iterator[Run]:
    """Run ``targets``, those that ``_next`` begins; yields each run when it has ended. What still runs ends with the generator."""
    waiting = list(targets)
    running: dict[int, Run] = {}
    try:
        while waiting or running:
            while (target := _next(waiting, [run.target for run in running.values()], jobs)) is not None:
                waiting.remove(target)
                # A signal between the two would leave a target that nobody ends.
                signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
                run = Run(target, TARGETS.get(target, {}))
                running[run.process.pid] = run
                signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
                say(f"{time.strftime('%H:%M:%S')}  begins  {target}")
            pid, status, usage = os.wait4(-1, 0)
            if (ended := running.pop(pid, None)) is None:
                continue  # the first process of a container inherits the orphans of others
            ended.end(status, usage)
            say(f"{time.strftime('%H:%M:%S')}  {ended.line()}")
            yield ended
    finally:
        for pid in running:
            os.killpg(pid, signal.SIGTERM)
        for left in running.values():
            left.process.wait()


def _next(waiting: list[str], running: list[str], jobs: int) -> str | None:
    """The target to begin now beside those that are ``running``; None if there is none."""
    lazy = sum(target in WAITING for target in running)
    if jobs == 1:
        return waiting[0] if waiting and not running else None
    busy = sum(_cores(target) for target in running)
    beside = (target for target in waiting if (not lazy if target in WAITING else not busy or busy + _cores(target) <= jobs))
    return next(beside, None)


def _cores(target: str) -> int:
    """How many cores ``target`` can keep busy."""
    return 0 if target in WAITING else CORES if target in PARALLEL else 1


def main() -> int:
    """Run what the command line names. Returns the exit code."""
    parser = argparse.ArgumentParser(prog=".ci/run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--jobs",
        type=int,
        default=2 * CORES,
        metavar="N",
        help="targets that run at the same time, of which those that use all cores count as many, besides one that mostly waits if it "
        "is not 1; default: two for each core",
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"default: all of them: {', '.join(TARGETS)}")
    given = parser.parse_args()
    if given.jobs < 1:
        parser.error(f"argument --jobs: {given.jobs} is not a number of targets; give 1 or more")
    if unknown := [each for each in given.targets if each not in TARGETS]:
        parser.error(f"there is no target {unknown[0]!r} here; there are: {', '.join(TARGETS)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    LOGS.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    done = list(run_all([PREPARE], 1))
    if done[0].code == 0:
        done += run_all(given.targets or TARGETS, given.jobs)
    say(f"\n{len(done)} targets in {time.monotonic() - began:.0f} s:")
    for run in done:
        say(run.line())
    failed = [run for run in done if run.code]
    for run in failed:
        say(f"\n===== {run.target} ended with {run.code}; it has written:\n{run.log.read_text(errors='replace')}")
    return int(bool(failed))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
