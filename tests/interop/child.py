"""A record processor for the real MultiLangDaemon: keeps what it received and checkpoints it, as the KCL's own sample does.

``python child.py FILE`` appends one JSON line for each batch to FILE before it asks for the checkpoint, and one after it was done.
Uses nothing of the service.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any


def main(path: str) -> None:
    shard = ""
    with open(path, "a", buffering=1, encoding="utf-8") as notes:  # noqa: PTH123 - nothing but the built-in is needed here
        for line in sys.stdin:
            if not line.strip():
                continue
            message = json.loads(line)
            action = message["action"]
            if action == "initialize":
                shard = message["shardId"]
                notes.write(_note(shard, "initialize", []))
            elif action == "processRecords" and message["records"]:
                records = [(each["sequenceNumber"], each.get("subSequenceNumber") or 0, each["data"]) for each in message["records"]]
                notes.write(_note(shard, "records", records))
                if _checkpoint(*records[-1][:2]):
                    notes.write(_note(shard, "checkpointed", records))
            elif action == "shardEnded":
                notes.write(_note(shard, "ended", []))
                _checkpoint(None, None)
            elif action in {"leaseLost", "shutdownRequested"}:
                notes.write(_note(shard, action, []))
            _say({"action": "status", "responseFor": action})


def _note(shard: str, what: str, records: list[Any]) -> str:
    return json.dumps({"at": time.time(), "shard": shard, "what": what, "records": records}) + "\n"


def _checkpoint(sequence: str | None, subsequence: int | None) -> bool:
    """Ask for a checkpoint; whether it was made. An error means that the lease is lost, which the daemon reports next."""
    _say({"action": "checkpoint", "sequenceNumber": sequence, "subSequenceNumber": subsequence})
    for line in sys.stdin:
        if line.strip():
            return not json.loads(line).get("error")
    return False


def _say(message: dict[str, Any]) -> None:
    sys.stdout.write("\n" + json.dumps(message) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
