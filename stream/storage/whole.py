"""One file of this machine, written whole or not at all."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path``; if that fails, whatever was there is still there, and nothing else. Makes no folder.

    Raises:
        OSError: it cannot be written, on a full disk, say; it names ``path``.
    """
    place = path.resolve()
    temporary = place.with_name(f".{place.name}.part")
    try:
        temporary.write_bytes(content)
        temporary.replace(place)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise OSError(error.errno, error.strerror, str(path)) from error
