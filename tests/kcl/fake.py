"""A scripted MultiLangDaemon: starts our child for one shard and, like the real one, accepts checkpoints only while it waits for a reply.

No test compares it with the real one; campaign_daemon.py runs the same child under that (``make kcl-interop``).
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from time import monotonic
from typing import Any, Self

from tests.forked import PATIENCE, ROOT, Forked


class FakeDaemon:
    """The JVM's side of the pipe. ``transcript`` has every message in order, ours with ``>`` and the child's with ``<``."""

    def __init__(self, file: Path, environment: Mapping[str, str], log: Path, *options: str) -> None:
        self.transcript: list[tuple[str, dict[str, Any]]] = []
        self.checkpoints: list[tuple[str | None, int | None]] = []
        self.refuse: list[str] = []
        """Java exceptions to answer the next checkpoints with."""
        self.log = log
        self._err = log.open("ab")
        (stdin, ours), (theirs, stdout) = os.pipe(), os.pipe()
        self._stdin, self._stdout = open(ours, "wb"), open(theirs, "rb")  # noqa: PTH123, SIM115
        streams = (stdin, stdout, self._err.fileno())
        self._process = Forked(["kcl", "run", str(file), *options], streams, cwd=ROOT, env={"PATH": "", **environment})
        os.close(stdin)
        os.close(stdout)

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
        self.transcript.append((">", message))
        self._stdin.write(json.dumps(message).encode() + b"\n")
        self._stdin.flush()

    def receive(self) -> dict[str, Any] | None:
        """The child's next message; None if it has ended. Anything but JSON on its standard output is an error here."""
        for line in self._stdout:
            if line.strip():
                message: dict[str, Any] = json.loads(line)
                self.transcript.append(("<", message))
                return message
        return None

    def records(self, records: list[dict[str, Any]], behind_ms: int = 0) -> list[tuple[str | None, int | None]]:
        return self.ask("processRecords", records=records, millisBehindLatest=behind_ms)

    def until(self, holds: Callable[[], bool]) -> None:
        """Send empty requests, as the daemon does on a quiet shard, until ``holds`` is true."""
        end = monotonic() + PATIENCE
        while not holds():
            assert monotonic() < end, f"the child is stuck:\n{self.said()}"
            self.records([])

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def close(self) -> int:
        """Close the pipe, as the daemon does when it ends; the child's exit code."""
        self._stdin.close()
        return self.exit()

    def die(self) -> int:
        """Close both pipes at once, as when the daemon dies; the child's exit code."""
        self._stdout.close()
        return self.close()

    def exit(self) -> int:
        return self._process.wait()

    def kill(self) -> None:
        self._process.kill()
        for pipe in (self._stdin, self._stdout, self._err):
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
