"""The record of one unit in the commit log: what was read, what came of it, which files hold it.

A manifest is an ``intent`` until all its files are in place, then ``sealed`` for ever. Sequence numbers are decimal text, because
they do not fit the integers of JSON readers. The bytes are canonical: equal manifests have equal bytes.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Final

import msgspec

from stream.batch import ORIGIN, SeqRange
from stream.commit.naming import sha256_hex
from stream.contracts import OutputFile, Start, StartKind
from stream.errors import Halted

FORMAT: Final = 1


class Kind(StrEnum):
    """What a link of the chain stands for.

    ``GAP``: records of that range expired in the stream before anybody committed them. ``FOREIGN``: another application, such as a Java
    KCL on the same lease table, processed them. ``SKIP``: an operator decided that nobody processes them. ``REWIND``: the last link of a
    chain from which an operator went back; the shard goes on in the chain of its next generation.
    """

    GENESIS = "genesis"
    UNIT = "unit"
    GAP = "gap"
    FOREIGN = "foreign"
    SKIP = "skip"
    REWIND = "rewind"
    END = "end"


class State(StrEnum):
    """``intent``: bounds and content are fixed, files may be missing. ``sealed``: everything is in place."""

    INTENT = "intent"
    SEALED = "sealed"


class FileEntry(msgspec.Struct, frozen=True, order=True):
    """One object of a unit. ``sink`` names where, ``key`` is relative to that sink's root."""

    sink: str
    key: str
    size: int
    rows: int
    sha256: str

    @staticmethod
    def of(file: OutputFile) -> FileEntry:
        """The entry that describes ``file``."""
        return FileEntry(sink=file.sink, key=file.key, size=len(file.body), rows=file.rows, sha256=file.sha256)


class Pinned(msgspec.Struct, frozen=True):
    """A start position that no longer depends on when somebody looks. ``timestamp``: ISO 8601 with zone, for ``at_timestamp``."""

    kind: str
    timestamp: str | None = None


class StageRun(msgspec.Struct, frozen=True):
    """What one stage did to the unit: rows in and out, and the microseconds it took the worker that began the unit."""

    name: str
    rows_in: int
    rows_out: int
    micros: int


class Manifest(msgspec.Struct, frozen=True, omit_defaults=True):
    """One link of a shard's chain.

    ``after`` and ``last`` bound the range ``(after, last]``; genesis, rewind and end manifests have no ``last``. ``subsequence`` is the
    index of the last user record inside the Kinesis record ``last``. ``outcomes`` sums to ``records``. ``previous`` is the SHA-256
    of the bytes of the sealed manifest before this one, so that the chain cannot be edited unnoticed. ``superseded`` lists files
    of an earlier content of this intent that the sealed manifest does not contain. ``targets`` maps each sink's name to its URL at
    that time. ``seal`` is set with the state ``sealed``: the SHA-256 of the manifest's bytes without it, so that the last link, which
    no later one names yet, cannot be edited unnoticed either. Times are ISO 8601, UTC.

    ``shard`` is the name of the chain: the shard id, behind a rewind with the generation. A rewind goes back to ``target``; its
    ``superseded`` are the files that are taken back with it. ``foreign_subsequence``: of the Kinesis record that follows
    ``after`` (of a foreign link: ``last``), the user records up to this index were processed by another application; -1: none.
    ``note``: the operator's own words.
    """

    kind: Kind
    state: State
    application: str
    stream: str
    shard: str
    pipeline: str = ""
    build: str = ""
    after: str = str(ORIGIN)
    last: str | None = None
    subsequence: int = 0
    records: int = 0
    payload_bytes: int = 0
    outcomes: dict[str, int] = {}
    files: tuple[FileEntry, ...] = ()
    superseded: tuple[FileEntry, ...] = ()
    targets: dict[str, str] = {}
    previous: str = ""
    start: Pinned | None = None
    parents: tuple[str, ...] = ()
    children: tuple[str, ...] = ()
    trigger: str = ""
    first_arrival: str = ""
    last_arrival: str = ""
    worker: str = ""
    created_at: str = ""
    sealed_by: str = ""
    sealed_at: str = ""
    stages: tuple[StageRun, ...] = ()
    seal: str = ""
    target: str | None = None
    foreign_subsequence: int = -1
    note: str = ""
    format: int = FORMAT

    @property
    def reach(self) -> int:
        """Up to where the chain is decided by this link: the end of its range, or where it begins if it has none."""
        return int(self.after if self.last is None else self.last)

    @property
    def span(self) -> SeqRange:
        """The range of a unit."""
        if self.last is None:
            msg = f"a {self.kind} manifest of {self.stream}/{self.shard} has no range"
            raise ValueError(msg)
        return SeqRange(int(self.after), int(self.last))

    @property
    def sealed(self) -> bool:
        """Whether this manifest can never change again."""
        return self.state is State.SEALED

    def same_content(self, other: Manifest) -> bool:
        """Whether both commit the same range to the same files; who does it, and when, does not matter."""
        return (self.kind, self.last, self.files, self.outcomes) == (other.kind, other.last, other.files, other.outcomes)


def pinned(start: Start) -> Pinned:
    """``start`` as manifests hold it."""
    return Pinned(start.kind, start.timestamp.isoformat() if start.timestamp else None)


def encode_start(start: Start) -> bytes:
    """Canonical JSON of a start position."""
    return _ENCODER.encode(pinned(start))


def decode_start(body: bytes, key: str) -> Start:
    """The start position in ``body``; raises ``Halted`` if it is none, naming ``key``."""
    try:
        stored = msgspec.json.decode(body, type=Pinned)
        return Start(StartKind(stored.kind), datetime.fromisoformat(stored.timestamp) if stored.timestamp else None)
    except (msgspec.MsgspecError, ValueError) as error:
        msg = f"object {key} is not a readable start position: {error}; restore its previous version, nothing is read until then"
        raise Halted(msg) from error


_ENCODER: Final = msgspec.json.Encoder(order="sorted")
_DECODER: Final = msgspec.json.Decoder(Manifest, strict=True)


def encode(manifest: Manifest) -> bytes:
    """Canonical JSON; equal manifests give equal bytes."""
    return _ENCODER.encode(manifest)


def decode(body: bytes, key: str) -> Manifest:
    """The manifest in ``body``; ``key`` is named in errors.

    Raises:
        Halted: the object is not a manifest of this format; going on could write records twice.
    """
    try:
        manifest = _DECODER.decode(body)
    except msgspec.MsgspecError as error:
        msg = (
            f"commit log object {key} is not a readable manifest: {error}. The shard stands still; "
            "restore the object's previous version, or run `stream audit verify` to see what it covers."
        )
        raise Halted(msg) from error
    if manifest.format != FORMAT:
        msg = f"commit log object {key} has format {manifest.format}, this build reads {FORMAT}; run the newer build"
        raise Halted(msg)
    return manifest


def with_seal(manifest: Manifest) -> Manifest:
    """``manifest`` with the checksum over itself that every sealed manifest carries."""
    return msgspec.structs.replace(manifest, seal=sha256_hex(encode(msgspec.structs.replace(manifest, seal=""))))


def digest(body: bytes) -> str:
    """The link to a sealed manifest: SHA-256 of its bytes."""
    return sha256_hex(body)
