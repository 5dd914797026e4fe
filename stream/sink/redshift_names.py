"""Validates and quotes names and text for SQL. Nothing else in the package puts a value into a statement.

There are two safeguards, each sufficient by itself: only names and text without SQL metacharacters are accepted, and whatever is accepted
is also quoted.
"""

from __future__ import annotations

import re
from typing import Final

MAX_NAME_BYTES: Final = 127
"""Longest identifier of Redshift, in bytes."""

_NAME: Final = re.compile(r"[a-z_][a-z0-9_$]{0,126}")
_TEXT: Final = re.compile(r"[ !#-&(-\[\]-~]*")
"""Printable ASCII without quotes or the backslash, which Redshift treats as an escape character in string literals."""

SYSTEM_COLUMNS: Final = frozenset(
    {"oid", "tableoid", "xmin", "cmin", "xmax", "cmax", "ctid", "insertxid", "deletexid", "tuple_header_id", "padb_internal_timestamp"}
)
"""Names that no user column of a Redshift table may have."""


class BadName(ValueError):
    """A name or text that must not appear in a statement; the message says which and why."""


def folded(name: str) -> str:
    """``name`` as Redshift stores it: ASCII letters in lower case, even if the name is quoted."""
    return "".join(chr(ord(letter) + 32) if "A" <= letter <= "Z" else letter for letter in name)


def check_name(name: str) -> str:
    """``name`` in lower case, guaranteed to be a plain identifier.

    Raises:
        BadName: it has characters other than ASCII letters, digits, ``_`` and ``$``, begins with a digit or ``$``, or is too long.
    """
    lower = folded(name)
    if _NAME.fullmatch(lower) is None:
        msg = f"{name!r} cannot name a table or column: letters a-z, digits, _ and $, not first a digit, at most {MAX_NAME_BYTES} bytes"
        raise BadName(msg)
    return lower


def identifier(name: str) -> str:
    """``name`` as a delimited identifier; raises ``BadName`` as ``check_name`` does."""
    return '"' + check_name(name).replace('"', '""') + '"'


def literal(text: str) -> str:
    """``text`` as a string literal.

    Raises:
        BadName: it contains a quote, a backslash, a control character or a non-ASCII character; none of the texts used here does.
    """
    if _TEXT.fullmatch(text) is None:
        msg = f"{text!r} cannot stand in a statement: printable ASCII without quotes and backslashes"
        raise BadName(msg)
    return "'" + text.replace("'", "''") + "'"


def qualified(schema: str, table: str) -> str:
    """``schema.table``, both delimited."""
    return f"{identifier(schema)}.{identifier(table)}"
