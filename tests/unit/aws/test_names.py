"""Addresses of hosts while DNS answers, refuses, or is silent."""

from __future__ import annotations

import asyncio
import socket
import threading

import pytest

from stream.aws import names
from stream.aws.names import Name
from tests.unit.aws.test_addresses import address

HERE, THERE = address("10.0.0.1", 443), address("10.0.0.2", 443)
GONE = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")


class Dns:
    """What the name server answers to each look-up, in order; an answer of None never comes, until ``end`` is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: object) -> None:
        self._answers = list(answers)
        self.end = threading.Event()
        monkeypatch.setattr(socket, "getaddrinfo", self)

    def __call__(self, host: str, port: int, **_: object) -> object:
        answer = self._answers.pop(0)
        if answer is None:
            self.end.wait()
            raise GONE
        if isinstance(answer, OSError):
            raise answer
        return answer


def test_the_addresses_are_those_of_the_last_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "PATIENCE_SECONDS", 60.0)
    Dns(monkeypatch, [HERE], [THERE], GONE, [HERE])

    async def test() -> list[object]:
        name = Name("kinesis.example", 443)
        return [await name.addresses() for _ in range(4)]

    assert asyncio.run(test()) == [[HERE], [THERE], [THERE], [HERE]]


def test_while_dns_is_silent_the_last_addresses_are_used_and_it_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "PATIENCE_SECONDS", 0.01)
    dns = Dns(monkeypatch, None)

    async def test() -> None:
        name = Name("kinesis.example", 443)
        name._last = [HERE]
        assert [await name.addresses() for _ in range(3)] == [[HERE]] * 3
        name.close()

    try:
        asyncio.run(asyncio.wait_for(test(), 60))
    finally:
        dns.end.set()


def test_a_name_that_never_had_an_address_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    Dns(monkeypatch, GONE)
    with pytest.raises(socket.gaierror, match="Temporary failure"):
        asyncio.run(Name("kinesis.example", 443).addresses())


def test_a_caller_that_gives_up_does_not_end_the_look_up_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    dns = Dns(monkeypatch, None)

    async def test() -> None:
        name = Name("kinesis.example", 443)
        first, second = (asyncio.ensure_future(name.addresses()) for _ in range(2))
        await asyncio.wait((first, second), timeout=0.01)
        first.cancel()
        await asyncio.wait((first,))
        dns.end.set()
        with pytest.raises(socket.gaierror):
            await second

    asyncio.run(asyncio.wait_for(test(), 60))


def test_an_address_is_not_looked_up() -> None:
    assert asyncio.run(Name("127.0.0.1", 5).addresses()) == [address("127.0.0.1", 5)]
