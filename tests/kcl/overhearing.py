"""A relay in front of Kinesis that records which operations the Java client calls.

That client speaks HTTP/2, which tests/recording.py does not. Its encoder (Netty's) writes short header values as they are, so the
first call of each operation on a connection has its name in plain text; later calls refer to that.
"""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

_OPERATION = re.compile(rb"Kinesis_20131202\.([A-Za-z]+)")
_LONGEST = 64
"""Bytes that are searched again with the next part, since a name may be split."""


class Overheard:
    """``operations``: names of those that were called so far."""

    def __init__(self) -> None:
        self.operations: set[str] = set()

    def hear(self, data: bytes) -> None:
        self.operations |= {name.decode() for name in _OPERATION.findall(data)}


@contextmanager
def overhearing(target: str) -> Iterator[tuple[str, Overheard]]:
    """The URL of a relay in front of ``target``, and what it records, until the context ends; callers must have disconnected by then."""
    heard, parts = Overheard(), urlsplit(target)
    with socket.create_server(("127.0.0.1", 0)) as door:
        service = str(parts.hostname), int(parts.port or 0)
        thread = threading.Thread(target=_admit, args=(door, service, heard))
        thread.start()
        try:
            yield f"http://127.0.0.1:{door.getsockname()[1]}", heard
        finally:
            # Closing alone does not wake the thread that accepts.
            door.shutdown(socket.SHUT_RDWR)
            thread.join()


def _admit(door: socket.socket, service: tuple[str, int], heard: Overheard) -> None:
    talks: list[threading.Thread] = []
    with suppress(OSError):
        while True:
            caller, _ = door.accept()
            talks.append(threading.Thread(target=_talk, args=(caller, service, heard)))
            talks[-1].start()
    for each in talks:
        each.join()


def _talk(caller: socket.socket, service: tuple[str, int], heard: Overheard) -> None:
    with caller, socket.create_connection(service) as served:
        back = threading.Thread(target=_relay, args=(served, caller, lambda _: None))
        back.start()
        _relay(caller, served, heard.hear)
        back.join()


def _relay(source: socket.socket, sink: socket.socket, tell: Callable[[bytes], None]) -> None:
    """Pass on data until ``source`` ends or one of the two disconnects."""
    last = b""
    with suppress(OSError):
        while data := source.recv(65536):
            tell(last + data)
            last = data[-_LONGEST:]
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
