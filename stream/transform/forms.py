"""Forms of times in text, such as ``%Y-%m-%d``, in the language of chrono's strftime: what of it would be misread."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

_DIRECTIVE: Final = re.compile(r"%[-_0.:#]*[0-9]*.", re.DOTALL)
_CALL: Final = re.compile(r"\bstrptime\s*\([^']*?,\s*'((?:[^']|'')*)'", re.IGNORECASE)

OFFSETS: Final = frozenset({"%z", "%:z", "%#z"})
"""Directives of an offset from UTC."""
ABSOLUTE: Final = frozenset({"%s", "%+"})
"""Directives that say by themselves which moment is meant."""

_MISREAD: Final = {
    "%Z": (
        "%Z passes over any word, so that a time of every zone would be taken for one of UTC, or of `timezone`",
        "use %z for offsets such as +0200, or one zone for all texts",
    ),
    "%f": (
        "%f counts billionths of a second whatever its digits, so that .5 would be read as .000000005",
        "use %.f, with no point before it",
    ),
}


def directives(form: str) -> set[str]:
    """The directives of ``form``."""
    return {match.group() for match in _DIRECTIVE.finditer(form)}


def misread(form: str) -> tuple[str, str] | None:
    """What in ``form`` would give other times than are written, and what to do about it; None if nothing does."""
    found = directives(form)
    return next((said for directive, said in _MISREAD.items() if directive in found), None)


def misread_calls(text: str) -> Iterator[tuple[str, str]]:
    """The same for what an SQL text gives to ``strptime``."""
    for match in _CALL.finditer(text):
        if said := misread(match[1]):
            yield f"character {match.start() + 1}: {said[0]}", said[1]
