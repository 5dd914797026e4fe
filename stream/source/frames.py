"""Messages between a worker and the process that reads objects for it: MessagePack after its length, four bytes."""

from __future__ import annotations

from typing import Any, BinaryIO, Final

import msgspec

_LENGTH: Final = 4


def send(to: BinaryIO, message: object) -> None:
    """Write ``message`` and flush it."""
    body = msgspec.msgpack.encode(message)
    to.write(len(body).to_bytes(_LENGTH, "little"))
    to.write(body)
    to.flush()


def receive(source: BinaryIO) -> Any:
    """The next message; None if the other process has ended."""
    length = source.read(_LENGTH)
    if len(length) < _LENGTH:
        return None
    size = int.from_bytes(length, "little")
    body = source.read(size)
    return msgspec.msgpack.decode(body) if len(body) == size else None
