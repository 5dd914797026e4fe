"""Reports why a process ends, as the last line of its log."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from stream import events
from stream.contracts import Emit
from stream.errors import StreamError, most_severe, unforeseen
from stream.metrics.logs import JsonLog


@contextmanager
def reporting_failure(streams: str, log: JsonLog, emit: Emit) -> Iterator[None]:
    """At the end of the block, write what ``log`` holds back, and emit an error as the last event.

    Of several errors that ended tasks together, the decisive one is raised in their place.
    """
    try:
        yield
    except Exception as error:
        cause = most_severe(error) if isinstance(error, ExceptionGroup) else error
        log.flush()
        emit(events.WorkerFailed(streams, "", str(cause) if isinstance(cause, StreamError) else unforeseen(cause)))
        if cause is error:
            raise
        raise cause from error
    finally:
        log.flush()
