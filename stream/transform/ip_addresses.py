"""Parses IP addresses: version, kind (private, loopback, ...) and network. The implementation of `parse: {ip: true}`."""

from __future__ import annotations

import ipaddress
from functools import cache
from typing import Any, Final

import numpy as np
import polars as pl

from stream.native import KERNEL
from stream.transform import bytewise, compiled
from stream.transform.bytewise import Array
from stream.transform.parsers import PARSE_FAILED, Parser, over_distinct_values

_KINDS: Final = tuple(
    (kind, tuple(ipaddress.ip_network(network) for network in networks.split()))
    for kind, networks in (
        ("unspecified", "0.0.0.0/32 ::/128"),
        ("loopback", "127.0.0.0/8 ::1/128"),
        ("private", "10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 fc00::/7"),
        ("shared", "100.64.0.0/10"),
        ("link_local", "169.254.0.0/16 fe80::/10"),
        ("multicast", "224.0.0.0/4 ff00::/8"),
        ("documentation", "192.0.2.0/24 198.51.100.0/24 203.0.113.0/24 2001:db8::/32"),
        ("reserved", "0.0.0.0/8 192.0.0.0/24 198.18.0.0/15 240.0.0.0/4 ::ffff:0:0/96 64:ff9b:1::/48 100::/64 2001::/23"),
    )
)
"""From IANA's registries of special-purpose addresses. Python has such a table too, but it differs between versions."""


_GLOBAL: Final = "global"
_NAMES: Final = (_GLOBAL, *dict.fromkeys(kind for kind, _ in _KINDS))
_DOT, _COLON, _ZERO = (np.uint8(ord(sign)) for sign in ".:0")
_OCTETS: Final = 4
_MOST_OCTET: Final = 255
_GROUPS: Final = 8
_MOST_DIGITS: Final = 4
"""The most hex digits that a group can have."""
_MASKS: Final = np.array([0, 0xF, 0xFF, 0xFFF, 0xFFFF], np.uint16)
"""Mask for a group by its number of digits."""
_MOST_DECIMALS: Final = 3
_MIXED: Final = np.uint8(255)
"""In ``_by_prefix``: addresses with this prefix are of more than one kind."""
_NONE: Final = (np.empty(0, np.int64), np.empty(0, np.uint8), pl.Series([], dtype=pl.String))
_LOWER_CASE_BIT: Final = np.uint8(0x20)
"""The bit that makes a letter lower-case."""


def ip(prefix: str, name: str, kernel: Any = KERNEL) -> Parser:
    """``version`` (4 or 6), ``kind`` (global, private, loopback, ...) and ``network``, the /24 or /48 that contains the address.

    The usual spellings are read for all addresses at once; every other text is left to Python's ``ipaddress``.
    """
    names = [f"{prefix}{part}" for part in ("version", "kind", "network")]
    kinds = dict(zip(names, (pl.Int8(), pl.String(), pl.String()), strict=True))
    failed = pl.lit(f"{PARSE_FAILED}:{name}")

    def others(text: pl.Series) -> tuple[pl.DataFrame, pl.Series]:
        found = pl.DataFrame([_address(value) for value in text], schema=kinds, orient="row")
        return found, pl.select(pl.when(found[names[0]].is_null()).then(failed).alias("reason")).to_series()

    read_others = over_distinct_values(others)

    def read(text: pl.Series) -> tuple[pl.DataFrame, pl.Series]:
        found = compiled.addresses(kernel, text, _limits()) if kernel is not None else None
        if found is not None:
            done = _frame(names, *found)
        else:
            parts = [_usual(text[rows], bounds, codes, names) for rows, bounds, codes in bytewise.pieces(text)]
            done = pl.concat(parts) if parts else pl.DataFrame(schema=kinds)
        left = (text.is_not_null() & done[names[0]].is_null()).arg_true()
        reason = pl.repeat(None, len(text), dtype=pl.String, eager=True).alias("reason")
        if len(left):
            rest, refused = read_others(text[left])
            done = done.with_columns(done[column].scatter(left, rest[column]) for column in names)
            reason = reason.scatter(left, refused)
        return done, reason

    return Parser(kinds, read)


def _usual(text: pl.Series, bounds: Array, codes: Array, names: list[str]) -> pl.DataFrame:
    """Parse addresses in the usual spellings, all at once; other texts give null."""
    version = np.zeros(len(text), np.int8)
    kind = np.zeros(len(text), np.uint8)
    networks_of = []
    for number, read in ((4, _read_v4), (6, _read_v6)):
        rows, kinds, networks = read(text, bounds, codes)
        if len(rows) == len(text):
            return _frame(names, np.full(len(text), number, np.int8), kinds, networks)
        if len(rows):
            version[rows], kind[rows] = number, kinds
            networks_of.append((pl.Series(rows), networks))
    network = pl.repeat(None, len(text), dtype=pl.String, eager=True)
    for each in networks_of:
        network = network.scatter(*each)
    return _frame(names, version, kind, network)


def _frame(names: list[str], version: Array, kind: Array, network: pl.Series) -> pl.DataFrame:
    known = pl.Series(version != 0)
    words = pl.Series(_NAMES).gather(pl.Series(kind.astype(np.uint32)))
    found = pl.DataFrame({names[0]: pl.Series(version), names[1]: words, names[2]: network})
    return found if known.all() else found.select(pl.when(known).then(pl.all()))


def _read_v4(text: pl.Series, bounds: Array, codes: Array) -> tuple[Array, Array, pl.Series]:
    """Indexes, kinds and networks of the IPv4 addresses. Leading zeros are not accepted, because some programs read them as octal."""
    is_dot = codes == _DOT
    dots = np.flatnonzero(is_dot)
    if not len(dots):
        return _NONE
    digits = codes - _ZERO
    digits[dots] = 0
    before, fits = _three_each(dots, bounds)
    begins = np.zeros(len(codes) + 1, np.bool_)
    begins[dots + 1] = begins[bounds] = True
    # A leading zero, or anything that is not a digit.
    wrong = begins[:-1] & (digits == 0) & ~begins[1:] & ~np.append(is_dot[1:], True) | (digits > 9)
    if wrong.any():
        fits[bytewise.rows_of(np.flatnonzero(wrong), bounds)] = False
    rows = np.flatnonzero(fits)
    if not len(rows):
        return _NONE
    ends = [*(dots[before[rows] + at] for at in range(_OCTETS - 1)), bounds[rows + 1]]
    numbers = _numbers_before(digits, is_dot | begins[:-1])
    number, good, begin = np.zeros(len(rows), np.uint32), np.ones(len(rows), np.bool_), bounds[rows]
    for end in ends:
        octet = numbers.take(end - 1, mode="clip").astype(np.uint32)
        number = number << np.uint32(8) | octet
        length = end - begin
        good &= (length > 0) & (length <= _MOST_DECIMALS) & (octet <= _MOST_OCTET)
        begin = end + 1
    lengths = ends[2] - bounds[rows]
    if not good.all():
        rows, number, lengths = rows[good], number[good], lengths[good]
    given = text if len(rows) == len(text) else text.gather(pl.Series(rows))
    cut = pl.DataFrame({"text": given, "length": lengths})
    start = pl.col("text").cast(pl.Binary).bin.slice(0, "length").cast(pl.String)
    return rows, _kind_v4(number), cut.select(start + pl.lit(".0/24")).to_series()


def _three_each(dots: Array, bounds: Array) -> tuple[Array, Array]:
    """The number of dots before each offset, and which values have three."""
    count = len(bounds) - 1
    # Usually every value has three dots, which the first and the last dot of each prove.
    if len(dots) == 3 * count and (dots[::3] >= bounds[:-1]).all() and (dots[2::3] < bounds[1:]).all():
        return np.arange(0, len(dots) + 1, 3), np.ones(count, np.bool_)
    before = np.searchsorted(dots, bounds)
    return before, np.diff(before) == _OCTETS - 1


def _numbers_before(digits: Array, stops: Array) -> Array:
    """For each byte, the number that ends there, of at most three digits; ``stops`` marks first digits and separators."""
    goes_on = np.logical_not(stops).astype(np.uint16)
    found = digits.astype(np.uint16)
    found[2:] += digits[:-2] * np.uint16(100) * (goes_on[2:] & goes_on[1:-1])
    found[1:] += digits[:-1] * np.uint16(10) * goes_on[1:]
    return found


def _ranges(version: int) -> list[tuple[int, int, int]]:
    """First address, last address and number of the kind; the first range that contains an address counts."""
    return [
        (int(network[0]), int(network[-1]), _NAMES.index(kind))
        for kind, networks in _KINDS
        for network in networks
        if network.version == version
    ]


@cache
def _limits() -> Array:
    """``_ranges`` of both versions as 64-bit numbers: first and last address, each in two halves, version and kind."""
    halves = [
        (first >> 64, first % 2**64, last >> 64, last % 2**64, version, kind)
        for version in (4, 6)
        for first, last, kind in _ranges(version)
    ]
    return np.array(halves, np.uint64)


@cache
def _steps() -> tuple[Array, Array]:
    """The addresses at which the kind of IPv4 addresses changes, ascending, and the kind from there on."""
    ranges = _ranges(4)
    starts = sorted({0, *(first for first, _, _ in ranges), *(last + 1 for _, last, _ in ranges if last < 2**32 - 1)})
    kinds = [next((kind for first, last, kind in ranges if first <= start <= last), 0) for start in starts]
    return np.array(starts, np.uint32), np.array(kinds, np.uint8)


@cache
def _by_prefix() -> Array:
    """For each value of the first 16 bits, the kind of all such addresses, or ``_MIXED``."""
    starts, kinds = _steps()
    firsts = np.arange(2**16, dtype=np.uint64) << np.uint64(16)
    first, last = (np.searchsorted(starts, firsts + np.uint64(more), side="right") - 1 for more in (0, 2**16 - 1))
    return np.where(first == last, kinds[first], _MIXED)


def _kind_v4(number: Array) -> Array:
    found = _by_prefix().take(number >> np.uint32(16))
    mixed = np.flatnonzero(found == _MIXED)
    if len(mixed):
        starts, kinds = _steps()
        found[mixed] = kinds[np.searchsorted(starts, number[mixed], side="right") - 1]
    return found


_NO_TEXT: Final = 2**16


@cache
def _hex_texts(before: str) -> pl.Series:
    """The text of each possible group after ``before``; empty for ``_NO_TEXT``."""
    return pl.Series([*(f"{before}{value:x}" for value in range(_NO_TEXT)), ""])


def _read_v6(text: pl.Series, bounds: Array, codes: Array) -> tuple[Array, Array, pl.Series]:
    """Indexes, kinds and networks of the values that are IPv6 addresses in hex digits, with or without ``::``."""
    is_colon = codes == _COLON
    fits = np.diff(np.searchsorted(np.flatnonzero(is_colon), bounds)) >= 2
    if not fits.any():
        return _NONE
    strange = (codes - _ZERO > 9) & ((codes | _LOWER_CASE_BIT) - np.uint8(ord("a")) > 5) & ~is_colon
    if strange.any():
        fits[bytewise.rows_of(np.flatnonzero(strange), bounds)] = False
    rows = np.flatnonzero(fits)
    if not len(rows):
        return _NONE
    if len(rows) < len(text):
        bounds, codes = bytewise.flat(text.gather(pl.Series(rows)))
    good, groups = _groups(bounds.astype(np.int32), codes)
    if not good.all():
        rows, groups = rows[good], groups[:, good]
    return rows, _kind_v6(groups), _network_v6(groups)


def _groups(bounds: Array, codes: Array) -> tuple[Array, Array]:
    """Which values are addresses, and their groups; each value consists of hex digits and at least two colons."""
    rows = len(bounds) - 1
    colons = np.flatnonzero(codes == _COLON).astype(np.int32)
    counts = np.diff(np.searchsorted(colons, bounds)).astype(np.int32) + 1
    # One entry per part between colons, empty ones included, row by row.
    row_ends = np.cumsum(counts, dtype=np.int32)
    row = np.repeat(np.arange(rows, dtype=np.int32), counts)
    ends, is_last = np.empty(len(row), np.int32), np.zeros(len(row), np.bool_)
    is_last[row_ends - 1] = True
    ends[is_last], ends[~is_last] = bounds[1:], colons
    is_first = np.zeros(len(row), np.bool_)
    is_first[row_ends - counts] = True
    length = np.diff(ends, prepend=np.int32(-1)) - 1
    length[is_first] = ends[is_first] - bounds[:-1]
    good = np.ones(rows, np.bool_)
    good[row[length > _MOST_DIGITS]] = False
    empty = length == 0
    # An empty part means `::`; at the beginning or the end of an address, `::` makes two of them.
    inner = np.flatnonzero(empty & ~is_first & ~is_last)
    gaps = np.bincount(row[inner], minlength=rows)
    leads, trails = empty[row_ends - counts], empty[row_ends - 1]
    filled = counts - gaps - leads - trails
    gap = np.full(rows, len(row), np.int32)
    gap[row[inner]] = inner
    good &= np.where(gaps == 0, (filled == _GROUPS) & ~leads & ~trails, (gaps == 1) & (filled < _GROUPS))
    good &= (~leads | (gap == row_ends - counts + 1)) & (~trails | (gap == row_ends - 2))
    # Groups before `::` count from the first, those after it from the last.
    entry = np.arange(len(row), dtype=np.int32)
    shift = np.where(entry > gap[row], (_GROUPS - row_ends + trails)[row], (counts - row_ends - leads)[row])
    used = np.flatnonzero(~empty & good[row])
    groups = np.zeros(_GROUPS * rows, np.uint32)
    value = _hex_before(codes).take(ends[used] - 1) & _MASKS.take(length[used])
    groups[(entry[used] + shift[used]) * np.int64(rows) + row[used]] = value
    return good, groups.reshape(_GROUPS, rows)


def _hex_before(codes: Array) -> Array:
    """For each byte, the number of the four digits that end there; the caller masks out what precedes the group."""
    digits = ((codes & np.uint8(0xF)) + np.uint8(9) * (codes >> np.uint8(6))).astype(np.uint16) & np.uint16(0xF)
    found = digits.copy()
    for back in range(1, _MOST_DIGITS):
        found[back:] |= digits[:-back] << np.uint16(4 * back)
    return found


def _kind_v6(groups: Array) -> Array:
    halves = [np.zeros(groups.shape[1], np.uint64) for _ in range(2)]
    for at in range(_GROUPS):
        half = at // 4
        halves[half] = halves[half] << np.uint64(16) | groups[at].astype(np.uint64)
    kind = np.zeros(groups.shape[1], np.uint8)
    for first, last, number in reversed(_ranges(6)):
        low, high = np.uint64(first >> 64), np.uint64(last >> 64)
        within = (halves[0] >= low) & (halves[0] <= high)
        if low == high:
            within &= (halves[1] >= np.uint64(first & (2**64 - 1))) & (halves[1] <= np.uint64(last & (2**64 - 1)))
        kind[within] = number
    return kind


def _network_v6(groups: Array) -> pl.Series:
    """The /48 network as text; ``::`` replaces all zero groups at its end, since that is the longest run."""
    first, second, third = groups[:3]
    last_two = np.where(third != 0, third, _NO_TEXT), np.where(second | third != 0, second, _NO_TEXT)
    tables = (_hex_texts(""), _hex_texts(":"), _hex_texts(":"))
    numbers = (np.where(first | second | third != 0, first, _NO_TEXT), *reversed(last_two))
    parts = [table.gather(pl.Series(number)).alias(str(at)) for at, (table, number) in enumerate(zip(tables, numbers, strict=True))]
    return pl.DataFrame(parts).select(pl.concat_str(pl.all(), pl.lit("::/48"))).to_series()


def _address(text: str) -> tuple[int | None, str | None, str | None]:
    try:
        address = ipaddress.ip_address(text) if "%" not in text else None
    except ValueError:
        address = None
    if address is None:
        return None, None, None
    kind = next((kind for kind, networks in _KINDS if any(address in network for network in networks)), _GLOBAL)
    network = ipaddress.ip_network((address, 24 if address.version == 4 else 48), strict=False)
    return address.version, kind, str(network)
