"""The keys of all objects in the commit log. They are derived from positions and contents, never from random numbers or the time."""

from __future__ import annotations

import hashlib
from typing import Final

from stream.batch import ORIGIN, SeqRange

SEQUENCE_DIGITS: Final = 60
"""Zero-padding that makes keys sort like numbers. Kinesis sequence numbers have 56 digits and stay below 2**186 (57 digits)."""

BESIDE_THE_LOG: Final = frozenset({"ledger", "rejects"})
"""Targets whose files are in the state, beside the log, so that they move when the log moves."""


def unit_name(shard_id: str, span: SeqRange, stream: str = "") -> str:
    """Stem of the names of one unit's files: ``<shard>-<after>-<last>``, after ``<stream>.`` if several streams share a place."""
    return f"{stream}.{shard_id}-{span.after}-{span.last}" if stream else f"{shard_id}-{span.after}-{span.last}"


def shard_prefix(stream: str, shard_id: str) -> str:
    """Folder of one shard's chain."""
    return f"commits/{stream}/{shard_id}/"


def manifest_key(stream: str, shard_id: str, after: int) -> str:
    """The only key under which a unit that starts after ``after`` can be committed. Raises ``ValueError`` for an impossible ``after``."""
    if not ORIGIN <= after < 10**SEQUENCE_DIGITS:
        msg = f"sequence number {after} of {stream}/{shard_id} is outside 0..10^{SEQUENCE_DIGITS}, so it is not a Kinesis position"
        raise ValueError(msg)
    return f"{shard_prefix(stream, shard_id)}{after:0{SEQUENCE_DIGITS}d}.json"


def genesis_key(stream: str, shard_id: str) -> str:
    """Key of the manifest that pins the start of the shard's chain."""
    return f"{shard_prefix(stream, shard_id)}genesis.json"


def start_key(stream: str) -> str:
    """Key of the object that pins the stream's start position."""
    return f"starts/{stream}.json"


def pipeline_key(digest: str) -> str:
    """Key of a pipeline definition as it was when units were committed with it."""
    return f"pipelines/{digest}.yaml"


def tables_key(digest: str) -> str:
    """Key of the list of reference tables, by digest, that a recorded definition was run with."""
    return f"pipelines/{digest}.tables.json"


def reference_key(sha256: str) -> str:
    """Key of a reference table as it was when units were committed with it."""
    return f"reference/{sha256}"


def sha256_hex(body: bytes) -> str:
    """SHA-256 as 64 lower-case hex digits."""
    return hashlib.sha256(body).hexdigest()
