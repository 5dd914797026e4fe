"""Real commands that are asked by SIGUSR1 what they are waiting for, and go on."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stream.local.aws import LocalClients
from stream.local.start import LocalAws
from tests.standard_error import read_until

PIPELINE = """\
application: a
source:
  kinesis: {stream: s, region: us-east-1}
  decode: raw
sinks:
  - s3: {url: "file:./lake/"}
state: "file:./state/"
metrics: {port: 0}
coordination: COORDINATION
"""
STREAM = Path(sys.executable).parent / "stream"
PASSWORD = "the-password-of-the-account"  # noqa: S105 - must not be told


@pytest.fixture(scope="module")
def aws() -> Iterator[dict[str, str]]:
    with LocalAws() as local, LocalClients(local.environment()) as errands:
        errands.create_stream("s", 2)
        yield local.environment()


@contextmanager
def command(*arguments: object, **environment: str) -> Iterator[subprocess.Popen[str]]:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    env = {**os.environ, "AWS_SECRET_ACCESS_KEY": PASSWORD, **environment}
    with subprocess.Popen([STREAM, *map(str, arguments)], text=True, env=env, **pipes) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def silent_place() -> Iterator[str]:
    """The address of a service that takes connections, which wait in its queue for ever, and answers nothing."""
    with socket.create_server(("127.0.0.1", 0)) as service:
        yield "http://{}:{}".format(*service.getsockname())


def pipeline(folder: Path, coordination: str = "local") -> Path:
    file = folder / "pipeline.yaml"
    file.write_text(PIPELINE.replace("COORDINATION", coordination))
    return file


def answers(pid: int) -> bool:
    """Whether the watchdog is started: until then, the interpreter may still have to start, and the signal would end the process."""
    blocked = re.search(r"^SigBlk:\s*([0-9a-f]+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return bool(int(blocked.group(1), 16) >> (signal.SIGUSR1 - 1) & 1)


def ask_until(process: subprocess.Popen[str], pattern: str) -> str:
    """What the process says when it is asked again and again, until ``pattern`` is in one of the reports in text."""
    while not answers(process.pid):
        assert process.poll() is None, process.stderr.read()
    while True:
        process.send_signal(signal.SIGUSR1)
        reported = read_until(process, "What process") + read_until(process, "^$")
        if re.search(pattern, reported, re.MULTILINE):
            return reported


def test_a_worker_writes_its_tasks_and_threads_to_its_log_and_continues(tmp_path, aws):
    with command("run", pipeline(tmp_path), **aws | {"AWS_SECRET_ACCESS_KEY": PASSWORD}) as worker:
        read_until(worker, '"event":"shard_started".*shardId-000000000001')
        worker.send_signal(signal.SIGUSR1)
        reported = read_until(worker, '"event":"stack_taken".*"fetch s/shardId-000000000001"')
        worker.send_signal(signal.SIGTERM)
        reported += worker.stderr.read()
        assert worker.wait() == 0
    stacks = [json.loads(line) for line in reported.splitlines() if '"stack_taken"' in line]
    fetching = next(stack for stack in stacks if "fetch s/shardId-000000000001" in stack["names"])
    assert (fetching["kind"], fetching["level"]) == ("task", "info")
    assert any(re.fullmatch(r"stream/worker/shards/shard\.py:\d+ in .*fetch", frame) for frame in fetching["frames"])
    assert fetching["age"] >= 0
    names = {name for stack in stacks for name in stack["names"]}
    assert {"MainThread", "watch loop", "supervise s"} <= names
    assert "shard_released" in reported  # it was drained as usual
    assert PASSWORD not in reported
    assert "What process" not in reported


def test_a_worker_whose_log_leaves_the_lines_out_writes_text(tmp_path, aws):
    with command("run", pipeline(tmp_path), "--log-level", "error", **aws) as worker:
        reported = ask_until(worker, "^task .*fetch s/shardId-000000000001")
        assert "stack_taken" not in reported
        worker.send_signal(signal.SIGTERM)
        worker.stderr.read()
        assert worker.wait() == 0


def test_a_child_of_the_kcl_answers_although_it_ignores_signals_to_end(tmp_path, aws):
    with command("kcl", "run", pipeline(tmp_path, "kcl"), "--log-level", "error", **aws) as child:
        reported = ask_until(child, "in Daemon.receive")
        assert "the event loop runs" in reported
        child.stdin.close()
        child.stderr.read()
        assert child.wait() != -signal.SIGUSR1


def test_a_verification_that_gets_no_answer_says_which_one_it_waits_for(tmp_path, aws):
    with silent_place() as url, command("audit", "verify", pipeline(tmp_path), **aws | {"AWS_ENDPOINT_URL_KINESIS": url}) as verify:
        reported = ask_until(verify, "in KinesisClient.describe_stream_summary")
        assert re.search(r"^    stream/cli/audit\.py:\d+ in verify", reported, re.MULTILINE)


def test_local_aws_and_its_emulators_answer():
    with command("local", "--port", 0, "--moto-port", 0) as local:
        read_shown(local, "AWS_ENDPOINT_URL_KINESIS")
        assert "in local" in ask_until(local, "thread MainThread")
        local.send_signal(signal.SIGINT)
        local.stderr.read()
        assert local.wait() == 0


def read_shown(process: subprocess.Popen[str], pattern: str) -> None:
    for line in process.stdout:
        if re.search(pattern, line):
            return
    raise AssertionError(process.stderr.read())


def test_a_command_that_has_just_begun_is_not_ended_by_the_signal():
    """As PID 1 of a container it would miss the signal, and everywhere else it would end."""
    program = """
import atexit, os, signal, sys
from stream.cli import process
atexit.register(os.kill, os.getpid(), signal.SIGUSR1)  # no verb was carried out yet
sys.argv = ["stream", "--version"]
process.command()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0
    assert "most recent call first" in done.stderr
