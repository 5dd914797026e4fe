"""The nesting depth of JSON, checked before anything parses it."""

from __future__ import annotations

import re
from typing import Final

import numpy as np
import polars as pl
import pyarrow as pa

MAX_DEPTH: Final = 128
"""Brackets that may be open at once; far below Python's recursion limit, so that the result does not depend on the caller's stack."""

_TOKEN: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|([\[{])|([\]}])', re.DOTALL)
_BRACE: Final = np.uint8(ord("{"))
_BRACKET_BIT: Final = np.uint8(ord("{") ^ ord("["))
_PIECE: Final = 64 * 1024
"""Bytes that are searched at a time; they and their mask stay in the processor's cache."""


def any_deep(texts: pa.LargeStringArray, joined: pa.Buffer) -> bool:
    """Whether one of ``texts``, which ``joined`` holds as lines, is too deep."""
    # A flat object has two opening brackets per line; only more than that can be nesting, and only then are texts looked at one by one.
    if _opening_brackets(joined) - 2 * len(texts) < MAX_DEPTH:
        return False
    series = pl.Series(texts)
    if pl.select(series.str.len_bytes().max()).item() <= MAX_DEPTH:
        return False
    brackets = series.str.count_matches(r"[\[{]")
    return any(too_deep(texts[index].as_py().encode()) for index in (brackets > MAX_DEPTH).arg_true())


def _opening_brackets(text: pa.Buffer) -> int:
    """The number of ``[`` and ``{``, counted in pieces with one small array: arrays as large as ``text`` cost more than the counting."""
    codes = np.frombuffer(text, np.uint8)
    scratch = np.empty(min(_PIECE, len(codes)), np.uint8)
    found = 0
    for start in range(0, len(codes), _PIECE):
        piece = codes[start : start + _PIECE]
        marks = scratch[: len(piece)]
        # [ and { differ in one bit, so one comparison finds both.
        np.bitwise_or(piece, _BRACKET_BIT, out=marks)
        found += int(np.count_nonzero(np.equal(marks, _BRACE, out=marks.view(np.bool_))))
    return found


def too_deep(record: bytes) -> bool:
    """Whether more than ``MAX_DEPTH`` brackets are open at once; strings are skipped, and the rest need not be valid JSON."""
    if record.count(b"{") + record.count(b"[") <= MAX_DEPTH:
        return False
    depth = 0
    for match in _TOKEN.finditer(record):
        if match.lastindex == 1:
            depth += 1
            if depth > MAX_DEPTH:
                return True
        elif match.lastindex == 2:
            depth -= 1
    return False
