"""A scripted MultiLangDaemon: starts our child for one shard and, like the real one, accepts checkpoints only while it waits for a reply.

No test compares it with the real one; campaign_daemon.py runs the same child under that (``make kcl-interop``).
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).parents[2]


class FakeDaemon:
    """The JVM's side of the pipe. ``transcript`` has every message in order, ours with ``>`` and the child's with ``<``."""

    def __init__(self, file: Path, environment: Mapping[str, str], log: Path, *options: str) -> None:
        self.transcript: list[tuple[str, dict[str, Any]]] = []
        self.checkpoints: list[tuple[str | None, int | None]] = []
        self.refuse: list[str] = []
        """Java exceptions to answer the next checkpoints with."""
        self.log = log
        self._err = log.open("ab")
        command = [sys.executable, "-m", "stream", "kcl", "run", str(file), *options]
        self._process = subprocess.Popen(
            command, cwd=ROOT, env={"PATH": "", **environment}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._err
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def ask(self, action: str, **members: Any) -> list[tuple[str | None, int | None]]:
        """Send a request and answer checkpoints until the child reports that it is done; the checkpoints that it asked for."""
        self.send({"action": action, **members})
        asked = []
        while (message := self.receive()) is not None:
            if message["action"] == "checkpoint":
                asked.append((message["sequenceNumber"], message["subSequenceNumber"]))
                error = self.refuse.pop(0) if self.refuse else None
                if error is None:
                    self.checkpoints.append(asked[-1])
                self.send({"action": "checkpoint", "sequenceNumber": None, "subSequenceNumber": None, "error": error})
            else:
                assert message == {"action": "status", "responseFor": action}
                return asked
        raise AssertionError(f"the child ended in {action}:\n{self.said()}")

    def begin(self, action: str, **members: Any) -> str:
        """Send a request; the action of the child's first message, which is not answered."""
        self.send({"action": action, **members})
        message = self.receive()
        assert message is not None, self.said()
        return str(message["action"])

    def send(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self.transcript.append((">", message))
        self._process.stdin.write(json.dumps(message).encode() + b"\n")
        self._process.stdin.flush()

    def receive(self) -> dict[str, Any] | None:
        """The child's next message; None if it has ended. Anything but JSON on its standard output is an error here."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.strip():
                message: dict[str, Any] = json.loads(line)
                self.transcript.append(("<", message))
                return message
        return None

    def records(self, records: list[dict[str, Any]], behind_ms: int = 0) -> list[tuple[str | None, int | None]]:
        return self.ask("processRecords", records=records, millisBehindLatest=behind_ms)

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def close(self) -> int:
        """Close the pipe, as the daemon does when it ends; the child's exit code."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        return self.exit()

    def die(self) -> int:
        """Close both pipes at once, as when the daemon dies; the child's exit code."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdout.close()
        return self.close()

    def exit(self) -> int:
        return self._process.wait(90)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(90)
        for pipe in (self._process.stdin, self._process.stdout, self._err):
            assert pipe is not None
            pipe.close()

    def said(self) -> str:
        return self.log.read_text()


def delivered(record: Mapping[str, Any], subsequence: int = 0, data: bytes | None = None, key: str | None = None) -> dict[str, Any]:
    """A record of GetRecords as the daemon sends it."""
    return {
        "action": "record",
        "data": base64.b64encode(record["Data"] if data is None else data).decode(),
        "partitionKey": key or record["PartitionKey"],
        "sequenceNumber": record["SequenceNumber"],
        "subSequenceNumber": subsequence,
        "approximateArrivalTimestamp": round(record["ApproximateArrivalTimestamp"].timestamp() * 1000),
    }
