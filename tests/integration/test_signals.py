"""A signal that comes before a worker has started."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from contextlib import AsyncExitStack

import pytest

from stream.aws.session import AwsSession
from stream.clock import SystemClock
from stream.local.aws import LocalClients
from stream.local.start import LocalAws
from stream.operations.changes.leases import list_leases
from stream.pipeline.checks.lint import check
from stream.worker.coordination.leasing import open_leases
from tests.forked import PATIENCE
from tests.standard_error import without_loading

PIPELINE = """\
application: a
source:
  kinesis: {stream: s, region: us-east-1}
  decode: raw
sinks:
  - s3: {url: "file:./lake/"}
state: "file:./state/"
metrics: {port: 0}
coordination: native
"""


def test_leases_taken_before_a_cancelled_start_are_released_at_once(tmp_path, monkeypatch):
    file = tmp_path / "pipeline.yaml"
    file.write_text(PIPELINE)
    with LocalAws() as local, LocalClients(local.environment()) as clients:
        clients.create_stream("s", 3)
        for name, value in local.environment().items():
            monkeypatch.setenv(name, value)
        pipeline = check(file, os.environ).pipeline

        async def begun():
            async with AsyncExitStack() as stack:
                native, clock = pipeline.coordination.native, SystemClock()
                leases = await open_leases(pipeline, native, AwsSession(), "me", clock, lambda _event: None, stack)
                held = leases.held("s")
            return held, await list_leases(pipeline, lag=False)

        held, after = asyncio.run(begun())
    assert len(held) == 3
    assert [lease.owner for lease in after] == [None] * 3


@pytest.mark.parametrize(("first", "code"), [(True, 128 + signal.SIGTERM), (False, -signal.SIGTERM)])
def test_as_pid_1_the_process_obeys_a_signal_that_arrives_during_imports(first, code):
    """The kernel does not deliver signals without a handler to PID 1; every other process would end."""
    process = 1 if first else 7
    program = f"import os, signal, stream.cli.main as m\nm.handle_sigterm_as_pid_1({process})\nos.kill(os.getpid(), signal.SIGTERM)"
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=120).returncode == code


def test_ctrl_c_ends_a_waiting_verb_with_one_line_and_exit_code_130(tmp_path):
    file = tmp_path / "pipeline.yaml"
    file.write_text(PIPELINE.replace('"file:./state/"', "s3://bucket/state/"))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(PATIENCE)
        environment = {**os.environ, "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{silent.getsockname()[1]}"}
        environment |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
        command = [sys.executable, "-m", "stream", "audit", "ls", str(file)]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            asked, _ = silent.accept()
            with asked:
                process.send_signal(signal.SIGINT)
                out, err = process.communicate(timeout=PATIENCE)
                assert (out, without_loading(err)) == ("", "interrupted\n")
    assert process.returncode == 130


def test_ctrl_c_during_imports_gives_no_traceback():
    program = """
import sys
class Interrupted:
    def find_spec(self, name, path, target=None):
        if name == "typer":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupted())
from stream.cli.process import command
command()
"""
    done = subprocess.run([sys.executable, "-c", program], check=False, timeout=120, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")
