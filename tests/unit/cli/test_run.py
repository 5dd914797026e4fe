"""Errors of ``stream run`` before it reads anything."""

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stream.cli.main import app
from tests.forked import Forked
from tests.standard_error import read_until

PIPELINE = """
application: a
source:
  kinesis: {stream: s, region: us-east-1, endpoint: "http://127.0.0.1:9"}
  schema: {id: int64}
sinks:
  - s3: {url: "file:./lake/"}
state: "file:./state/"
metrics: {host: 192.0.2.1, port: 1}
"""


@pytest.fixture
def taken():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_the_metrics_address_on_the_command_line_overrides_the_file(tmp_path, taken):
    file = tmp_path / "pipeline.yaml"
    file.write_text(PIPELINE)
    done = CliRunner().invoke(app, ["run", str(file), "--metrics-host", "127.0.0.1", "--metrics-port", str(taken)])
    assert done.exit_code == 1
    assert f"metrics cannot be served on 127.0.0.1:{taken}" in done.output


def test_a_metrics_port_alone_keeps_the_host_of_the_file(tmp_path, taken):
    file = tmp_path / "pipeline.yaml"
    file.write_text(PIPELINE.replace("192.0.2.1", "127.0.0.1"))
    done = CliRunner().invoke(app, ["run", str(file), "--metrics-port", str(taken)])
    assert done.exit_code == 1
    assert f"metrics cannot be served on 127.0.0.1:{taken}" in done.output


@pytest.mark.parametrize(("number", "options", "code"), [(signal.SIGTERM, [], 0), (signal.SIGINT, ["--once"], 1)])
def test_a_signal_ends_a_worker_that_still_waits_for_aws(tmp_path, number, options, code):
    file = tmp_path / "pipeline.yaml"
    file.write_text(PIPELINE.replace("192.0.2.1, port: 1", "127.0.0.1, port: 0"))
    env = {**os.environ, "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
    command = [sys.executable, "-m", "stream", "run", str(file), *options]
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as worker:
        try:
            waits = json.loads(read_until(worker, "^{").splitlines()[-1])
            worker.send_signal(number)
            worker.send_signal(number)  # as from a hand that does not wait
            _, rest = worker.communicate(timeout=120)
        finally:
            worker.kill()
    assert (waits["event"], waits["call"]) == ("call_repeated", "open source")
    assert "drain_started" in rest
    assert worker.returncode == code
    assert ('"event":"worker_failed"' in rest and '"reason":"a signal ended the run' in rest) is bool(code)


def failing_run(tmp_path, taken, stderr):
    """Its exit code."""
    file = tmp_path / "pipeline.yaml"
    file.write_text(PIPELINE.replace("192.0.2.1, port: 1", f"127.0.0.1, port: {taken}"))
    with Path(os.devnull).open("r+") as nothing:
        run = Forked(["run", str(file)], (nothing.fileno(), nothing.fileno(), stderr))
    try:
        return run.wait()
    finally:
        run.kill()


def test_every_log_line_is_json_and_the_last_one_gives_the_reason_of_the_failure(tmp_path, taken):
    with (tmp_path / "log").open("wb") as log:
        assert failing_run(tmp_path, taken, log.fileno()) == 1
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert (lines[-1]["level"], lines[-1]["event"], lines[-1]["stream"]) == ("error", "worker_failed", "s")
    assert lines[-1]["reason"].endswith("choose another metrics.port")


def read_all(terminal):
    """What was written to a terminal that nobody has open any more. Each read gives what has arrived there so far."""
    read = b""
    with suppress(OSError):
        while more := os.read(terminal, 65536):
            read += more
    return read


def test_on_a_terminal_the_reason_is_printed_in_words_too(tmp_path, taken):
    ours, theirs = os.openpty()
    assert failing_run(tmp_path, taken, theirs) == 1
    os.close(theirs)
    shown = read_all(ours).decode()
    os.close(ours)
    assert '"event":"worker_failed"' in shown.splitlines()[0]
    assert shown.splitlines()[1].startswith("error: metrics cannot be served on 127.0.0.1:")
