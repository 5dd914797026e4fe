import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PROGRAM = "import typer; from stream.cli.local import local; typer.run(local)"


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", PROGRAM, *arguments]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_prints_the_environment_and_runs_until_a_signal(number: signal.Signals, tmp_path: Path) -> None:
    command = _command("--port", "0", "--moto-port", "0", "--logs", str(tmp_path / "logs"))
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        lines = {}
        for line in process.stdout:
            name, _, value = line.decode().strip().removeprefix("export ").partition("=")
            lines[name] = value
            if name == "AWS_EC2_METADATA_DISABLED":
                break
        with urllib.request.urlopen(f"{lines['AWS_ENDPOINT_URL_KINESIS']}/_health") as reply:  # noqa: S310 - loopback
            assert reply.status == 200
        process.send_signal(number)
        assert process.stdout.read() == b""
    assert process.returncode == 0
    assert {path.name for path in (tmp_path / "logs").iterdir()} == {"kinesis.log", "moto.log"}
    assert lines["AWS_REGION"] == lines["AWS_DEFAULT_REGION"] == "us-east-1"


def test_a_port_in_use_is_an_error_message_and_exit_code_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = subprocess.run(_command("--port", str(taken.getsockname()[1])), cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 1
    assert done.stdout == b""
    assert b"error: helper process stream.local.kinesis ended" in done.stderr
    assert b"address already in use; choose another" in done.stderr
    assert b"Traceback" not in done.stderr


def test_logs_that_cannot_be_written_are_an_error_message(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = subprocess.run(_command("--port", "0", "--logs", str(tmp_path / "file")), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == f"error: [Errno 17] File exists: '{tmp_path / 'file'}'\n"
