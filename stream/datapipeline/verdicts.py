"""What can become of a field of a definition: taken over, not needed, or left to do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Fate(StrEnum):
    """What became of a field, in ascending severity."""

    NOT_NEEDED = "not needed"
    TAKEN_OVER = "taken over"
    TO_DO = "to do"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a field. ``text``: where it went, why it is not needed, or what to do."""

    fate: Fate
    text: str


def not_needed(text: str) -> Verdict:
    """The verdict that a field is not needed, because of ``text``."""
    return Verdict(Fate.NOT_NEEDED, text)


def to_do(text: str) -> Verdict:
    """The verdict that something is left to do, which ``text`` describes."""
    return Verdict(Fate.TO_DO, text)
