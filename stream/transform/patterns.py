"""Checks the regular expressions of a definition. They are Rust's, which match in linear time, so that no record can hold up a shard."""

from __future__ import annotations

import re
from typing import Final

import polars as pl
from polars.exceptions import PolarsError

from stream.recorded import is_recorded
from stream.transform.stage import SchemaMismatch

MAX_PATTERN: Final = 4096
MAX_REPEATED: Final = 2000
"""Characters and classes that nested counted repetitions may expand to. In the worst case, matching takes time proportional to this
number for each character of text: 3.4 seconds for a megabyte with 800, 35 with 8,000 (`[01]*1[01]{800}x`)."""

_PART: Final = re.compile(
    r"""(?P<atom>\\[pPxuU]\{[^}]*\}|\\.|\[\^?\]?(?:\[:\^?\w+:\]|\\.|[^\]\\])*\])
    |\{(?P<least>[0-9]+)(?P<range>,)?(?P<most>[0-9]*)\}
    |(?P<open>\((?:\?(?:P?<\w+>|[a-zA-Z-]*:)?)?)|(?P<close>\))|(?P<mark>[*+?|^$])|(?P<other>.)""",
    re.DOTALL | re.VERBOSE,
)


def check_pattern(pattern: str, path: tuple[str | int, ...]) -> None:
    """Make sure that ``pattern`` can be matched.

    Raises:
        SchemaMismatch: a syntax error, look-around or a back-reference, or longer than 4,096 characters.
    """
    if len(pattern) > MAX_PATTERN and not is_recorded():
        raise SchemaMismatch(
            path, f"the pattern has {len(pattern)} characters; at most {MAX_PATTERN} are allowed", "split it into several patterns"
        )
    repeated = repetitions(pattern)
    if repeated > MAX_REPEATED and not is_recorded():
        message = f"the counted repetitions of {pattern!r} expand to {repeated} characters; at most {MAX_REPEATED} are allowed"
        raise SchemaMismatch(
            path, message, "write * or + in place of a large {n}, and check the length separately, for example with max_length"
        )
    try:
        pl.Series([""]).str.contains(pattern)
    except PolarsError as error:
        lines = str(error).split("\n\n")[0].splitlines()
        said = next((line.removeprefix("error: ") for line in lines if line.startswith("error: ")), lines[0].removeprefix("regex error: "))
        message = f"{pattern!r} is not a regular expression: {said}"
        raise SchemaMismatch(path, message, "the syntax is that of Rust's regex: no look-around, no back-references") from error


def repetitions(pattern: str) -> int:
    """Characters and classes that the counted repetitions of ``pattern`` expand to: 6 for ``a{2}(?:bc){2}``, 0 for ``ab*``."""
    # One entry per open group: its size, the size of its last part, and how much of both is due to counted repetitions.
    groups = [_Size()]
    for match in _PART.finditer(pattern):
        top = groups[-1]
        if match["open"]:
            groups.append(_Size())
        elif match["close"] and len(groups) > 1:
            groups.pop()
            groups[-1].add(top.whole, top.counted)
        elif match["least"]:
            top.repeat(int(match["most"] or match["least"]))
        elif match["atom"] or match["other"] or match["close"]:
            top.add(1, 0)
    return sum(group.counted for group in groups)


class _Size:
    """Characters and classes of a group so far, and of its last part, with repetitions expanded."""

    def __init__(self) -> None:
        self.whole = self.counted = self._last = self._last_counted = 0

    def add(self, size: int, counted: int) -> None:
        self.whole, self.counted, self._last, self._last_counted = self.whole + size, self.counted + counted, size, counted

    def repeat(self, times: int) -> None:
        size = self._last * times
        self.whole += size - self._last
        self.counted += size - self._last_counted
        self._last = self._last_counted = size
