"""A check, as data: what it is about, how it is run, and what to do if it fails."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from stream.aws.errors import AwsFatal, Call, Kind, classify
from stream.errors import StreamError

GRANT_REMEDY: Final = "compare the role with `stream iam`, which prints what must be allowed, and with --diff what is missing"


class Note(StreamError):
    """A finding that does not prevent a worker from starting, but is worth knowing. ``remedy``: in place of that of the check."""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy


def unseen_remedy(call: Call, error: StreamError) -> str:
    """What to do about a setting that could not be looked at by ``call``, for which workers need no permission."""
    if isinstance(error, AwsFatal) and classify(error.code) is not Kind.DENIED and error.remedy:
        return error.remedy
    return f"look at it yourself, or allow {call.action} to whoever runs `stream doctor`"


@dataclass(frozen=True, slots=True)
class Probe:
    """One check. ``attempt`` returns its result as text; raises ``Note``, or another ``StreamError`` if a worker could not start."""

    check: str
    what: str
    attempt: Callable[[], Awaitable[str]]
    remedy: str = GRANT_REMEDY
