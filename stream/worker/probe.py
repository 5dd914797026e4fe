"""What one look is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from stream.errors import StreamError

LET: Final = "compare the role with `stream iam`; it prints what must be allowed, and --diff what is missing"


class Noted(StreamError):
    """What was seen keeps no worker from starting, and somebody should know of it."""


@dataclass(frozen=True, slots=True)
class Probe:
    """``look`` says what it saw; it raises ``Noted``, or another ``StreamError`` where a worker could not start."""

    check: str
    what: str
    look: Callable[[], Awaitable[str]]
    remedy: str = LET
