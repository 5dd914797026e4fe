"""Pipeline files name secrets and never contain them: what a reference to a secret looks like."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

SECRET_KINDS: Final = ("env", "file", "secrets_manager")
"""Where a secret may be kept."""


def secret_reference(value: Any) -> str:
    """The reference ``value``, given as ``{kind: name}`` or ``kind:name``, in the form ``kind:name``.

    Raises:
        ValueError: ``value`` is not a reference; a pipeline file never contains a secret itself.
    """
    if isinstance(value, Mapping) and len(value) == 1:
        ((kind, name),) = value.items()
        value = f"{kind}:{name}" if isinstance(name, str) else None
    kind, _, name = value.partition(":") if isinstance(value, str) else ("", "", "")
    if kind not in SECRET_KINDS or not name:
        msg = "a secret is given by reference, such as {env: NAME}, {file: path} or {secrets_manager: name}, never as text"
        raise ValueError(msg)
    return str(value)
