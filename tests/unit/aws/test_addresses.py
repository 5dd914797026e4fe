"""Hosts with several addresses, of which some are dead: a listener whose queue is full answers no further SYN, as a lost host does."""

import asyncio
import socket
from contextlib import ExitStack

import pytest

from stream.aws import addresses
from stream.aws.addresses import alternating, literal_address, reach
from stream.aws.wire import Timeouts, open_wire

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


def address(host, port, family=socket.AF_INET):
    return family, socket.SOCK_STREAM, 6, "", (host, port)


@pytest.fixture
def dead():
    """An address that never answers."""
    with ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        stack.enter_context(socket.create_connection(listening.getsockname()))
        yield address(*listening.getsockname())


@pytest.fixture
def refusing():
    """An address that refuses connections."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield address(*bound.getsockname())


@pytest.fixture
def names(monkeypatch):
    """The addresses that DNS returns for each name."""
    known = {}
    genuine = socket.getaddrinfo

    def resolve(host, *given, **more):
        return known.get(host) or genuine(host, *given, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return known


async def alive(body):
    """What ``body`` gives, with the address of a server that answers ``OK`` to all."""

    writers = []

    async def serve(reader, writer):
        writers.append(writer)
        while await reader.read(65536):
            writer.write(OK)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        return await body(address(*server.sockets[0].getsockname()))
    finally:
        server.close()
        for writer in writers:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)
        await server.wait_closed()


def test_a_dead_address_of_a_host_does_not_prevent_calls_to_the_others(names, dead, refusing):
    async def body(living):
        names["kinesis.example"] = [dead, refusing, living]
        async with open_wire("http://kinesis.example/", Timeouts(connect=10.0, total=20.0)) as wire:
            return await wire.post({"host": "kinesis.example"}, b"")

    assert asyncio.run(alive(body))[:2] == (200, b"{}")


def test_a_refused_connection_is_not_waited_for(refusing, monkeypatch):
    monkeypatch.setattr(addresses, "HEAD_START", 3600.0)

    async def body(living):
        (await reach("kinesis.example", [refusing] * 20 + [living])).close()

    asyncio.run(asyncio.wait_for(alive(body), 120))


def test_if_no_address_answers_the_error_is_reported_once(refusing):
    with pytest.raises(OSError, match=r"^[^;]*[Cc]onnect[^;]*$"):
        asyncio.run(reach("kinesis.example", [refusing, refusing]))


def test_pending_attempts_are_cancelled_with_the_call(dead):
    async def body():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.4):
                await reach("kinesis.example", [dead, dead])
        # Nothing is left but this test.
        while len(asyncio.all_tasks()) > 1:
            await asyncio.wait(asyncio.all_tasks() - {asyncio.current_task()})

    asyncio.run(body())


def test_a_numeric_address_is_not_resolved():
    assert literal_address("127.0.0.1", 5) == [address("127.0.0.1", 5)]
    assert literal_address("::1", 5) == [address("::1", 5, socket.AF_INET6)]
    assert literal_address("localhost", 5) == []


def test_address_families_alternate():
    six, four = [address(f"::{n}", 1, socket.AF_INET6) for n in range(3)], [address(f"127.0.0.{n}", 1) for n in range(2)]
    assert alternating([*six, *four]) == [six[0], four[0], six[1], four[1], six[2]]
    assert alternating([]) == []
