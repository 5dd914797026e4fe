"""Regular expressions of a definition: Rust's, matched in time linear in the text, so no record can hold up a shard."""

from __future__ import annotations

from typing import Final

import polars as pl
from polars.exceptions import PolarsError

from stream.transform.stage import SchemaMismatch

MAX_PATTERN: Final = 4096


def check_pattern(pattern: str, path: tuple[str | int, ...]) -> None:
    """Make sure that ``pattern`` can be matched.

    Raises:
        SchemaMismatch: a syntax error, look-around or a back-reference, or longer than 4,096 characters.
    """
    if len(pattern) > MAX_PATTERN:
        raise SchemaMismatch(path, f"the pattern has {len(pattern)} characters; at most {MAX_PATTERN} are allowed", "split it")
    try:
        pl.Series([""]).str.contains(pattern)
    except PolarsError as error:
        lines = str(error).split("\n\n")[0].splitlines()
        said = next((line.removeprefix("error: ") for line in lines if line.startswith("error: ")), lines[0].removeprefix("regex error: "))
        message = f"{pattern!r} is no regular expression: {said}"
        raise SchemaMismatch(path, message, "the syntax is that of Rust's regex: no look-around, no back-references") from error
