"""Rephrases the messages of the validation library for users of pipeline files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from stream.pipeline.findings import near_miss

_EXPECTED: Final[Mapping[str, str]] = {
    "model_type": "expected options, each as `name: value`",
    "dict_type": "expected a mapping, each entry as `name: value`",
    "tuple_type": "expected a list, each item after a dash",
    "list_type": "expected a list, each item after a dash",
}
_KINDS: Final[Mapping[str, str]] = {"int": "a whole number", "float": "a number", "bool": "true or false", "string": "text"}
_BOUNDS: Final[Mapping[str, tuple[str, str]]] = {
    "less_than_equal": ("le", "at most"),
    "less_than": ("lt", "less than"),
    "greater_than_equal": ("ge", "at least"),
    "greater_than": ("gt", "more than"),
}
_MOST_SHOWN: Final = 60


def worded(line: Any, description: str = "") -> tuple[str, str]:
    """Message and hint of a line of a validation error; ``description`` of the option is the hint where there is no better one."""
    kind, context, given = line["type"], line.get("ctx", {}), line.get("input")
    error = context.get("error")
    if error is not None:
        return str(getattr(error, "message", error)), str(getattr(error, "hint", ""))
    if kind in {"enum", "literal_error"}:
        allowed = re.findall(r"'([^']*)'", str(context.get("expected", "")))
        hint = near_miss(str(given), allowed)
        return f"{_shown(given)} is not allowed here; allowed: {', '.join(allowed)}", "" if hint.startswith("known") else hint
    if kind in _EXPECTED:
        single = kind in {"tuple_type", "list_type"} and isinstance(given, str) and re.fullmatch(r"[\w.-]+", given)
        return f"{_EXPECTED[kind]}, got {_shown(given)}", f"write [{given}]" if single else ""
    return _explained(kind, context, given) or _first_small(line["msg"]), description


def _explained(kind: str, context: Mapping[str, Any], given: Any) -> str:
    """The message; empty for rare types of error."""
    if kind in _BOUNDS:
        name, words = _BOUNDS[kind]
        return f"{_shown(given)} is out of range: {words} {context[name]}"
    if kind in {"string_too_short", "string_too_long"}:
        bound = f"at most {context['max_length']}" if kind == "string_too_long" else f"at least {context['min_length']}"
        return f"{_shown(given)} has {len(str(given))} characters; allowed: {bound}"
    if kind == "string_pattern_mismatch":
        return f"{_shown(given)} does not have the required form"
    what, _, how = kind.partition("_")
    if what in _KINDS and how in {"type", "parsing", "parsing_size", "from_float"}:
        return f"expected {_KINDS[what]}, got {_shown(given)}"
    return ""


def _first_small(text: str) -> str:
    return text[:1].lower() + text[1:]


def _shown(value: Any) -> str:
    """A scalar as written in the file; for lists and mappings, only what they are."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return "a list"
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[: _MOST_SHOWN - 3]}..."
