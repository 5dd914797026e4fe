"""Text to what is known of an IP address by itself."""

from __future__ import annotations

import ipaddress
from typing import Final

import polars as pl

from stream.transform.parsers import PARSE_FAILED, Parser, by_distinct

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
"""From IANA's registries of special-purpose addresses. Python has such a table too, but not the same one in each version."""


_V4: Final = r"^(?:(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])\.){3}(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])$"
"""Decimal without leading zeros, which some read as octal and others do not."""


_V4_TEXT: Final = "v4"


def ip(prefix: str, name: str) -> Parser:
    """``version`` (4 or 6), ``kind`` (global, private, loopback, ...) and ``network``, the /24 or /48 that the address lies in."""
    names = [f"{prefix}{part}" for part in ("version", "kind", "network")]
    kinds = dict(zip(names, (pl.Int8(), pl.String(), pl.String()), strict=True))
    of_v4 = [value.alias(column) for column, value in zip(names, _v4_columns(), strict=True)]
    failed = pl.lit(f"{PARSE_FAILED}:{name}")

    def others(text: pl.Series) -> tuple[pl.DataFrame, pl.Series]:
        found = pl.DataFrame([_address(value) for value in text], schema=kinds, orient="row")
        return found, pl.select(pl.when(found[names[0]].is_null()).then(failed).alias("reason")).to_series()

    read_others = by_distinct(others)

    def read(text: pl.Series) -> tuple[pl.DataFrame, pl.Series]:
        done = pl.DataFrame({_V4_TEXT: pl.select(pl.when(text.str.contains(_V4)).then(text)).to_series()}).select(of_v4)
        left = (text.is_not_null() & done[names[0]].is_null()).arg_true()
        reason = pl.repeat(None, len(text), dtype=pl.String, eager=True).alias("reason")
        if len(left):
            rest, refused = read_others(text[left])
            done = done.with_columns(done[column].scatter(left, rest[column]) for column in names)
            reason = reason.scatter(left, refused)
        return done, reason

    return Parser(kinds, read)


def _v4_columns() -> list[pl.Expr]:
    parts = pl.col(_V4_TEXT).str.split_exact(".", 3)
    octets = [parts.struct.field(f"field_{at}") for at in range(4)]
    number = pl.sum_horizontal(octet.cast(pl.UInt32) * 256 ** (3 - at) for at, octet in enumerate(octets))
    number = pl.when(pl.col(_V4_TEXT).is_not_null()).then(number)
    ranges = [(kind, int(network[0]), int(network[-1])) for kind, networks in _KINDS for network in networks if network.version == 4]
    kind = pl.coalesce(*(pl.when(number.is_between(first, last)).then(pl.lit(kind)) for kind, first, last in ranges), pl.lit("global"))
    return [
        pl.when(number.is_not_null()).then(pl.lit(4, pl.Int8)),
        pl.when(number.is_not_null()).then(kind),
        pl.concat_str(*(part for octet in octets[:3] for part in (octet, pl.lit("."))), pl.lit("0/24")),
    ]


def _address(text: str) -> tuple[int | None, str | None, str | None]:
    try:
        address = ipaddress.ip_address(text) if "%" not in text else None
    except ValueError:
        address = None
    if address is None:
        return None, None, None
    kind = next((kind for kind, networks in _KINDS if any(address in network for network in networks)), "global")
    network = ipaddress.ip_network((address, 24 if address.version == 4 else 48), strict=False)
    return address.version, kind, str(network)
