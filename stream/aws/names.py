"""The addresses of a host, also while its name server does not answer."""

from __future__ import annotations

import asyncio
import socket
import threading
from concurrent.futures import Future
from functools import partial
from typing import Final

from stream.aws.addresses import Address, literal_address

PATIENCE_SECONDS: Final = 1.0
"""Seconds for which DNS is waited for where the addresses that it gave last are known. It answers in milliseconds, or is in trouble."""


class Name:
    """The addresses of ``host``. While DNS gives none, they are those that it gave last: TLS proves who answers there.

    A pod whose DNS is gone for a minute would lose its leases otherwise, since their renewals need new connections now and then. At most
    one look-up goes on at a time, in a thread of its own, because the C library may take minutes to give up, and nobody waits for it.
    """

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._last: list[Address] = []
        self._looking: asyncio.Future[list[Address]] | None = None

    async def addresses(self) -> list[Address]:
        """All of them, in the order of DNS.

        Raises:
            OSError: DNS has none, and never had.
        """
        if literal := literal_address(self._host, self._port):
            return literal
        if self._looking is None or self._looking.done():
            self._looking = self._looked_up()
        try:
            async with asyncio.timeout(PATIENCE_SECONDS if self._last else None):
                self._last = await asyncio.shield(self._looking)
        except OSError:  # TimeoutError is one
            if not self._last:
                raise
        return list(self._last)

    def close(self) -> None:
        """Wait for nothing any more."""
        if self._looking is not None:
            self._looking.cancel()

    def _looked_up(self) -> asyncio.Future[list[Address]]:
        answer: Future[list[Address]] = Future()
        answer.set_running_or_notify_cancel()
        threading.Thread(target=partial(self._look_up, answer), name="look up a name", daemon=True).start()
        waiting = asyncio.wrap_future(answer)
        waiting.add_done_callback(_seen)
        return waiting

    def _look_up(self, answer: Future[list[Address]]) -> None:
        try:
            answer.set_result(list(socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)))
        except Exception as error:  # noqa: BLE001 - whoever waits for it gets it
            answer.set_exception(error)


def _seen(looked: asyncio.Future[list[Address]]) -> None:
    """Take note of the error of a look-up for which nobody waits any more."""
    if not looked.cancelled():
        looked.exception()
