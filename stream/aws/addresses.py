"""Connects to one of several addresses, some of which may be dead because of a lost zone or broken IPv6 (RFC 8305)."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from ipaddress import ip_address
from itertools import zip_longest
from typing import Any, Final, TypeAlias

HEAD_START: Final = 0.25
"""Seconds before the next address is tried as well: as RFC 8305 recommends, and many round trips within a region."""

Address: TypeAlias = tuple[int, int, int, str, Any]
"""As ``getaddrinfo`` gives them."""


async def reach(host: str, found: Sequence[Address]) -> socket.socket:
    """A connection to the address that answers first of those of ``host``. While one is silent, the next ones are tried, in their order.

    Raises:
        OSError: none can be reached.
    """
    loop = asyncio.get_running_loop()
    left = alternating(found)
    if len(left) == 1:
        return await _connected(left[0])
    trying: set[asyncio.Task[socket.socket]] = set()
    failed: list[BaseException] = []
    try:
        while left or trying:
            if left:
                trying.add(loop.create_task(_connected(left.pop(0))))
            done, _ = await asyncio.wait(trying, timeout=HEAD_START if left else None, return_when=asyncio.FIRST_COMPLETED)
            for each in done:
                trying.discard(each)
                if (error := each.exception()) is None:
                    return each.result()
                failed.append(error)
    finally:
        for each in trying:
            each.cancel()
            each.add_done_callback(_let_go)
    raise OSError("; ".join(dict.fromkeys(str(error) for error in failed)) or f"{host} has no address")


def literal_address(host: str, port: int) -> list[Address]:
    """The addresses of ``host`` if it is an address itself; empty if it is a name."""
    try:
        family = socket.AF_INET if ip_address(host).version == 4 else socket.AF_INET6
    except ValueError:
        return []
    return [(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port))]


def alternating(found: Sequence[Address]) -> list[Address]:
    """``found`` with alternating address families, beginning with the first, so that a dead family does not delay the other."""
    first = [each for each in found if each[0] == found[0][0]]
    others = [each for each in found if each[0] != found[0][0]]
    return [each for pair in zip_longest(first, others) for each in pair if each is not None]


async def _connected(address: Address) -> socket.socket:
    family, kind, protocol, _, where = address
    made = socket.socket(family, kind, protocol)
    try:
        made.setblocking(False)
        # Requests are small and wait for their responses, so they must not be delayed.
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(made, where)
    except BaseException:
        made.close()
        raise
    return made


def _let_go(attempt: asyncio.Task[socket.socket]) -> None:
    """Close the connection of an attempt that is no longer needed."""
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()
