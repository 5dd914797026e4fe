"""Processes of the real KCL with kinesis-local and moto. They need Java and Node.js, but no AWS."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.kcl.jars import jars

ROOT = Path(__file__).parents[2]
PATIENCE = 240.0
"""Seconds; on an empty lease table the KCL takes up to a minute before it reads the first record."""

QUICK = {
    "failoverTimeMillis": "3000",
    "shardSyncIntervalMillis": "5000",
    "parentShardPollIntervalMillis": "1000",
    "idleTimeBetweenReadsInMillis": "250",
    "leaseAssignmentIntervalMillis": "2000",
}


class DaemonProcess:
    """``stream kcl daemon`` on a pipeline file; ``log`` is what it and its children wrote."""

    def __init__(self, file: Path, version: str, environment: Mapping[str, str], log: Path, **properties: str) -> None:
        self.log = log
        changes = [word for key, value in (QUICK | properties).items() for word in ("--set", f"{key}={value}")]
        command = [sys.executable, "-m", "stream", "kcl", "daemon", str(file), "--jars", str(jars(version)), *changes]
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={"PATH": os.environ["PATH"], "JAVA_TOOL_OPTIONS": "-Xmx300m", **environment},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def until(self, condition: Callable[[], Any]) -> None:
        """Return once ``condition`` holds."""
        for _ in range(int(PATIENCE / 0.25)):
            if condition():
                return
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(0.25)
                raise AssertionError(f"the daemon ended with {self._process.returncode}:\n{self.said()[-6000:]}")
        raise AssertionError(f"the daemon is stuck:\n{self.said()[-6000:]}")

    def terminate(self) -> int:
        """Send SIGTERM to Java alone; its exit code."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(PATIENCE)

    def kill(self) -> None:
        """Send SIGKILL to Java and to its children, which share its session."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(PATIENCE)
