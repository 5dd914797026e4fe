import json

import pytest

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
    with pytest.raises(Exception) as raised, reporting_failure("clicks", log, to_all(log)):  # noqa: PT011, PT012 - any must come through
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
    lines, _ = said(LookupError("value 4711 of a record"))
    assert lines[-1]["reason"].startswith("unexpected LookupError; please report it with this trace: test_failure.py:")
    assert "4711" not in str(lines)
