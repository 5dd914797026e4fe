"""The progress of a pipeline, read from its commit log alone."""

from __future__ import annotations

from stream.commit.manifest import Kind, decode
from stream.local.aws import LocalClients


class LogReader:
    """Counts the records of sealed units. A sealed manifest never changes, so each is read once. Blocking.

    ``unfinished``: units that had been begun and not sealed at the last look.
    """

    def __init__(self, clients: LocalClients, bucket: str, prefix: str) -> None:
        self._clients = clients
        self._bucket = bucket
        self._prefix = prefix
        self._records: dict[str, int] = {}
        self.unfinished = 0

    def sealed_records(self) -> int:
        """Records in sealed units by now."""
        self.unfinished = 0
        for key in self._clients.keys(self._bucket, self._prefix):
            if key in self._records:
                continue
            manifest = decode(self._clients.body(self._bucket, key), key)
            if manifest.sealed:
                self._records[key] = manifest.records if manifest.kind is Kind.UNIT else 0
            else:
                self.unfinished += 1
        return sum(self._records.values())
