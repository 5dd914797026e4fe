"""Starts LocalStack and stops it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError

from tests.ports import free_port

VERSION = "2026.3.0"
PATIENCE = 180.0
"""Seconds for LocalStack to come up or to go."""
_LOOK = 0.5


def aws_command() -> tuple[str, str]:
    """The command line of AWS, which comes with LocalStack."""
    python = os.environ["LOCALSTACK_PYTHON"]
    return python, str(Path(python).with_name("aws"))


@contextmanager
def running(python: str) -> Iterator[str]:
    """The URL of a LocalStack of this process's own, run by the interpreter ``python`` of its environment."""
    with tempfile.TemporaryDirectory(prefix="localstack-") as folder, free_port() as port:
        log = Path(folder, "log")
        launch = str(Path(__file__).with_name("launch.py"))
        with log.open("wb") as output:
            command = [python, launch, str(port), folder]
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            url = f"http://127.0.0.1:{port}"
            _wait(process, url, log)
            yield url
        finally:
            process.terminate()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                # It and its Node child are a session of their own.
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    for _ in range(int(PATIENCE / _LOOK)):
        try:
            status = process.wait(_LOOK)
        except subprocess.TimeoutExpired:
            if _version(url) == VERSION:
                return
            continue
        raise AssertionError(f"LocalStack ended with status {status}:\n{log.read_text()[-4000:]}")
    raise AssertionError(f"LocalStack did not come up:\n{log.read_text()[-4000:]}")


def _version(url: str) -> str | None:
    try:
        with urllib.request.urlopen(f"{url}/_localstack/health", timeout=PATIENCE) as reply:  # noqa: S310 - loopback
            version: str = json.load(reply)["version"]
    except (URLError, OSError):
        return None
    return version
