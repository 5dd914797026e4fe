"""Replaces JSON numbers that are too large for a double."""

from __future__ import annotations

import math
import re
from typing import Final

_STRING_OR_POWER: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|-?[0-9]+(?:\.[0-9]+)?[eE]\+?[0-9]+')


def within_doubles(record: bytes) -> bytes:
    """``record``, a JSON text, with 0 in place of every number that is too large for a double.

    Arrow refuses a document with such a number, even where it skips the value. In a column of numbers, msgspec has refused it before. So
    any that remain are part of a ``json`` column, whose text is taken from the record itself, or belong to no column.
    """
    return _STRING_OR_POWER.sub(lambda found: b"0" if found[0][:1] != b'"' and math.isinf(float(found[0])) else found[0], record)
