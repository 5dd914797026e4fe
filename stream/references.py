"""Secrets are named, never written: what a reference to one looks like."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

SECRET_KINDS: Final = ("env", "file", "secrets_manager")
"""Where a secret may be kept."""


def secret_reference(value: Any) -> str:
    """``{kind: name}``, or its short form ``kind:name``, as ``kind:name``.

    Raises:
        ValueError: it is no reference; a secret itself never stands in a pipeline file.
    """
    if isinstance(value, Mapping) and len(value) == 1:
        ((kind, name),) = value.items()
        value = f"{kind}:{name}" if isinstance(name, str) else None
    kind, _, name = value.partition(":") if isinstance(value, str) else ("", "", "")
    if kind not in SECRET_KINDS or not name:
        msg = "a secret is given by reference, such as {env: NAME}, {file: path} or {secrets_manager: name}, never as text"
        raise ValueError(msg)
    return str(value)
