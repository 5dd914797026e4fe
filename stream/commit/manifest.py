"""The record of one unit in the commit log: the range that was read, the outcomes of its records, and the files that were written.

A manifest is an ``intent`` until all its files are in place, then ``sealed`` forever. Sequence numbers are decimal text, because they
exceed the integers of most JSON parsers. The encoding is canonical: equal manifests have equal bytes.
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
    """What a link of the chain records.

    ``GENESIS``: the first link, which pins the start. ``UNIT``: a committed range. ``GAP``: the records of the range expired in the stream
    before they were committed. ``FOREIGN``: another application, such as a Java KCL on the same lease table, processed them. ``SKIP``: an
    operator decided that they are not processed. ``REWIND``: the last link of a chain that an operator rewound; the shard continues in the
    chain of its next generation. ``END``: the shard has been read to its end.
    """

    GENESIS = "genesis"
    UNIT = "unit"
    GAP = "gap"
    FOREIGN = "foreign"
    SKIP = "skip"
    REWIND = "rewind"
    END = "end"


class State(StrEnum):
    """``intent``: range and content are fixed, files may be missing. ``sealed``: all files are in place."""

    INTENT = "intent"
    SEALED = "sealed"


class FileEntry(msgspec.Struct, frozen=True, order=True):
    """One object of a unit. ``key`` is relative to the root of the sink named ``sink``."""

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
    """A start position that does not depend on when it is used. ``timestamp``: ISO 8601 with zone, for ``at_timestamp``."""

    kind: str
    timestamp: str | None = None


class StageRun(msgspec.Struct, frozen=True):
    """What one stage did for the unit: rows in, rows out, and the microseconds it took the worker that began the unit."""

    name: str
    rows_in: int
    rows_out: int
    micros: int


class Manifest(msgspec.Struct, frozen=True, omit_defaults=True):
    """One link of a shard's chain.

    ``after`` and ``last`` bound the range ``(after, last]``; genesis, rewind and end manifests have no ``last``. ``subsequence`` is the
    index of the last user record inside the Kinesis record ``last``. ``outcomes`` sums to ``records``. ``previous`` is the SHA-256
    of the bytes of the preceding sealed manifest, so that edits of the chain are detected. ``superseded`` lists files from an
    earlier version of this intent that the sealed manifest does not contain. ``targets`` maps each sink's name to its URL at
    that time. ``seal`` is set when the state becomes ``sealed``: the SHA-256 of the manifest's bytes without it, so that edits of the last
    link, to which no later link refers yet, are detected too. Times are ISO 8601, UTC.

    ``shard`` is the name of the chain: the shard id and, after a rewind, the generation. A rewind goes back to ``target``; its
    ``superseded`` are the files that it removes. ``foreign_subsequence``: of the Kinesis record that follows ``after`` (in a foreign
    link: ``last``), another application processed the user records up to this index; -1: none. ``note``: the operator's comment.
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
        """The position up to which the chain is decided by this link: the end of its range, or ``after`` if it has none."""
        return int(self.after if self.last is None else self.last)

    @property
    def span(self) -> SeqRange:
        """The range; raises ``ValueError`` for a genesis, rewind or end manifest, which has none."""
        if self.last is None:
            msg = f"a {self.kind} manifest of {self.stream}/{self.shard} has no range"
            raise ValueError(msg)
        return SeqRange(int(self.after), int(self.last))

    @property
    def sealed(self) -> bool:
        """Whether this manifest can never change again."""
        return self.state is State.SEALED

    def same_content(self, other: Manifest) -> bool:
        """Whether both commit the same range with the same outcomes and files, no matter by whom and when."""
        return (self.kind, self.last, self.files, self.outcomes) == (other.kind, other.last, other.files, other.outcomes)


def pinned(start: Start) -> Pinned:
    """``start`` in the form that manifests hold."""
    return Pinned(start.kind, start.timestamp.isoformat() if start.timestamp else None)


def unpinned(recorded: Pinned) -> Start:
    """The start position that ``pinned`` was given.

    Raises:
        ValueError: it is none.
    """
    return Start(StartKind(recorded.kind), datetime.fromisoformat(recorded.timestamp) if recorded.timestamp else None)


def encode_start(start: Start) -> bytes:
    """Canonical JSON of a start position."""
    return _ENCODER.encode(pinned(start))


def decode_start(body: bytes, key: str) -> Start:
    """The start position in ``body``; raises ``Halted``, naming ``key``, if there is none."""
    try:
        return unpinned(msgspec.json.decode(body, type=Pinned))
    except (msgspec.MsgspecError, ValueError) as error:
        msg = f"object {key} is not a readable start position: {error}. Restore its previous version; nothing is read until then."
        raise Halted(msg) from error


_ENCODER: Final = msgspec.json.Encoder(order="sorted")
_DECODER: Final = msgspec.json.Decoder(Manifest, strict=True)


def encode(manifest: Manifest) -> bytes:
    """Canonical JSON; equal manifests give equal bytes."""
    return _ENCODER.encode(manifest)


def decode(body: bytes, key: str) -> Manifest:
    """The manifest in ``body``; ``key`` is named in errors.

    Raises:
        Halted: the object is not a manifest of this format; to continue could write records twice.
    """
    try:
        manifest = _DECODER.decode(body)
    except msgspec.MsgspecError as error:
        if (stored_format := _format_of(body)) > FORMAT:
            raise _newer_format_error(key, stored_format) from error
        msg = (
            f"commit log object {key} is not a readable manifest: {error}. The shard is not read any further. "
            "Restore the object's previous version, or run `stream audit verify` to see what it covers."
        )
        raise Halted(msg) from error
    if manifest.format != FORMAT:
        raise _newer_format_error(key, manifest.format)
    return manifest


class _FormatOnly(msgspec.Struct):
    format: int = FORMAT


def _format_of(body: bytes) -> int:
    try:
        return msgspec.json.decode(body, type=_FormatOnly).format
    except msgspec.MsgspecError:
        return FORMAT


def _newer_format_error(key: str, number: int) -> Halted:
    return Halted(f"commit log object {key} has format {number}, but this build reads {FORMAT}; run the newer build")


def with_seal(manifest: Manifest) -> Manifest:
    """``manifest`` with its ``seal``, the checksum that every sealed manifest has."""
    return msgspec.structs.replace(manifest, seal=sha256_hex(encode(msgspec.structs.replace(manifest, seal=""))))


def is_canonical(body: bytes) -> bool:
    """Whether ``body`` is canonical JSON, as every build writes it; fields that this build does not know are allowed."""
    return msgspec.json.encode(msgspec.json.decode(body), order="sorted") == body


def seal_of(body: bytes) -> str:
    """The correct seal for the manifest ``body``, whichever build wrote it."""
    fields = msgspec.json.decode(body)
    return sha256_hex(msgspec.json.encode({name: value for name, value in fields.items() if name != "seal"}, order="sorted"))


def digest(body: bytes) -> str:
    """How the next link refers to a sealed manifest: the SHA-256 of its bytes."""
    return sha256_hex(body)
