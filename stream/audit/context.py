"""Extracts the trace context that producers put into their records, for a whole batch at once.

Kinesis records have no headers, so it is searched for in their payloads. It is untrusted input: it is stored as data, and never decides
what is recorded.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import numpy as np
import polars as pl

from stream.audit.buffers import null_texts
from stream.native import KERNEL, views

DEFAULT_PATHS: Final = ("$.traceparent", "$._otel.traceparent", "$.metadata.traceparent", "$._datadog.traceparent")
"""Where producers put it: beside the data (as CloudEvents does), in an envelope, or where Datadog puts it."""

PATH: Final = re.compile(r"\$(\.[A-Za-z_][A-Za-z0-9_-]*){1,8}")
"""Allowed paths: names separated by dots."""

_TRACEPARENT: Final = r"^(?:[0-9a-e][0-9a-f]|f[0-9a-e])-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(?:-.*)?$"
"""W3C Trace Context level 1: version (not ff), trace id, parent id, flags; later versions may append fields."""

COLUMNS: Final = pl.Schema({"trace_id": pl.String(), "parent_id": pl.String()})


NAME: Final = "traceparent"
"""The W3C's name of the field. Sources that know that it occurs in no payload say so in ``Batch.traced``."""


def extract(payloads: pl.Series, paths: Sequence[str], *, traced: bool = True) -> pl.DataFrame:
    """The trace id and parent id (lower-case hex) of each of ``payloads`` (Binary); null if there is none or it is malformed.

    The first of ``paths`` with a well-formed value wins. Only payloads that contain the last name of a path are parsed. If ``traced`` is
    False, none contains ``NAME``.
    """
    names = {path.rpartition(".")[2] for path in paths} - (set() if traced else {NAME})
    candidates = _containing(payloads, sorted(names)) if names else None
    if candidates is None or candidates.is_empty():
        return pl.DataFrame([null_texts(name, payloads.len()) for name in COLUMNS])
    text = _text(payloads.gather(candidates))
    found = pl.DataFrame({name: pl.repeat(None, candidates.len(), dtype=kind, eager=True) for name, kind in COLUMNS.items()})
    for path in paths:
        left = found["trace_id"].is_null().arg_true()
        if left.is_empty():
            break
        parsed = _well_formed(text.gather(left).str.json_path_match(path))
        found = found.with_columns(found[name].scatter(left, parsed[name]) for name in COLUMNS)
    if candidates.len() == payloads.len():
        return found
    rows = pl.int_range(payloads.len(), dtype=pl.UInt32, eager=True).to_frame("row")
    return rows.join(found.with_columns(row=candidates.cast(pl.UInt32)), on="row", how="left", maintain_order="left").select(*COLUMNS)


def _containing(payloads: pl.Series, names: list[str]) -> pl.Series:
    """The indices, ascending, of payloads that contain one of ``names`` in quotes."""
    hits = np.zeros(payloads.len(), np.bool_)
    for word in (f'"{name}"'.encode() for name in names):
        if KERNEL is not None and not payloads.null_count():
            hits[np.frombuffer(KERNEL.find(*views(payloads), word, True), np.uint32)] = True
        else:
            hits |= payloads.bin.contains(word).fill_null(value=False).to_numpy()
    return pl.Series(np.flatnonzero(hits).astype(np.uint32))


def _well_formed(texts: pl.Series) -> pl.DataFrame:
    """The two ids of each text; null for texts that are not a ``traceparent``."""
    found = texts.to_frame("parent").select(
        pl.col("parent").str.extract(_TRACEPARENT, 1).alias("trace_id"),
        pl.col("parent").str.extract(_TRACEPARENT, 2).alias("parent_id"),
    )
    valid = (pl.col("trace_id") != "0" * 32) & (pl.col("parent_id") != "0" * 16)
    return found.select(pl.when(valid).then(pl.col(name)).alias(name) for name in COLUMNS)


def _text(payloads: pl.Series) -> pl.Series:
    """Payloads as text, null for those that are not UTF-8. One such payload fails the cast of all; then each is decoded by itself."""
    try:
        return payloads.cast(pl.String)
    except pl.exceptions.PolarsError:
        return pl.Series([_decoded(payload) for payload in payloads], dtype=pl.String)


def _decoded(payload: bytes | None) -> str | None:
    try:
        return None if payload is None else payload.decode()
    except UnicodeDecodeError:
        return None
