"""Parses URLs into their parts: the implementation of `parse: {url: ...}`.

One regular expression defines the parts of a URL. Most URLs are plain, however: ASCII, either absolute with a lower-case scheme or only a
path, and without a user before the host. Their parts are found by searching for single characters, which takes a tenth of the time. All
other URLs are left to the expression. The result is the same either way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import polars as pl

from stream.native import KERNEL
from stream.transform import bytewise, compiled
from stream.transform.parsers import PARSE_FAILED, TEXT, Parser, Read, evaluator, over_distinct_values

PARTS: Final = compiled.PARTS
PATTERN: Final = (
    r"^(?:(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*):)?(?://(?:(?P<user>[^/?#@\s]*)@)?(?P<host>\[[0-9A-Fa-f:.]+\]|[^/?#:@\s]*)"
    r"(?::(?P<port>[0-9]{0,5}))?)?(?P<path>[^?#\s]*)(?:\?(?P<query>[^#\s]*))?(?:#(?P<fragment>\S*))?$"
)
"""RFC 3986, appendix B, with the authority split into its parts. It does not check that a path after an authority begins with a slash."""

_PLAIN_SCHEMES: Final = ("https", "http", "wss", "ws", "s3", "ftp")
_USUAL: Final = 2
"""The number of these schemes that are tried first."""
_ROWS: Final = 2 * bytewise.PIECE_ROWS
_START, _REST, _AFTER, _HOST_END, _QUERY, _FRAGMENT = "start", "rest", "after", "host_end", "query", "fragment"
_BEHIND: Final = 2**31
"""A position after the end of any text."""
_LETTERS: Final = 26


def url(prefix: str, parts: Sequence[str], name: str, kernel: Any = KERNEL) -> Parser:
    """Reads the parts of an absolute or relative URL; percent-encoding stays, host and scheme become lower-case."""
    kinds: dict[str, pl.DataType] = {f"{prefix}{part}": pl.UInt16() if part == "port" else pl.String() for part in parts}
    by_pattern = over_distinct_values(_by_pattern(prefix, parts, name))

    def read(text: pl.Series) -> tuple[pl.DataFrame, pl.Series]:
        done, left = compiled.urls(kernel, text, parts) if kernel is not None else _all_plain(text, parts)
        done = done.select(pl.col(part).alias(f"{prefix}{part}") for part in parts)
        reason = pl.repeat(None, len(text), dtype=pl.String, eager=True).alias("reason")
        if left is not None:
            rest, refused = by_pattern(text.gather(left))
            done = done.with_columns(done[column].scatter(left, rest[column]) for column in kinds)
            reason = reason.scatter(left, refused)
        return done, reason

    return Parser(kinds, read)


def _by_pattern(prefix: str, parts: Sequence[str], name: str) -> Read:
    groups = pl.col(TEXT).str.extract_groups(PATTERN)
    every: dict[str, pl.Expr] = {part: groups.struct.field(part) for part in PARTS}
    every["scheme"], every["host"] = every["scheme"].str.to_lowercase(), every["host"].str.to_lowercase()
    port = pl.when(every["port"] != "").then(every["port"])
    every["port"] = port.cast(pl.UInt16, strict=False)
    # Otherwise an invalid port, or a second @, would become part of a path.
    is_misplaced = (every["host"].is_not_null() & every["path"].str.contains("^[^/]")).fill_null(value=False)
    every = {part: pl.when(~is_misplaced).then(value) for part, value in every.items()}
    failed = every["path"].is_null() | (port.is_not_null() & every["port"].is_null())
    return evaluator({f"{prefix}{part}": every[part] for part in parts}, failed, f"{PARSE_FAILED}:{name}")


def _all_plain(text: pl.Series, parts: Sequence[str]) -> tuple[pl.DataFrame, pl.Series | None]:
    """The parts of plain URLs, and the indexes of all other texts, whose parts are null; None if there are none."""
    done = pl.concat([_plain(text.slice(at, _ROWS), parts) for at in range(0, max(1, len(text)), _ROWS)])
    left = (text.is_not_null() & done[_START].is_null()).arg_true()
    return done.select(parts), left if len(left) else None


def _plain(text: pl.Series, parts: Sequence[str]) -> pl.DataFrame:
    """The parts of plain URLs, null where a part is absent; ``start`` is null where the text is not a plain URL."""
    has = _Characters(text)
    frame = _started(has.frame, _PLAIN_SCHEMES[:_USUAL])
    if frame[_START].null_count() > has.frame[TEXT].null_count():
        frame = _started(has.frame, _PLAIN_SCHEMES)
    rest, none = pl.col(_REST), pl.lit(None, pl.UInt32)
    frame = frame.with_columns(_cut(pl.col(TEXT), pl.col(_START), None).alias(_REST))
    if has.bracket:
        frame = frame.with_columns(pl.when(~rest.str.starts_with("[")).then(pl.col(_START)).alias(_START))
    after = rest.str.find(r"[/?#]")
    with_host = frame.select((pl.col(_START) > 0).sum()).item()
    plain_hosts = not has.at and has.colons == with_host
    frame = frame.with_columns(
        after.alias(_AFTER),
        *([] if plain_hosts else [rest.str.find(r"[/?#:@]").alias(_HOST_END)]),
        (rest.str.find(r"[?#]") if has.hash else rest.str.find("?", literal=True)).alias(_QUERY),
        (rest.str.find("#", literal=True) if has.hash else none).alias(_FRAGMENT),
    )
    same = (pl.col(_AFTER).alias(_HOST_END), pl.lit(None, pl.UInt16).alias("port"))
    frame = frame.with_columns(same) if plain_hosts else _with_port(frame)
    return frame.select(_START, *(_part(part, lower=has.upper) for part in parts))


def _started(frame: pl.DataFrame, schemes: Sequence[str]) -> pl.DataFrame:
    """``frame`` with ``scheme`` and the offset after it, both null where a text has none of ``schemes`` and is not a path."""
    value = pl.col(TEXT)
    start: pl.Expr = pl.when(value.str.starts_with("/") & ~value.str.starts_with("//")).then(pl.lit(0, pl.UInt32))
    scheme: pl.Expr = pl.lit(None, pl.UInt32)
    for at, each in enumerate(schemes):
        begins = value.str.starts_with(f"{each}://")
        start = pl.when(begins).then(pl.lit(len(each) + 3, pl.UInt32)).otherwise(start)
        scheme = pl.when(begins).then(pl.lit(at, pl.UInt32)).otherwise(scheme)
    return frame.lazy().with_columns(start.alias(_START), scheme.alias("scheme")).collect(engine="in-memory")


class _Characters:
    """The special characters that occur in ``text``, and a frame with ``text``, null where it has anything but printable ASCII."""

    def __init__(self, text: pl.Series) -> None:
        bounds, codes = bytewise.flat(text)
        self.hash, self.at, self.bracket, self.upper, odd = bytewise.any_of(
            codes,
            lambda part: part == ord("#"),
            lambda part: part == ord("@"),
            lambda part: part == ord("["),
            lambda part: part - np.uint8(ord("A")) < _LETTERS,
            _odd,
        )
        self.colons = int(np.count_nonzero(codes == ord(":")))
        self.frame = text.alias(TEXT).to_frame()
        if odd:
            rows = np.unique(bytewise.rows_of(np.flatnonzero(_odd(codes)), bounds))
            self.frame = self.frame.with_columns(text.alias(TEXT).scatter(pl.Series(rows), None))


def _odd(codes: bytewise.Array) -> bytewise.Array:
    return codes - np.uint8(ord("!")) > ord("~") - ord("!")


def _cut(text: pl.Expr, start: pl.Expr | int, length: pl.Expr | None) -> pl.Expr:
    """``length`` bytes from ``start`` on, or all if it is null: for ASCII the same as characters, and faster."""
    return text.cast(pl.Binary).bin.slice(start, length).cast(pl.String)


def _with_port(frame: pl.DataFrame) -> pl.DataFrame:
    """``frame`` with ``port``; a URL with a user, or with anything but a port after the host, is no longer plain."""
    doubtful = pl.col(_HOST_END).ne_missing(pl.col(_AFTER))
    if not frame.select(doubtful.any()).item():
        return frame.with_columns(pl.lit(None, pl.UInt16).alias("port"))
    rest, end = pl.col(_REST), pl.when(doubtful).then(pl.col(_HOST_END))
    text = _cut(rest, end, pl.col(_AFTER) - end)
    number = pl.when(text.str.contains("^:[0-9]{1,5}$")).then(text.str.slice(1)).cast(pl.UInt16, strict=False)
    frame = frame.with_columns(number.alias("port"))
    plain = ~doubtful | pl.col("port").is_not_null()
    return frame.with_columns(pl.when(plain).then(pl.col(_START)).alias(_START))


def _part(part: str, *, lower: bool) -> pl.Expr:  # noqa: PLR0911 - one per part
    rest, after, query, fragment = pl.col(_REST), pl.col(_AFTER), pl.col(_QUERY), pl.col(_FRAGMENT)
    match part:
        case "scheme":
            return pl.lit(pl.Series(_PLAIN_SCHEMES)).gather(pl.col(part)).alias(part)
        case "user":
            return pl.lit(None, pl.String).alias(part)
        case "host":
            host = _cut(rest, pl.when(pl.col(_START) > 0).then(0), pl.col(_HOST_END))
            return (host.str.to_lowercase() if lower else host).alias(part)
        case "path":
            return _cut(rest, after.fill_null(_BEHIND), query - after).alias(part)
        case "query":
            asked = pl.when(fragment.is_null() | (query < fragment)).then(query)
            return _cut(rest, asked + 1, fragment - asked - 1).alias(part)
        case "fragment":
            return _cut(rest, fragment + 1, None).alias(part)
        case _:
            return pl.col(part)
