"""The last words of a process that cannot go on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from stream import events
from stream.contracts import Emit
from stream.errors import StreamError, unforeseen
from stream.metrics.logs import JsonLog
from stream.worker.parts import weightiest


@contextmanager
def last_words(streams: str, log: JsonLog, emit: Emit) -> Iterator[None]:
    """See the block to its end: what ``log`` holds back is written, and an error is the last event of ``emit``.

    Of errors that end tasks together, the one that decides is raised in their place.
    """
    try:
        yield
    except Exception as error:
        cause = weightiest(error) if isinstance(error, ExceptionGroup) else error
        log.flush()
        emit(events.WorkerFailed(streams, "", str(cause) if isinstance(cause, StreamError) else unforeseen(cause)))
        if cause is error:
            raise
        raise cause from error
    finally:
        log.flush()
