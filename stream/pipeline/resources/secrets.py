"""Secrets by reference to the environment, a file, or AWS Secrets Manager. Their values are never printed, logged or recorded."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final, TypeAlias

from stream.errors import DefinitionError
from stream.pipeline.model import Pipeline

ENV: Final = "env"
FILE: Final = "file"
SECRETS_MANAGER: Final = "secrets_manager"
FORMS: Final = "write {env: NAME}, {file: path} or {secrets_manager: name}"

SecretReader: TypeAlias = Callable[[str], Awaitable[bytes]]
"""Reads the secret of that name or ARN from Secrets Manager; raises ``stream.errors.StreamError`` where it cannot."""


def references(pipeline: Pipeline) -> tuple[str, ...]:
    """Every secret that the pipeline refers to, once each, in the order of the file."""
    receivers = (pipeline.audit.otlp, pipeline.audit.lineage, pipeline.telemetry)
    names = [name for stage in pipeline.stages for name in stage.secret_names()]
    headers = [name for receiver in receivers if receiver is not None for name in receiver.headers.values()]
    catalogs = [name for sink in pipeline.sinks for name in sink.secret_names()]
    return tuple(dict.fromkeys([*names, *headers, *catalogs, *pipeline.notify.headers.values()]))


def is_managed(name: str) -> bool:
    """Whether the secret can only be read over the network."""
    return name.startswith(f"{SECRETS_MANAGER}:")


async def find_secret(name: str, env: Mapping[str, str], base: Path, managed: SecretReader | None = None) -> bytes:
    """The bytes that a reference leads to, ``managed`` reads secrets from Secrets Manager.

    ``secrets_manager:NAME#field`` is one field of a secret that is a JSON object, as the console writes them.

    Raises:
        DefinitionError: unset, unreadable or empty; the message never contains any part of the secret.
    """
    if not is_managed(name):
        return local_secret(name, env, base)
    if managed is None:
        msg = f"the secret {name} is in Secrets Manager, which this command does not read"
        raise DefinitionError(msg)
    where, _, field = name.removeprefix(f"{SECRETS_MANAGER}:").partition("#")
    value = await managed(where)
    if field:
        value = _field(name, value, field)
    return _not_empty(name, value)


async def find_headers(
    wanted: Mapping[str, str], env: Mapping[str, str], base: Path, managed: SecretReader | None = None
) -> dict[str, str]:
    """HTTP headers by name, given the secrets that they carry; a line break at the end of one, as ``echo`` writes it, is left out.

    Raises:
        DefinitionError: as ``find_secret``, or a secret is nothing that a header can carry.
    """
    found = {}
    for header, name in wanted.items():
        text = _not_empty(name, (await find_secret(name, env, base, managed)).rstrip(b"\r\n")).decode("latin-1")
        if not (text.isascii() and text.isprintable()):
            msg = f"the secret {name} cannot be sent as the header {header}: it contains line breaks, or characters that are not ASCII"
            raise DefinitionError(msg)
        found[header] = text
    return found


def local_secret(name: str, env: Mapping[str, str], base: Path) -> bytes:
    """The bytes that ``env:NAME`` or ``file:path`` refers to; of a file, without the line break at its end.

    Raises:
        DefinitionError: unset, unreadable or empty; the message never contains any part of the secret.
    """
    kind, _, where = name.partition(":")
    if kind == ENV:
        if where not in env:
            msg = f"the secret {name} is not set: there is no environment variable {where}"
            raise DefinitionError(msg)
        return _not_empty(name, env[where].encode("utf-8", "surrogateescape"))
    if kind == FILE:
        return _not_empty(name, _secret_file(name, base / where))
    msg = f"{name!r} does not refer to a secret; {FORMS}"
    raise DefinitionError(msg)


def _not_empty(name: str, value: bytes) -> bytes:
    if not value:
        msg = f"the secret {name} is empty"
        raise DefinitionError(msg)
    return value


def _field(name: str, value: bytes, field: str) -> bytes:
    try:
        found = json.loads(value)
    except ValueError:
        found = None
    if not isinstance(found, dict) or not isinstance(found.get(field), str):
        # The names of its other fields are not shown either: not everyone who can read the log may know the secret.
        msg = f"the secret {name} is not a JSON object with the text {field!r}; omit `#{field}` to use the whole secret"
        raise DefinitionError(msg)
    return str(found[field]).encode()


def _secret_file(name: str, path: Path) -> bytes:
    try:
        return path.read_bytes().removesuffix(b"\n").removesuffix(b"\r")
    except OSError as error:
        msg = f"the secret {name} cannot be read: {error.strerror}"
        raise DefinitionError(msg) from error
