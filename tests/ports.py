"""Ports for servers that have to be told where to listen before they start."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_COUNT = 8_000
"""Ports to choose from, right below those that the system gives, unless these begin so low that there is no room."""


@contextmanager
def free_port() -> Iterator[int]:
    """A port of 127.0.0.1 on which nobody listens, and which no other test is given until the context ends.

    It is none of those that the system gives to whoever asks for any port, for each connection does: between the moment when such a port
    is found and the moment when the server listens there, it may be gone.
    """
    given_by_the_system = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    first = max(given_by_the_system - _COUNT, 10_000)
    for step in range(_COUNT):
        port = first + (os.getpid() * 97 + step) % _COUNT
        with socket.socket(socket.AF_UNIX) as claim:
            if _is_bound(claim, f"\0stream-test-port-{port}"):
                with socket.socket() as probe:
                    free = _is_bound(probe, ("127.0.0.1", port))
                if free:
                    yield port
                    return
    raise AssertionError("no port is free")


def _is_bound(one: socket.socket, place: str | tuple[str, int]) -> bool:
    try:
        one.bind(place)
    except OSError:
        return False
    return True
