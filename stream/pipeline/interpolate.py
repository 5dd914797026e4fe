"""``${NAME}`` and ``${NAME:-default}`` inside a text, replaced from an environment that is passed in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

_REFERENCE: Final = re.compile(r"\$(?:\$\{|\{([A-Za-z_][A-Za-z0-9_]*)(:-([^}]*))?\}|\{([^}]*\}?))")
_SECRET_NAME: Final = re.compile(r"SECRET|PASSWORD|PASSWD|TOKEN|CREDENTIAL|PRIVATE_KEY|API_KEY|ACCESS_KEY", re.IGNORECASE)


class BadReference(Exception):
    """A reference that cannot be replaced; ``code`` and ``hint`` as in a finding."""

    def __init__(self, code: str, message: str, hint: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint


def has_reference(text: str) -> bool:
    """Whether ``interpolate`` would change ``text`` or refuse it."""
    return _REFERENCE.search(text) is not None


def interpolate(text: str, env: Mapping[str, str]) -> str:
    """``text`` with each reference replaced; ``$${`` stands for the two characters ``${``.

    As in a shell, ``:-`` gives the default where the name is unset or empty. What comes in is never looked at again, so a
    value that itself reads ``${X}`` stays as it is.

    Raises:
        BadReference: name unset without a default, malformed reference, or a name that looks like a secret's.
    """
    return _REFERENCE.sub(lambda match: _replacement(match, env), text)


def _replacement(match: re.Match[str], env: Mapping[str, str]) -> str:
    name, default_given, default, malformed = match.groups()
    if malformed is not None:
        code, message = "bad_interpolation", f"`${{{malformed}` is not a reference to an environment variable"
        raise BadReference(code, message, "write ${NAME} or ${NAME:-default}, or $${ for the characters ${")
    if name is None:
        return "${"
    if _SECRET_NAME.search(name):
        code, message = "secret_interpolated", f"`{name}` looks like a secret, and the commit log keeps the file's values"
        raise BadReference(code, message, f"use {{env: {name}}} where a secret is expected")
    if default_given:
        return env.get(name) or str(default)
    if name not in env:
        code, message = "env_unset", f"the environment variable `{name}` is not set"
        raise BadReference(code, message, f"set it, or give a default: ${{{name}:-...}}")
    return env[name]
