r"""Recognizes regular expressions whose groups are fields between fixed texts, such as ``^(?P<host>\S+) (?P<took>[0-9]+) ms$``.

In a text that matches such an expression, each field ends where the first character of the next fixed text first occurs, because the field
itself cannot contain that character. So once the regex engine has said that a text matches, the groups can be found without it, which is
much faster. The engine also decides what a part of an expression can match. Expressions that are not clearly of this form are left to it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

import polars as pl
from polars.exceptions import PolarsError

_TOKEN: Final = re.compile(
    r"""(?P<atom>\\[pP]\{[^}]*\}|\\[a-su-zA-Z]|\[\^?\]?(?:\\.|[^\[\]\\])*\]|\.)
    |\\(?P<escaped>.)
    |(?P<times>(?:[*+?]|\{[0-9]+(?:,[0-9]*)?\})\??)
    |\(\?P?<(?P<name>\w+)>|(?P<open>\(\?:)|(?P<close>\))|(?P<either>\|)
    |(?P<mark>[\^$(\[{])|(?P<other>.)""",
    re.DOTALL | re.VERBOSE,
)
_ESCAPES: Final = {"t": "\t"}
_MAX_FIELDS: Final = 64
"""The most fields that the kernel accepts."""
TO_THE_END: Final = -1


@dataclass(frozen=True, slots=True)
class Fields:
    """Bytes before the first field, and for each field: the separator's first character, the separator's length, and the group or None."""

    skip: int
    fields: tuple[tuple[int, int, str | None], ...]


@dataclass(slots=True)
class _Part:
    """A fixed text, or a field made of ``atoms``, the parts of the expression that match single characters."""

    name: str | None = None
    text: str = ""
    atoms: list[str] = field(default_factory=list)


def plain_fields(pattern: str) -> Fields | None:
    """Where the groups of the valid ``pattern`` lie in a matching text; None if the pattern is not of the form described above."""
    parts = _parts(pattern)
    if not parts:
        return None
    skip = len(parts.pop(0).text) if parts[0].text else 0
    found: list[tuple[int, int, str | None]] = []
    for part, following in zip(parts[::2], [*parts[1::2], _Part()], strict=False):
        if part.text or (following.text and _may_hold(part, following.text[0])):
            return None
        found.append((ord(following.text[0]) if following.text else TO_THE_END, len(following.text), part.name))
    return Fields(skip, tuple(found)) if len(found) <= _MAX_FIELDS else None


def _parts(pattern: str) -> list[_Part] | None:
    """Alternating fixed texts and fields of an expression that spans the whole text; None if it has anything else."""
    tokens = list(_TOKEN.finditer(pattern))
    if tokens[0].group() != "^" or tokens[-1].group() != "$":
        return None
    parts, depth = [_Part(text="^")], 0
    for token, following in pairwise(tokens[1:]):
        character = _ESCAPES.get(token["escaped"], token["escaped"]) or token["other"]
        if token["mark"] or (token["either"] and not depth):
            return None
        good = _add_text(parts, character) if character and not depth and not following["times"] else _add_to_field(parts, token, depth)
        depth += bool(token["open"] or token["name"]) - bool(token["close"])
        if not good or (not depth and parts[-1].name and following["times"]):
            return None
    parts[0].text = parts[0].text[1:]
    return parts if parts[0].text else parts[1:]


def _add_text(parts: list[_Part], character: str) -> bool:
    if parts[-1].text:
        parts[-1].text += character
    else:
        parts.append(_Part(text=character))
    return character.isascii()


def _add_to_field(parts: list[_Part], token: re.Match[str], depth: int) -> bool:
    last = parts[-1]
    # Two fields need a text between them, and a named field must not contain another.
    if (token["name"] and not last.text) or (last.name and not depth and not token["times"]):
        return False
    if last.text:
        parts.append(_Part(token["name"]))
    if token["atom"] or token["escaped"] or token["other"]:
        parts[-1].atoms.append(token.group())
    return True


def _may_hold(part: _Part, character: str) -> bool:
    """Whether a text that ``part`` matches may contain ``character``."""
    try:
        return any(pl.Series([character]).str.contains(f"^(?:{atom})$")[0] for atom in part.atoms)
    except PolarsError:
        return True
