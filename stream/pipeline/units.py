"""Durations and sizes as people write them: ``60s``, ``1h30m``, ``500ms``; ``64MiB``, ``10MB``, ``4096``."""

from __future__ import annotations

import re
from datetime import timedelta
from decimal import Decimal
from typing import Final

_DURATION_UNITS: Final = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
"""Milliseconds per unit, largest first: the order in which a duration names them."""

_WORDS: Final = {
    "day": "d", "hour": "h", "hr": "h", "minute": "m", "min": "m", "second": "s", "sec": "s", "millisecond": "ms", "msec": "ms",
    "milli": "ms",
}  # fmt: skip
"""Words that people write instead of a unit, without the s of the plural."""

_SIZE_UNITS: Final = {
    "B": 1,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}

_DURATION_PART: Final = re.compile(r"([0-9]{1,12})([A-Za-zµ]*)")
_SIZE: Final = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,9})?) ?([A-Za-z]*)")
_LONGEST: Final = timedelta(days=3660)
_LARGEST: Final = 2**63 - 1


def parse_duration(text: str) -> timedelta:
    """The length of time that ``text`` names, to the millisecond.

    Units are ``d``, ``h``, ``m``, ``s`` and ``ms``, each at most once, larger ones first, no blanks.

    Raises:
        ValueError: no unit, an unknown unit, units out of order, or more than ten years.
    """
    rest, total, allowed = text, 0, list(_DURATION_UNITS)
    if not text:
        msg = "the duration is empty; write one such as 60s, 5m, 1h30m or 500ms"
        raise ValueError(msg)
    while rest:
        part = _DURATION_PART.match(rest)
        if part is None:
            msg = f"{text!r} is not a duration; write one such as 60s, 5m, 1h30m or 500ms"
            raise ValueError(msg)
        number, unit = part.groups()
        if unit not in allowed:
            raise ValueError(_bad_duration_unit(text, number, unit, rest[len(number) :]))
        total += int(number) * _DURATION_UNITS[unit]
        allowed = allowed[allowed.index(unit) + 1 :]
        rest = rest[part.end() :]
    if total > _LONGEST // timedelta(milliseconds=1):
        msg = f"{text!r} is longer than ten years"
        raise ValueError(msg)
    return timedelta(milliseconds=total)


def _bad_duration_unit(text: str, number: str, unit: str, behind: str) -> str:
    """The message; ``behind`` is what follows ``number``, and begins with ``unit`` if there is one."""
    if behind.startswith("."):
        return f"{text!r} is not made of whole numbers; write a smaller unit, as in 1h30m or 1500ms"
    word = behind.strip().lower()
    meant = word if word in _DURATION_UNITS else _WORDS.get(word.removesuffix("s"))
    if meant and unit not in _DURATION_UNITS:
        problem = f"has the unknown unit {unit!r}" if unit else f"has no unit right after {number}"
        return f"{text!r} {problem}; write {number}{meant} (units: d, h, m, s, ms)"
    if not unit:
        return f"{text!r} has no unit after {number}; write {number}s for seconds (units: d, h, m, s, ms)"
    if unit in _DURATION_UNITS:
        return f"{text!r} names {unit!r} twice or after a smaller unit; write larger units first, as in 1h30m"
    return f"{text!r} has the unknown unit {unit!r}; units are d, h, m, s, ms"


def format_duration(value: timedelta) -> str:
    """The shortest text that ``parse_duration`` turns back into ``value`` (zero is ``0s``)."""
    rest = value // timedelta(milliseconds=1)
    parts = []
    for unit, size in _DURATION_UNITS.items():
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def parse_size(text: str) -> int:
    """The number of bytes that ``text`` names; ``MiB`` counts in powers of 1024, ``MB`` in powers of 1000.

    Raises:
        ValueError: an unknown unit, a fraction of a byte, or more than 2**63 - 1 bytes.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        msg = f"{text!r} is not a size; write one such as 64MiB, 10MB or 4096"
        raise ValueError(msg)
    number, unit = match.groups()
    if unit and unit not in _SIZE_UNITS:
        raise ValueError(_bad_size_unit(text, number, unit))
    size = Decimal(number) * _SIZE_UNITS[unit or "B"]
    if size != size.to_integral_value():
        msg = f"{text!r} is not a whole number of bytes"
        raise ValueError(msg)
    if size > _LARGEST:
        msg = f"{text!r} is more than {_LARGEST} bytes"
        raise ValueError(msg)
    return int(size)


def _bad_size_unit(text: str, number: str, unit: str) -> str:
    letter = unit[0].upper()
    if letter in "KMGT" and unit.lower() in {letter.lower(), f"{letter.lower()}b", f"{letter.lower()}ib"}:
        return f"{text!r} has the unknown unit {unit!r}; write {number}{letter}iB (powers of 1024) or {number}{letter}B (of 1000)"
    return f"{text!r} has the unknown unit {unit!r}; units are B, KB, MB, GB, TB, KiB, MiB, GiB, TiB"
