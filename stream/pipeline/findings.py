"""The findings of a check: each is one sentence about one place in a pipeline file."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

Path: TypeAlias = tuple[str | int, ...]
"""Keys and list indexes from the top of a pipeline file down to one of its values."""


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A character in a file, both numbers beginning at 1."""

    line: int
    column: int


START = Position(1, 1)


class Severity(StrEnum):
    """Whether a finding prevents the pipeline from running."""

    ERROR = "error"
    NOTE = "note"


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One finding about one place in the file. ``line`` and ``column`` begin at 1; ``code`` never changes its meaning."""

    file: str
    line: int
    column: int
    code: str
    message: str
    hint: str = ""
    severity: Severity = Severity.ERROR

    def render(self) -> str:
        """The finding on one line, in the form that editors make clickable: ``file:line:column code message - hint``."""
        text = f"{self.file}:{self.line}:{self.column} {self.code} {self.message}"
        if self.hint:
            text += f" - {self.hint}"
        return " ".join(text.split("\n"))


@dataclass(frozen=True, slots=True)
class Problem:
    """A finding about the definition, before its place in a file is known: ``path`` leads there."""

    path: Path
    code: str
    message: str
    hint: str
    severity: Severity = Severity.ERROR


def near_miss(word: str, known: Iterable[str]) -> str:
    """A hint that names the known word closest to ``word``, or all of them if none is close and they are few."""
    words = sorted(set(known))
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.6) or [each for each in words if each.lower() == word.lower()]
    if close:
        return f"did you mean `{close[0]}`?"
    if not words:
        return ""
    shown = ", ".join(words[:20]) + (", ..." if len(words) > 20 else "")
    return f"known: {shown}"
