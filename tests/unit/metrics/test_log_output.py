"""Lines into real pipes, of which the reader does not read, reads later, or has gone."""

import fcntl
import os
import threading
from contextlib import suppress

import pytest

from stream.metrics import log_output
from stream.metrics.log_output import LogOutput, standard_error
from tests.disks import KINDS, PAGE, disk

SMALL = 4096
"""The smallest size of a pipe."""


@pytest.fixture
def pipe():
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, SMALL)
    yield reader, writer
    for descriptor in (reader, writer):
        with suppress(OSError):
            os.close(descriptor)


def lines(count, size=100):
    return [f"{number:0{size - 1}d}\n".encode() for number in range(count)]


def read_all(reader, writer, output):
    """Everything that arrives until all that waits is written."""

    def close():
        with output:
            pass
        os.close(writer)

    closing = threading.Thread(target=close)
    closing.start()
    with os.fdopen(os.dup(reader), "rb") as file:
        found = file.readlines()
    closing.join()
    return found


def test_a_line_is_written_when_the_call_returns(pipe):
    reader, writer = pipe
    assert LogOutput(writer)(b"one\n")
    assert os.read(reader, 100) == b"one\n"


@pytest.mark.parametrize("size", [100, 3 * SMALL])
def test_while_nobody_reads_lines_wait_and_all_arrive_in_order(pipe, size):
    reader, writer = pipe
    output, given = LogOutput(writer), lines(100, size)
    assert all(output(line) for line in given)
    assert read_all(reader, writer, output) == given


@pytest.mark.parametrize("size", [100, 3 * SMALL])
def test_what_is_too_much_is_dropped_by_whole_lines(pipe, size):
    reader, writer = pipe
    output, given = LogOutput(writer, limit=10 * size), lines(200, size)
    kept = [line for line in given if output(line)]
    assert 10 <= len(kept) < 100
    assert read_all(reader, writer, output) == kept


def test_lines_are_written_at_once_again_after_the_reader_has_caught_up(pipe):
    reader, writer = pipe
    given = lines(100)
    with LogOutput(writer) as output:
        for line in given:
            output(line)
        found = b""
        while len(found) < sum(map(len, given)):
            found += os.read(reader, SMALL)
    output(b"next\n")
    assert os.read(reader, 100) == b"next\n"


def test_the_end_does_not_wait_for_a_reader_that_never_reads(pipe, monkeypatch):
    monkeypatch.setattr(log_output, "FINISH_SECONDS", 0.01)
    reader, writer = pipe
    given = lines(100)
    with LogOutput(writer) as output:
        for line in given:
            output(line)
    # The thread that writes them must not outlive the descriptor, whose number the next pipe may get.
    found = b""
    while len(found) < sum(map(len, given)):
        found += os.read(reader, SMALL)
    assert found == b"".join(given)


def test_a_reader_that_has_gone_is_told_to_whoever_writes(pipe):
    reader, writer = pipe
    os.close(reader)
    with pytest.raises(BrokenPipeError):
        LogOutput(writer)(b"one\n")


def test_standard_error_may_be_an_object_without_a_descriptor(capsys):
    standard_error()(b"one\n")
    assert capsys.readouterr().err == "one\n"


def test_standard_error_is_otherwise_written_through_its_descriptor(capfd):
    standard_error()(b"one\n")
    assert capfd.readouterr().err == "one\n"


@pytest.mark.parametrize("kind", KINDS)
def test_half_a_line_on_a_full_disk_spoils_no_other_line(kind, tmp_path):
    line = b'{"event":"%s"}\n' % (b"x" * (2 * PAGE))
    with disk(kind, tmp_path) as place, (tmp_path / "log").open("ab", buffering=0) as file:
        output = LogOutput(file.fileno())
        output(b'{"event":"first"}\n')
        with place.full(1):
            for _ in range(2):
                with pytest.raises(OSError, match=r"No space left|File too large"):
                    output(line)
        output(line)
        output(b'{"event":"last"}\n')
        found = (tmp_path / "log").read_bytes().splitlines(keepends=True)
    assert [found[0], *found[2:]] == [b'{"event":"first"}\n', line, b'{"event":"last"}\n']
    assert len(found[1]) > PAGE / 2
