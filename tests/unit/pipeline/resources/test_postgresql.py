import asyncio
import struct
import sys

import pytest

from stream.errors import DefinitionError, Retryable
from stream.pipeline.resources import postgresql
from stream.pipeline.resources.postgresql import explained, read_postgresql


def test_without_the_driver_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    with pytest.raises(DefinitionError, match=r"pip install 'kinesis-stream\[postgresql\]'"):
        asyncio.run(read_postgresql("postgresql://127.0.0.1/db#SELECT 1", None))


class ServerError(Exception):
    def __init__(self, sqlstate):
        super().__init__("words of the server")
        self.sqlstate = sqlstate


@pytest.mark.parametrize(
    ("state", "kind", "says"),
    [
        ("08006", Retryable, "was not ready"),
        ("53300", Retryable, "was not ready"),
        ("57P03", Retryable, "was not ready"),
        ("40001", Retryable, "was not ready"),
        ("57014", DefinitionError, "the query 'q' on the database p failed"),
        ("28P01", DefinitionError, "cannot be opened"),
        ("3D000", DefinitionError, "cannot be opened"),
        ("42703", DefinitionError, "the query 'q' on the database p failed"),
        (None, DefinitionError, "failed"),
    ],
)
def test_server_errors_are_classified_as_retryable_or_final(state, kind, says):
    """https://www.postgresql.org/docs/current/errcodes-appendix.html."""
    found = explained("p", "q", ServerError(state))
    assert type(found) is kind
    assert says in str(found)
    assert "words of the server" in str(found)


LOGGED_IN = (
    b"R" + struct.pack(">II", 8, 0) + b"S" + struct.pack(">I", 24) + b"server_version\x0015.0\x00" + b"Z" + struct.pack(">I", 5) + b"I"
)
"""A server's messages after a successful login: AuthenticationOk, ParameterStatus, ReadyForQuery."""


@pytest.mark.parametrize("greeting", [b"", LOGGED_IN], ids=["from the start", "behind the login"])
def test_a_silent_server_times_out(monkeypatch, greeting):
    monkeypatch.setattr(postgresql, "CONNECT_SECONDS", 0.2 if not greeting else 10.0)
    monkeypatch.setattr(postgresql, "WHOLE_SECONDS", 0.2)

    async def run():
        writers = []

        async def serve(reader, writer):
            writers.append(writer)
            writer.write(greeting)
            # What is asked is taken and never answered; who asks gives up in the end.
            while await reader.read(65536):
                pass

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        try:
            port = server.sockets[0].getsockname()[1]
            await read_postgresql(f"postgresql://127.0.0.1:{port}/db?sslmode=disable#SELECT 1", b"u:p")
        finally:
            server.close()
            for writer in writers:
                writer.close()
            await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)

    with pytest.raises(Retryable, match=r"the database postgresql://127\.0\.0\.1:.* cannot be reached: no answer in time"):
        asyncio.run(run())
