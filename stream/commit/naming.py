"""The key of every object of the commit log. Keys are derived from positions and contents; nothing is random, nothing is dated."""

from __future__ import annotations

import hashlib
from typing import Final

from stream.batch import ORIGIN, SeqRange

SEQUENCE_DIGITS: Final = 60
"""Zero-padding that makes keys sort like numbers. Kinesis sequence numbers have 56 digits and stay below 2**186 (57 digits)."""


BESIDE_THE_LOG: Final = frozenset({"ledger", "rejects"})
"""Targets whose files lie in the state, where the log is: whoever moves the one moves the others."""


def unit_name(shard_id: str, span: SeqRange, stream: str = "") -> str:
    """Stem of every file name of one unit: ``<shard>-<after>-<last>``, prefixed with ``<stream>.`` if several streams share a place."""
    return f"{stream}.{shard_id}-{span.after}-{span.last}" if stream else f"{shard_id}-{span.after}-{span.last}"


def shard_prefix(stream: str, shard_id: str) -> str:
    """Folder of one shard's chain."""
    return f"commits/{stream}/{shard_id}/"


def manifest_key(stream: str, shard_id: str, after: int) -> str:
    """The only key under which a unit that starts after ``after`` can be committed."""
    if not ORIGIN <= after < 10**SEQUENCE_DIGITS:
        msg = f"sequence number {after} of {stream}/{shard_id} is outside 0..10^{SEQUENCE_DIGITS}, so it is not a Kinesis position"
        raise ValueError(msg)
    return f"{shard_prefix(stream, shard_id)}{after:0{SEQUENCE_DIGITS}d}.json"


def genesis_key(stream: str, shard_id: str) -> str:
    """The manifest that pins where the shard's chain starts."""
    return f"{shard_prefix(stream, shard_id)}genesis.json"


def start_key(stream: str) -> str:
    """Where the stream's start position is pinned."""
    return f"starts/{stream}.json"


def pipeline_key(digest: str) -> str:
    """A pipeline definition as it was when units were committed with it."""
    return f"pipelines/{digest}.yaml"


def tables_key(digest: str) -> str:
    """The digests of the reference tables that a recorded definition was run with."""
    return f"pipelines/{digest}.tables.json"


def reference_key(sha256: str) -> str:
    """A reference table as it was when units were committed with it."""
    return f"reference/{sha256}"


def sha256_hex(body: bytes) -> str:
    """SHA-256 as 64 lower-case hex digits."""
    return hashlib.sha256(body).hexdigest()
