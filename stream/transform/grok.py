"""Grok: regular expressions that are built from named ones, such as ``%{IP:client} %{NUMBER:took:float64}``.

The named patterns are written for Rust's regex. They accept more than those of Logstash where the latter use look-around, which cannot be
matched in linear time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from stream.transform.stage import SchemaMismatch
from stream.transform.types import near

_OCTET: Final = r"(?:25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])"

PATTERNS: Final[Mapping[str, str]] = {
    "WORD": r"\w+",
    "NOTSPACE": r"\S+",
    "SPACE": r"\s*",
    "DATA": r".*?",
    "GREEDYDATA": r".*",
    "INT": r"[+-]?[0-9]+",
    "POSINT": r"[1-9][0-9]*",
    "NUMBER": r"[+-]?(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)",
    "HEX": r"(?:0[xX])?[0-9A-Fa-f]+",
    "QUOTED": r'"(?:[^"\\]|\\.)*"',
    "USER": r"[a-zA-Z0-9._-]+",
    "EMAIL": r"[a-zA-Z0-9!#$%&'*+/=?^_`{|}~.-]+@%{HOSTNAME}",
    "UUID": r"[0-9A-Fa-f]{8}-(?:[0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12}",
    "MAC": r"(?:[0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}",
    "IPV4": rf"(?:{_OCTET}\.){{3}}{_OCTET}",
    "IPV6": r"(?:[0-9A-Fa-f]{0,4}:){2,7}(?:[0-9A-Fa-f]{0,4}|(?:[0-9]{1,3}\.){3}[0-9]{1,3})",
    "IP": r"(?:%{IPV4}|%{IPV6})",
    "HOSTNAME": r"[0-9A-Za-z](?:[0-9A-Za-z_-]{0,62})(?:\.[0-9A-Za-z](?:[0-9A-Za-z_-]{0,62}))*\.?",
    "IPORHOST": r"(?:%{IP}|%{HOSTNAME})",
    "HOSTPORT": r"%{IPORHOST}:[0-9]{1,5}",
    "PATH": r"(?:/[^\s?#]*)",
    "PARAM": r"\?\S*",
    "PATHPARAM": r"%{PATH}(?:%{PARAM})?",
    "URI": r"[A-Za-z][A-Za-z0-9+.-]*://\S+",
    "LOGLEVEL": r"(?i:trace|debug|info|notice|warn(?:ing)?|error|err|crit(?:ical)?|fatal|severe|alert|emerg(?:ency)?)",
    "DATE": r"[0-9]{4}-[0-9]{2}-[0-9]{2}",
    "TIME": r"[0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:[.,][0-9]+)?)?",
    "TIMESTAMP_ISO8601": r"%{DATE}[T ]%{TIME}(?:Z|[+-][0-9]{2}:?[0-9]{2})?",
    "HTTPDATE": r"[0-9]{2}/[A-Z][a-z]{2}/[0-9]{4}:[0-9]{2}:[0-9]{2}:[0-9]{2} [+-][0-9]{4}",
    "SYSLOGTIMESTAMP": r"[A-Z][a-z]{2} [ 0-9][0-9] [0-9]{2}:[0-9]{2}:[0-9]{2}",
    "COMMONLOG": r'%{IPORHOST:client} \S+ %{NOTSPACE:user} \[%{HTTPDATE:time}\] "(?:%{WORD:verb} %{NOTSPACE:request}'
    r'(?: HTTP/%{NUMBER:http_version})?|%{DATA:raw_request})" %{INT:status:int16} (?:%{INT:bytes:int64}|-)',
    "COMBINEDLOG": r'%{COMMONLOG} "(?P<referrer>(?:[^"\\]|\\.)*)" "(?P<agent>(?:[^"\\]|\\.)*)"',
}
"""The expression that each name stands for."""

MAX_LENGTH: Final = 65_536
MAX_DEPTH: Final = 16

_REFERENCE: Final = re.compile(r"%\{([^{}]*)\}")
_PARTS: Final = re.compile(r"([A-Za-z0-9_]+)(?::([A-Za-z_][A-Za-z0-9_]*)(?::([^:{}]+))?)?")


def expand(text: str, own: Mapping[str, str], path: tuple[str | int, ...]) -> tuple[str, dict[str, str]]:
    """The regular expression that ``text`` stands for, and the types it names by group. ``own`` adds to, or replaces, ``PATTERNS``.

    Raises:
        SchemaMismatch: with ``path``; an unknown name, one that leads to itself, or more than 65,536 characters.
    """
    known = {**PATTERNS, **own}
    types: dict[str, str] = {}

    def put(match: re.Match[str], depth: int) -> str:
        parts = _PARTS.fullmatch(match.group(1))
        if parts is None:
            raise SchemaMismatch(
                path, f"{match.group()!r} is not a reference to a pattern", "write %{PATTERN}, %{PATTERN:name} or %{PATTERN:name:type}"
            )
        name, group, kind = parts.groups()
        if name not in known:
            raise SchemaMismatch(path, f"there is no pattern {name!r}", near(name, known) or f"known: {', '.join(known)}")
        if depth == MAX_DEPTH:
            raise SchemaMismatch(
                path,
                f"pattern {name!r} refers to itself, or references are nested more than {MAX_DEPTH} deep",
                "write it without the reference",
            )
        inner = whole(known[name], depth + 1)
        if group is not None and kind is not None:
            types[group] = kind
        return f"(?P<{group}>{inner})" if group is not None else f"(?:{inner})"

    def whole(pattern: str, depth: int) -> str:
        expanded = _REFERENCE.sub(lambda match: put(match, depth), pattern)
        if len(expanded) > MAX_LENGTH:
            raise SchemaMismatch(path, f"the pattern becomes longer than {MAX_LENGTH} characters", "use fewer references")
        return expanded

    return whole(text, 0), types
