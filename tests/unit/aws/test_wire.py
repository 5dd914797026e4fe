"""HTTP of a bad server: in pieces, too short, too late, not at all."""

import asyncio
import ssl
import weakref
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from ipaddress import ip_address

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from stream.aws.wire import Timeouts, open_wire, parse
from stream.clock import SystemClock

HEADERS = {"host": "here", "x-amz-target": "T"}
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
CHUNKED = b"HTTP/1.1 400 Bad\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;ext=1\r\nde\r\n0\r\nTrailer: x\r\n\r\n"


@asynccontextmanager
async def server(*answers, keep_alive=20.0, tls=None):
    """Answers the n-th request with the n-th answer, on any connection; None closes it. ``seen`` holds connection and request."""
    seen, waiting, connections = [], list(answers), []

    async def serve(reader, writer):
        connections.append(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"content-length"))
                seen.append((len(connections), head, await reader.readexactly(length)))
                answer = waiting.pop(0)
                if answer is None:
                    break
                for part in answer if isinstance(answer, list) else [answer]:
                    writer.write(part)
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    running = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    url = f"http{'s' * (tls is not None)}://127.0.0.1:{running.sockets[0].getsockname()[1]}/path/"
    async with open_wire(url, Timeouts(connect=60.0, total=60.0, keep_alive=keep_alive)) as wire:
        yield wire, seen, connections
    running.close()
    for writer in connections:
        writer.close()
    await asyncio.gather(*(writer.wait_closed() for writer in connections), return_exceptions=True)
    await running.wait_closed()


@contextmanager
def in_a_hurry(wire):
    """What gets no answer is given up soon; all other calls have as much time as a busy machine may need."""
    patient, wire._timeouts = wire._timeouts, Timeouts(connect=60.0, total=60.0, read=0.3)
    try:
        yield
    finally:
        wire._timeouts = patient


def run(body):
    asyncio.run(asyncio.wait_for(body(), 120))


def test_consecutive_calls_use_one_connection_and_arrive_whole():
    async def body():
        async with server(OK, CHUNKED, OK) as (wire, seen, _):
            assert (await wire.post(HEADERS, b"one"))[:2] == (200, b"{}")
            assert (await wire.post(HEADERS, b""))[:2] == (400, b"abcde")
            assert (await wire.post(HEADERS, b"three"))[:2] == (200, b"{}")
        assert [(number, text) for number, _, text in seen] == [(1, b"one"), (1, b""), (1, b"three")]
        assert seen[0][1] == b"POST /path/ HTTP/1.1\r\nhost: here\r\nx-amz-target: T\r\ncontent-length: 3\r\n\r\n"

    run(body)


def test_after_a_call_without_an_answer_idle_connections_are_not_used():
    """A gateway that was replaced has lost all connections, and each of them would cost a whole timeout."""

    async def body():
        async with server(OK, OK, OK, [], OK) as (wire, _, connections):
            await asyncio.gather(*(wire.post(HEADERS, b"") for _ in range(3)))
            assert len(connections) == 3
            with pytest.raises(TimeoutError), in_a_hurry(wire):
                await wire.post(HEADERS, b"")
            assert (await wire.post(HEADERS, b""))[:2] == (200, b"{}")
            assert len(connections) == 4

    run(body)


def test_an_idle_connection_releases_the_memory_of_its_last_answer():
    async def body():
        long = b"x" * 2**20
        async with server(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(long), long)) as (wire, _, _):
            answer = await wire.post(HEADERS, b"")
            memory = weakref.ref(answer.body.obj)
            assert answer.body == long
            del answer
            await SystemClock().sleep(0.0)  # what has woken this task up lasts until it waits again
            assert memory() is None

    run(body)


def certified(folder):
    """The context of a server whose certificate, in the file ``c.pem``, is for 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "here")])
    now = SystemClock().now()
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(hours=1), now + timedelta(hours=1))
    made = made.add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
    own = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "c.pem").write_bytes(made.sign(key, SHA256()).public_bytes(Encoding.PEM))
    (folder / "k.pem").write_bytes(own)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "c.pem", folder / "k.pem")
    return context


@pytest.mark.parametrize("runner", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_answers_of_any_length_arrive_whole_over_tls(runner, tmp_path, monkeypatch):
    tls = certified(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "c.pem"))
    bodies = [bytes([number]) * size for number, size in enumerate((0, 2, 16_300, 16_384, 65_536, 65_537, 1_000_000, 6_000_000, 3))]

    async def body():
        answers = [b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(each), each) for each in bodies]
        async with server(*answers, CHUNKED, tls=tls) as (wire, seen, _):
            for each in bodies:
                assert (await wire.post(HEADERS, b"x")).body == each
            assert (await wire.post(HEADERS, b"x"))[:2] == (400, b"abcde")
            assert {number for number, *_ in seen} == {1}

    runner(asyncio.wait_for(body(), 120))


def test_concurrent_calls_get_their_own_answers():
    async def body():
        answers = [b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" for _ in range(20)]
        async with server(*answers) as (wire, seen, connections):
            await asyncio.gather(*(wire.post(HEADERS, str(at).encode()) for at in range(20)))
            assert sorted(int(text) for *_, text in seen) == list(range(20))
            assert len(connections) == 20

    run(body)


@pytest.mark.parametrize(
    "answer",
    [None, OK[:-1], [OK[:20], b""], b"SMTP ready\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n{}", b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"],
    ids=["closed", "short", "half a head", "no HTTP", "no length", "odd length"],
)
def test_a_malformed_answer_is_an_error_and_its_connection_is_not_used_again(answer):
    async def body():
        async with server(answer, OK) as (wire, seen, _):
            with pytest.raises((OSError, TimeoutError)), in_a_hurry(wire):
                await wire.post(HEADERS, b"first")
            assert (await wire.post(HEADERS, b"second"))[:2] == (200, b"{}")
        assert [number for number, *_ in seen] == [1, 2]

    run(body)


def test_a_late_answer_is_not_taken_for_the_next_one():
    async def body():
        late = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate"
        async with server([], OK) as (wire, _, connections):
            with pytest.raises(TimeoutError), in_a_hurry(wire):
                await wire.post(HEADERS, b"first")
            connections[0].write(late)
            assert (await wire.post(HEADERS, b"second"))[:2] == (200, b"{}")
            assert len(connections) == 2

    run(body)


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nConnection: close\r\n", b"HTTP/1.0 200 OK\r\n"])
def test_a_connection_the_server_closes_is_not_used_again(head):
    async def body():
        async with server(head + b"Content-Length: 2\r\n\r\n{}", OK) as (wire, seen, _):
            assert (await wire.post(HEADERS, b""))[:2] == (200, b"{}")
            assert (await wire.post(HEADERS, b""))[:2] == (200, b"{}")
        assert [number for number, *_ in seen] == [1, 2]

    run(body)


@pytest.mark.parametrize("runner", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_an_answer_without_a_length_ends_with_its_connection(runner):
    async def body():
        large = bytes(range(256)) * 1024
        async with server([b"HTTP/1.1 500 Bad\r\n\r\n", large[:7], large[7:], b""], OK) as (wire, seen, connections):
            asked = asyncio.ensure_future(wire.post(HEADERS, b""))
            while not seen:
                await SystemClock().sleep(0.0)
            assert not asked.done()
            connections[0].close()
            assert (await asked)[:2] == (500, large)
            assert (await wire.post(HEADERS, b""))[:2] == (200, b"{}")
        assert [number for number, *_ in seen] == [1, 2]

    runner(asyncio.wait_for(body(), 120))


def test_an_answer_that_has_no_body_needs_no_length():
    async def body():
        async with server(b"HTTP/1.1 204 No Content\r\n\r\n", OK) as (wire, seen, _):
            assert (await wire.post(HEADERS, b""))[:2] == (204, b"")
            assert (await wire.post(HEADERS, b""))[:2] == (200, b"{}")
        assert [number for number, *_ in seen] == [1, 1]

    run(body)


@pytest.mark.parametrize("runner", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("size", [65_536, 65_537, 6_000_000])
def test_a_long_request_arrives_whole_at_its_own_path(runner, size):
    async def body():
        sent = memoryview(bytes(range(256)) * (size // 256) + bytes(size % 256))
        async with server(OK, OK) as (wire, seen, _):
            for text in (sent, b"next"):
                assert (await wire.post(HEADERS, text, "v1/traces"))[:2] == (200, b"{}")
        assert [text for *_, text in seen] == [sent, b"next"]
        assert seen[0][1].startswith(b"POST /path/v1/traces HTTP/1.1\r\n")

    runner(asyncio.wait_for(body(), 120))


def test_a_long_answer_in_pieces_arrives_whole_with_its_headers():
    async def body():
        large = bytes(range(256)) * 4096
        head = b"HTTP/1.1 500 Bad\r\nX-Amzn-ErrorType: Broken\r\nContent-Length: %d\r\n\r\n" % len(large)
        async with server([head, *(large[at : at + 100_000] for at in range(0, len(large), 100_000))]) as (wire, *_):
            answer = await wire.post(HEADERS, b"")
        assert answer.status == 500
        assert answer.body == large
        assert answer.headers[b"x-amzn-errortype"] == b"Broken"

    run(body)


def test_an_endless_chunked_answer_is_given_up(monkeypatch):
    monkeypatch.setattr("stream.aws.wire.MAX_BYTES", 100_000)
    monkeypatch.setattr("stream.aws.wire._HEAD_BYTES", 1_000)
    chunk = b"1000\r\n" + b"x" * 4096 + b"\r\n"

    async def body():
        async with server([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", *[chunk] * 100]) as (wire, _, _):
            with pytest.raises(OSError, match="more than 100000 bytes"):
                await wire.post(HEADERS, b"")

    run(body)


def test_silence_ends_a_call_before_its_total_time_is_over():
    async def body():
        async with server([OK[:-1], b""], OK) as (wire, _, connections):
            with pytest.raises(TimeoutError, match=r"not a byte for 0\.3 s"), in_a_hurry(wire):
                await wire.post(HEADERS, b"")
            # An endpoint that does not answer would otherwise cost a descriptor with each call.
            await asyncio.wait_for(asyncio.gather(connections[0].wait_closed(), return_exceptions=True), 120)

    run(body)


def test_a_connection_closed_while_idle_is_not_used_again():
    async def body():
        async with server(OK, OK) as (wire, seen, connections):
            await wire.post(HEADERS, b"")
            connections[0].close()
            await connections[0].wait_closed()
            while wire._idle[0].usable:  # noqa: ASYNC110 - nothing else says when the client has been told
                await asyncio.sleep(0)  # noqa: TID251 - the loop tells it, once the system has told the loop
            assert (await wire.post(HEADERS, b""))[:2] == (200, b"{}")
        assert [number for number, *_ in seen] == [1, 2]

    run(body)


def test_surplus_idle_connections_are_closed():
    async def body():
        async with server(OK, OK, OK, OK, keep_alive=0.02) as (wire, seen, connections):
            await asyncio.gather(wire.post(HEADERS, b"a"), wire.post(HEADERS, b"b"))
            assert len(connections) == 2
            old = asyncio.Event()
            asyncio.get_running_loop().call_later(0.05, old.set)
            await old.wait()
            await wire.post(HEADERS, b"c")
            await asyncio.wait([asyncio.ensure_future(writer.wait_closed()) for writer in connections[:2]])
            assert all(writer.is_closing() for writer in connections[:2])
            assert [number for number, *_ in seen][2] == 3

    run(body)


def test_an_unreachable_server_is_a_connection_error():
    async def body():
        async with open_wire("http://127.0.0.1:1/", Timeouts(connect=1.0, total=2.0)) as wire:
            with pytest.raises(OSError, match="Connect"):
                await wire.post(HEADERS, b"")

    run(body)


@pytest.mark.parametrize("whole", [OK, CHUNKED, b"HTTP/1.1 100 Continue\r\n\r\n" + OK], ids=["length", "chunks", "continue first"])
@given(st.data())
def test_an_answer_is_complete_when_all_of_it_has_arrived_in_whatever_pieces(whole, data):
    came, at = bytearray(), 0
    while at < len(whole):
        missing = parse(came, len(came))
        assert 1 <= missing <= len(whole) - at
        step = data.draw(st.integers(1, len(whole) - at))
        came += whole[at : at + step]
        at += step
    (status, body, _), keep = parse(came, len(came))
    assert (status, body) == ((400, b"abcde") if whole is CHUNKED else (200, b"{}"))
    assert keep


@given(st.binary(max_size=200))
def test_any_bytes_are_an_answer_an_error_or_incomplete(noise):
    for head in (b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"):
        try:
            parse(bytearray(head + noise), len(head + noise))
        except ValueError:
            continue
