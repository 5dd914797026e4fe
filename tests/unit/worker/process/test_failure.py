import asyncio
import json

import pytest
from polars.exceptions import PanicException

from stream import events
from stream.clock import SystemClock
from stream.errors import Fatal, Halted
from stream.metrics.logs import JsonLog
from stream.worker.parts import to_all
from stream.worker.process.failure import reporting_failure


def said(error):
    """The log of a worker that has buffered lines and then ends with ``error``, and what was raised."""
    lines = []
    log = JsonLog(lambda line: lines.append(json.loads(line)), SystemClock())
    with pytest.raises(BaseException) as raised, reporting_failure("clicks", log, to_all(log)):  # noqa: PT011, PT012 - any must come through
        log(events.CallRepeated("clicks", "", "PutObject", "slow", 1.0))
        log(events.CallRepeated("clicks", "", "PutObject", "slower", 1.0))
        raise error
    return lines, raised.value


def test_the_last_line_gives_the_reason_after_the_held_back_lines():
    error = Fatal("no bucket")
    lines, raised = said(error)
    assert raised is error
    assert [(line["event"], line.get("detail"), line.get("reason")) for line in lines] == [
        ("call_repeated", "slow", None),
        ("call_repeated", "slower", None),
        ("worker_failed", None, "no bucket"),
    ]


def test_of_concurrent_errors_the_most_severe_is_reported_and_raised():
    fatal = Fatal("no bucket")
    group = ExceptionGroup("together", [Halted("one shard"), ExceptionGroup("within", [fatal])])
    lines, raised = said(group)
    assert (lines[-1]["reason"], raised, raised.__cause__) == ("no bucket", fatal, group)


def test_an_unexpected_error_is_reported_without_its_message():
    lines, _ = said(LookupError("value hushed of a record"))
    assert lines[-1]["reason"].startswith("unexpected LookupError; please report it with this trace: test_failure.py:")
    assert "hushed" not in str(lines)


@pytest.mark.parametrize("wrap", [lambda error: error, lambda error: BaseExceptionGroup("together", [Halted("one shard"), error])])
def test_a_panic_of_a_library_is_reported_though_it_is_no_exception(wrap):
    panic = PanicException("too many open files")
    lines, raised = said(wrap(panic))
    assert raised is panic
    assert (lines[-1]["event"], lines[-1]["reason"][:25]) == ("worker_failed", "unexpected PanicException")


@pytest.mark.parametrize("end", [asyncio.CancelledError(), KeyboardInterrupt(), SystemExit(0)])
def test_an_end_from_outside_is_no_failure(end):
    lines, raised = said(end)
    assert raised is end
    assert [line["event"] for line in lines] == ["call_repeated", "call_repeated"]
