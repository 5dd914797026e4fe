"""TLS settings by the file of certificate authorities. To parse a usual file takes 20 ms, and a worker has a dozen connections to AWS."""

from __future__ import annotations

import functools
import ssl
from pathlib import Path
from typing import Final, TypeAlias

_Version: TypeAlias = tuple[int, ...] | None

_KEPT: Final = 8
"""Settings that are kept; more than two are needed only while files are replaced."""


def tls(file: str | None = None) -> ssl.SSLContext:
    """Settings that trust the authorities in ``file`` (PEM), or the system's; the same object until the file changes.

    Whoever gets it must not change it.

    Raises:
        OSError: the file cannot be read, or has no certificates.
    """
    return _parsed(file, _version(file or ssl.get_default_verify_paths().cafile))


@functools.lru_cache(_KEPT)
def _parsed(file: str | None, version: _Version) -> ssl.SSLContext:  # noqa: ARG001 - settings for another version are others
    return ssl.create_default_context(cafile=file)


def _version(file: str | None) -> _Version:
    """What is another once ``file`` is replaced or written anew; None if there is no such file."""
    if file is None:
        return None
    try:
        found = Path(file).stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
