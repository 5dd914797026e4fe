"""A check, as data: what it is about, how it is run, and what to do if it fails."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from stream.errors import StreamError

GRANT_REMEDY: Final = "compare the role with `stream iam`, which prints what must be allowed, and with --diff what is missing"


class Note(StreamError):
    """A finding that does not prevent a worker from starting, but is worth knowing."""


@dataclass(frozen=True, slots=True)
class Probe:
    """One check. ``attempt`` returns its result as text; raises ``Note``, or another ``StreamError`` if a worker could not start."""

    check: str
    what: str
    attempt: Callable[[], Awaitable[str]]
    remedy: str = GRANT_REMEDY
