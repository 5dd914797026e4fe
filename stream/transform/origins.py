"""Which columns of the rows the columns of a query come from, told from the text of the query."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

import polars as pl

BATCH: Final = ("batch", "self")
"""What the rows are called in a query."""


_COMMENT: Final = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|--[^\n]*|/\*.*?\*/", re.DOTALL)
_PART: Final = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|[A-Za-z_][A-Za-z0-9_]*|\S", re.DOTALL)
"""A quoted text, a name, or one other character."""

MIXES: Final = frozenset("columns exclude except rename replace union intersect group having full right".split())  # noqa: SIM905
"""Words with which a ``*`` may give something other than the columns of `batch`, or rows that do not come from it."""


def query_origins(query: str, before: pl.Schema, after: pl.Schema, *, joins: bool) -> Mapping[str, frozenset[str]]:
    """An item of the list comes from the columns that it names, or from all that are named if the query is not one plain SELECT.

    What comes from a reference table also depends on the columns with which it is joined.
    """
    chosen = _select_list(query)
    if chosen is None:
        every = _columns_in(_parts(query), before)
        return {name: every | ({name} & set(before)) for name in after}
    items, rest = chosen
    joined = _columns_in(rest, before) if joins else frozenset()
    aliases = _aliases_of_batch(rest)
    named: dict[str, frozenset[str]] = {}
    nameless: list[frozenset[str]] = []
    for item in items:
        value = _value_of(item, before)
        columns = _columns_in(item if value is None else value, before)
        columns |= frozenset() if value is not None and _is_of_batch(value, aliases, before) else joined
        if value is None:
            nameless.append(columns)
        else:
            named[_unquoted(item[-1])] = columns
    all_of_batch = any(item == ["*"] or (item[1:] == [".", "*"] and _unquoted(item[0]) in aliases) for item in items)
    for name in after:
        if name not in named:
            # A ``*`` gives it, or it is an item without a name, which Polars names after one of its columns or in a way of its own.
            own = {name} & frozenset(before)
            possible = [each for each in nameless if name in each or not own]
            named[name] = frozenset(own).union(*possible, () if own and all_of_batch else joined)
    return {name: named[name] for name in after}


def without_comments(query: str) -> str:
    """The query with blanks in place of comments."""
    return _COMMENT.sub(lambda match: match.group() if match.group()[0] in "'\"" else " " * len(match.group()), query)


def _parts(query: str) -> list[str]:
    """Every name, quoted text and other character of the query, without comments."""
    return _PART.findall(without_comments(query))


def _is_name(part: str) -> bool:
    return part[0] == '"' or part.isidentifier()


def _unquoted(part: str) -> str:
    return part[1:-1].replace('""', '"') if part[0] == '"' else part


def _columns_in(parts: Sequence[str], schema: pl.Schema) -> frozenset[str]:
    return frozenset(_unquoted(part) for part in parts if _is_name(part)) & frozenset(schema)


def _select_list(query: str) -> tuple[list[list[str]], list[str]] | None:
    """The parts of each item between SELECT and FROM, and those after FROM.

    None if there is more than one SELECT, or a ``*`` that renames or replaces.
    """
    parts = _parts(query)
    words = {part.lower() for part in parts}
    if sum(part.lower() == "select" for part in parts) != 1 or words & (MIXES | {"with"}):
        return None
    items: list[list[str]] = [[]]
    depth, rest = 0, len(parts)
    for number, part in enumerate(parts[1:], start=1):
        if depth == 0 and part.lower() == "from":
            rest = number + 1
            break
        depth += (part == "(") - (part == ")")
        if part == "," and depth == 0:
            items.append([])
        else:
            items[-1].append(part)
    return [item for item in items if item], parts[rest:]


def _value_of(item: Sequence[str], schema: pl.Schema) -> Sequence[str] | None:
    """The parts that make up the value of an item whose last part is its name; None if the name cannot be told."""
    if not _is_name(item[-1]):
        return None
    if len(item) == 1 or (len(item) == 3 and item[1] == "."):
        return item
    value, word = item[:-1], item[-2].lower()
    if word == "as":
        return value[:-1]
    implicit = (len(value) == 1 and _columns_in(value, schema)) or (word == ")" and item[-1].lower() != "end")
    return value if implicit else None


def _aliases_of_batch(parts: Sequence[str]) -> frozenset[str]:
    """What the rows are called in the query, given its parts after FROM."""
    found = set(BATCH)
    for word, following, another in zip(parts, [*parts[1:], ""], [*parts[2:], "", ""], strict=False):
        if word.lower() in BATCH:
            found.add(another if following.lower() == "as" else following)
    return frozenset(_unquoted(each) for each in found if each)


def _is_of_batch(value: Sequence[str], aliases: frozenset[str], schema: pl.Schema) -> bool:
    """Whether an item is nothing but a column of the rows."""
    if len(value) == 3 and value[1] == ".":
        return _unquoted(value[0]) in aliases
    return len(value) == 1 and _unquoted(value[0]) in schema
