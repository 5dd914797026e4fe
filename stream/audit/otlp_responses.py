"""Interprets collectors' responses to OTLP requests."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Final

from stream.audit.wire import read_varint

RETRYABLE: Final = frozenset({429, 502, 503, 504})
"""https://opentelemetry.io/docs/specs/otlp/#failures-1: only these responses and lost connections are retried."""

TOO_LARGE: Final = 413

UNREADABLE: Final = frozenset({400, 415})
"""Responses that may mean that the collector cannot read the body, such as one that is compressed with zstd."""

VERDICTS: Final = frozenset({400, TOO_LARGE, 422})
"""Responses that concern this request only: others may be accepted. Any other refusal (no such path, no permission, a broken collector)
would also apply to all later requests, so the export halts and gives up nothing."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A collector's response. ``status`` 0 means that there was none; ``detail`` says why."""

    status: int
    body: bytes = b""
    retry_after: str = ""
    detail: str = ""


_PAGE: Final = re.compile(rb"\s*<[!?A-Za-z]")


def is_page(body: bytes) -> bool:
    """Whether that is HTML or XML. No response of OTLP is: a partial success may begin with a line feed and `<`, but no letter follows."""
    return _PAGE.match(body) is not None


def rejected_items(body: bytes) -> tuple[int, str]:
    """The ``partial_success`` of a collector's response: how many items it rejected, and why; (0, "") if there is none.

    A response that is not protobuf has none: its status says that the request was accepted.
    """
    try:
        for number, value in _fields(body):
            if number == 1 and isinstance(value, bytes):
                inner = dict(_fields(value))
                count, why = inner.get(1, 0), inner.get(2, b"")
                return (count if isinstance(count, int) else 0), (why.decode(errors="replace") if isinstance(why, bytes) else "")
    except IndexError:
        return 0, ""
    return 0, ""


def _fields(body: bytes) -> list[tuple[int, int | bytes]]:
    found: list[tuple[int, int | bytes]] = []
    offset = 0
    while offset < len(body):
        key, offset = read_varint(body, offset)
        value, offset = read_varint(body, offset)
        if key & 7 == 0:
            found.append((key >> 3, value))
        elif key & 7 == 2 and offset + value <= len(body):
            found.append((key >> 3, body[offset : offset + value]))
            offset += value
        else:
            raise IndexError(offset)
    return found


def requested_pause(retry_after: str, now: datetime) -> float | None:
    """The seconds that a ``Retry-After`` header asks for, as a number or as a date; None if it is malformed."""
    if retry_after.strip().isascii() and retry_after.strip().isdigit():
        return float(retry_after)
    try:
        return max(0.0, (parsedate_to_datetime(retry_after) - now).total_seconds())
    except (TypeError, ValueError):
        return None
