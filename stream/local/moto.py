"""S3, DynamoDB, Glue, SNS, SQS and STS on this machine: the moto server in a process of its own, on loopback.

``python -m stream.local.moto`` is that process. Its state is in memory and lost when it ends. Unlike AWS, it does not throttle, refuse
wrong checksums, or return stale reads. Like AWS, it carries out a conditional write in one step.
"""

from __future__ import annotations

import argparse
import io
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import orjson

from stream.local.process import Helper, helper
from stream.watchdog import WATCHDOG


@contextmanager
def moto(port: int = 0, *, log: Path | None = None) -> Iterator[Helper]:
    """Run the moto server until the context ends; port 0 picks a free one. It is ready when the context begins.

    Raises:
        Fatal: it did not start, for instance because the port is taken or moto is not installed.
    """
    with helper("stream.local.moto", ["--port", str(port)], log=log) as process:
        yield process


class OneAtATime:
    """The WSGI application of moto, which carries out one request at a time.

    moto looks whether the condition of a write holds, and then writes. Between the two, another thread could write too: both of two workers
    that create the same object would be told that they have. Nobody waits for a client that is slow to send its request, nor for a
    request to SQS, which may wait for messages.
    """

    def __init__(self, application: Callable[[dict[str, Any], Any], Iterable[bytes]]) -> None:
        self._application = application
        self._lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Read the whole request, wait for its turn, and answer it."""
        length = environ.get("CONTENT_LENGTH") or (-1 if environ.get("wsgi.input_terminated") else 0)
        environ["wsgi.input"] = io.BytesIO(environ["wsgi.input"].read(int(length)))
        if "/sqs/" in environ.get("HTTP_AUTHORIZATION", ""):
            return self._application(environ, start_response)
        with self._lock:
            return self._application(environ, start_response)


def main() -> None:
    """Serve until SIGTERM, SIGINT, or, with ``--tied``, until standard input closes."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
    from werkzeug.serving import make_server

    parser = argparse.ArgumentParser(prog="python -m stream.local.moto", description="S3, DynamoDB, Glue, SNS, SQS and STS on this machine")
    parser.add_argument("--port", type=int, default=0, help="0 picks a free one")
    parser.add_argument("--tied", action="store_true", help="end when standard input closes")
    arguments = parser.parse_args()
    WATCHDOG.start()
    done = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        done.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    # Not moto's own server class, which waits forever if its port is taken.
    application = OneAtATime(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", arguments.port, application, threaded=True, request_handler=MotoRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdout.buffer.write(orjson.dumps({"url": f"http://127.0.0.1:{server.port}"}) + b"\n")
    sys.stdout.buffer.flush()
    if arguments.tied:
        threading.Thread(target=_wait_for_end_of_input, args=[done], daemon=True).start()
    done.wait()


def _wait_for_end_of_input(done: threading.Event) -> None:
    sys.stdin.buffer.read()
    done.set()


if __name__ == "__main__":
    main()
