"""What can become of a field."""

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
    """``text``: where a field went, why it is not needed, or what to do instead."""

    fate: Fate
    text: str


def not_needed(text: str) -> Verdict:
    """A field that is not needed here."""
    return Verdict(Fate.NOT_NEEDED, text)


def to_do(text: str) -> Verdict:
    """A field that is left to the user."""
    return Verdict(Fate.TO_DO, text)
