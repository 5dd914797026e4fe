"""Time formats such as ``%Y-%m-%d`` (chrono's strftime): their directives, and those that would silently read a wrong time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

_DIRECTIVE: Final = re.compile(r"%[-_0.:#]*[0-9]*.", re.DOTALL)
_CALL: Final = re.compile(r"\bstrptime\s*\([^']*?,\s*'((?:[^']|'')*)'", re.IGNORECASE)

OFFSETS: Final = frozenset({"%z", "%:z", "%#z"})
"""Directives that read an offset from UTC."""
ABSOLUTE: Final = frozenset({"%s", "%+"})
"""Directives that read a point in time, for which no zone is needed."""

_MISREAD: Final = {
    "%Z": (
        "%Z skips the name of a zone without reading it, so times of any zone would be taken for UTC, or for `timezone`",
        "use %z for offsets such as +0200, or one zone for all texts",
    ),
    "%f": (
        "%f reads nanoseconds, so .5 would become 0.000000005 seconds",
        "use %.f, with no point before it",
    ),
}


def directives(time_format: str) -> set[str]:
    """The directives of ``time_format``."""
    return {match.group() for match in _DIRECTIVE.finditer(time_format)}


def misread(time_format: str) -> tuple[str, str] | None:
    """The problem with a directive of ``time_format`` that would read a wrong time, and what to do; None if there is none."""
    found = directives(time_format)
    return next((said for directive, said in _MISREAD.items() if directive in found), None)


def misread_formats_in_sql(text: str) -> Iterator[tuple[str, str]]:
    """``misread`` for the formats that the SQL in ``text`` passes to ``strptime``, as (problem with its place, remedy)."""
    for match in _CALL.finditer(text):
        if said := misread(match[1]):
            yield f"character {match.start() + 1}: {said[0]}", said[1]
