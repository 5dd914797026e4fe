"""Time formats such as ``%Y-%m-%d`` (chrono's strftime), and which of their directives would read a wrong time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

_DIRECTIVE: Final = re.compile(r"%[-_0.:#]*[0-9]*.", re.DOTALL)
_CALL: Final = re.compile(r"\bstrptime\s*\([^']*?,\s*'((?:[^']|'')*)'", re.IGNORECASE)

OFFSETS: Final = frozenset({"%z", "%:z", "%#z"})
"""Directives of an offset from UTC."""
ABSOLUTE: Final = frozenset({"%s", "%+"})
"""Directives that name a moment regardless of the zone."""

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


def directives(form: str) -> set[str]:
    """The directives of ``form``."""
    return {match.group() for match in _DIRECTIVE.finditer(form)}


def misread(form: str) -> tuple[str, str] | None:
    """Which part of ``form`` would read a wrong time, and what to do about it; None if there is none."""
    found = directives(form)
    return next((said for directive, said in _MISREAD.items() if directive in found), None)


def misread_formats_in_sql(text: str) -> Iterator[tuple[str, str]]:
    """The same for the formats that an SQL text passes to ``strptime``."""
    for match in _CALL.finditer(text):
        if said := misread(match[1]):
            yield f"character {match.start() + 1}: {said[0]}", said[1]
