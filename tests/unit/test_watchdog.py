"""Real processes that stand still in different ways, and a real signal."""

import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.standard_error import read_until

BEGIN = """\
import asyncio, ctypes, os, sys
from stream import watchdog

HELD = "the-password-of-the-warehouse"

def ready():
    os.write(1, b"ready\\n")

def asked_to_end():
    return sys.stdin.readline()

async def wait(event):
    password = HELD
    await event.wait()

async def main():
    async with asyncio.TaskGroup() as group:
        event = asyncio.Event()
        waiting = [group.create_task(wait(event), name=f"fetch s/shard-{number}") for number in range(2)]
        await stand()
        event.set()

"""
END = """
watchdog.WATCHDOG.start()
watchdog.run(main())
os.write(1, b"done\\n")
"""

WAITS = """
async def stand():
    # Its turn comes after the other tasks have begun to wait.
    asyncio.get_running_loop().call_soon(ready)
    await asyncio.to_thread(asked_to_end)
"""
BLOCKS = """
async def stand():
    await asyncio.to_thread(int)
    ready()
    asked_to_end()
"""
BLOCKS_IN_C = """
async def stand():
    await asyncio.to_thread(int)
    ready()
    libc = ctypes.CDLL(None)
    while libc.read(0, ctypes.create_string_buffer(1), 1) < 0:
        pass
"""
COMPUTES_WITH_THE_LOCK = """
async def stand():
    import re
    await asyncio.to_thread(int)
    ready()
    re.match("(a+)+$", "a" * 99 + "b")
"""
WAITS_WITH_THE_LOCK = """
async def stand():
    await asyncio.to_thread(int)
    ready()
    ctypes.PyDLL(None).read(0, ctypes.create_string_buffer(1), 1)
"""
RUNS = """
async def stand():
    await asyncio.to_thread(int)
    ready()
    os.set_blocking(0, False)
    def deep(depth):
        return deep(depth - 1) + 1 if depth else 0
    while not sys.stdin.read(1):
        deep(50)
"""
SOON = "watchdog.BLOCKED_SECONDS = 1.5\n"
SOON_HOGGED = "watchdog.HOGGED_SECONDS = 0.2\nwatchdog._TICK = watchdog._LATE = 0.02\n"


@contextmanager
def process(*parts: str) -> Iterator[subprocess.Popen[str]]:
    """A process that has reached the place where it stands still, until a line is written to its standard input."""
    program = textwrap.dedent("".join((BEGIN, *parts, END)))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", program], text=True, **pipes) as child:
        try:
            assert child.stdout.readline() == "ready\n", child.stderr.read()
            yield child
        finally:
            child.kill()


def report(child: subprocess.Popen[str]) -> str:
    """The next report: it ends in an empty line, and begins with a sentence."""
    return read_until(child, "What process") + read_until(child, "^$")


def for_a_while(seconds: float) -> None:
    """Wait, for a process that is stopped and cannot be asked."""
    subprocess.run([sys.executable, "-c", f"import select; select.select([], [], [], {seconds})"], check=True)


def end(child: subprocess.Popen[str]) -> None:
    """Let the process go on; it must come to its end."""
    child.stdin.write("go\n")
    child.stdin.flush()
    assert child.stdout.readline() == "done\n", child.stderr.read()
    assert child.wait() == 0


@pytest.mark.parametrize(
    ("stand", "loop", "where"),
    [
        (WAITS, "the event loop runs", "asyncio/threads.py"),
        (BLOCKS, "the event loop has not run for", "asked_to_end"),
        (BLOCKS_IN_C, "the event loop has not run for", "in stand"),
    ],
    ids=["waits", "blocks", "blocks in C"],
)
def test_a_process_reports_what_its_tasks_and_threads_do_and_continues(stand, loop, where):
    with process(stand) as child:
        for _ in range(2):
            child.send_signal(signal.SIGUSR1)
            reported = report(child)
        assert f"What process {child.pid} is doing (SIGUSR1; {loop}" in reported
        assert re.search(
            r"^task fetch s/shard-0, fetch s/shard-1, age [\d.]+ s, has not moved for [\d.]+ s or longer$", reported, re.MULTILINE
        )
        assert re.search(
            r"^    <string>:\d+ in wait\n    asyncio/locks.py:\d+ in Event.wait\n    waits for a future$", reported, re.MULTILINE
        )
        assert "thread MainThread" in reported
        assert where in reported
        assert "the-password-of-the-warehouse" not in reported
        end(child)


def test_each_of_a_hundred_signals_is_answered_and_none_does_harm_to_a_thread_that_runs():
    with process("watchdog._ANSWER_SECONDS = 0.01\nwatchdog._TICK = 0.002\n", RUNS) as child:
        for _ in range(100):
            child.send_signal(signal.SIGUSR1)
            assert "in stand" in report(child)
        end(child)


@pytest.mark.parametrize("stand", [BLOCKS, BLOCKS_IN_C], ids=["blocks", "in C"])
def test_a_blocked_event_loop_is_reported_unasked(stand):
    with process(SOON, stand) as child:
        told = read_until(child, "What process") + read_until(child, " in stand")
        assert "SIGUSR1" not in told
        assert re.search(r"\(watchdog; the event loop has not run for \d", told)
        end(child)


def test_a_thread_that_computes_and_keeps_the_lock_is_reported_unasked():
    with process(SOON_HOGGED, COMPUTES_WITH_THE_LOCK) as child:
        assert "Current thread" in read_until(child, " in stand")


def test_a_thread_that_waits_and_keeps_the_lock_is_reported_when_the_process_is_aborted():
    with process(WAITS_WITH_THE_LOCK) as child:
        child.send_signal(signal.SIGABRT)
        assert "Fatal Python error: Aborted" in read_until(child, " in stand")
        assert child.wait() == -signal.SIGABRT


def test_a_process_that_was_frozen_while_its_threads_ran_continues_unharmed():
    """To write the stacks of threads that run crashed one of ten such processes."""
    with process(SOON_HOGGED, "watchdog._ANSWER_SECONDS = 0.01\n", RUNS) as child:
        for _ in range(20):
            child.send_signal(signal.SIGSTOP)
            os.waitpid(child.pid, os.WUNTRACED)
            for_a_while(0.5)
            child.send_signal(signal.SIGCONT)
            child.send_signal(signal.SIGUSR1)
            assert "File " not in report(child)
        end(child)
        assert "File " not in child.stderr.read()


def test_the_program_that_replaces_the_process_is_not_ended_by_the_timer_of_this_one():
    replaced = """
async def stand():
    ready()
    sys.stdin.readline()
    watchdog.WATCHDOG.stop_timer()
    os.execv(sys.executable, [sys.executable, "-c", "while __import__('time').process_time() < 0.7: pass\\nprint('done')"])
"""
    with process(SOON_HOGGED, replaced) as child:
        end(child)


def test_a_blocked_event_loop_is_reported_once_not_every_second():
    with process(SOON, "watchdog._TICK = 0.1\n", BLOCKS) as child:
        report(child)
        child.send_signal(signal.SIGUSR1)
        assert "(SIGUSR1;" in report(child)
        end(child)
        assert "watchdog;" not in child.stderr.read()


def test_an_event_loop_that_runs_is_left_alone():
    with process("watchdog.BLOCKED_SECONDS = 0.5\nwatchdog._TICK = 0.05\n", WAITS) as child:
        child.send_signal(signal.SIGUSR1)
        first = report(child)
        end(child)
        assert "watchdog;" not in first + child.stderr.read()


def test_a_process_that_was_suspended_does_not_blame_its_event_loop():
    """As a virtual machine that was paused."""
    with process("watchdog.BLOCKED_SECONDS = 0.5\nwatchdog._TICK = 0.05\nwatchdog._LATE = 0.2\n", WAITS) as child:
        child.send_signal(signal.SIGSTOP)
        os.waitpid(child.pid, os.WUNTRACED)
        for_a_while(1.0)  # long enough for the loop to count as blocked
        child.send_signal(signal.SIGCONT)
        child.send_signal(signal.SIGUSR1)
        reported = report(child)
        end(child)
        assert "watchdog;" not in reported + child.stderr.read()


def test_a_listener_that_writes_reports_takes_them_from_standard_error():
    listener = """
async def stand():
    with watchdog.WATCHDOG.telling(lambda report: os.write(1, b"heard %d\\n" % len(report.stacks)) > 0):
        ready()
        await asyncio.to_thread(asked_to_end)
"""
    with process(listener) as child:
        child.send_signal(signal.SIGUSR1)
        assert re.fullmatch(r"heard \d+\n", child.stdout.readline())
        end(child)
        assert "What process" not in child.stderr.read()
