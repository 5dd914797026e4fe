"""Numbers of JSON that are larger than any double."""

from __future__ import annotations

import math
import re
from typing import Final

_STRING_OR_POWER: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|-?[0-9]+(?:\.[0-9]+)?[eE]\+?[0-9]+')


def within_doubles(record: bytes) -> bytes:
    """``record``, a JSON text, with 0 in place of every number that is larger than any double, and otherwise as it is.

    Arrow refuses a document with such a number, even where it is to pass over it. Where a column wants a number, msgspec has refused
    it before, so whatever remains is text of a ``json`` column, which is taken from the record itself, or belongs to no column.
    """
    return _STRING_OR_POWER.sub(lambda found: b"0" if found[0][:1] != b'"' and math.isinf(float(found[0])) else found[0], record)
