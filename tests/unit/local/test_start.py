import json
import os
import select
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from stream.errors import Fatal
from stream.local.moto import moto
from stream.local.process import helper
from stream.local.start import NEEDED, LocalAws

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def aws() -> Iterator[LocalAws]:
    with LocalAws() as started:
        yield started


def _client(aws: LocalAws, service: str) -> Any:
    environment = aws.environment()
    return closing(
        boto3.client(
            service,
            endpoint_url=environment[f"AWS_ENDPOINT_URL_{service.upper()}"],
            region_name=environment["AWS_REGION"],
            aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        )
    )


def test_every_service_answers(aws: LocalAws) -> None:
    with _client(aws, "kinesis") as kinesis, _client(aws, "sts") as sts:
        kinesis.create_stream(StreamName="flights", ShardCount=1)
        summary = kinesis.describe_stream_summary(StreamName="flights")["StreamDescriptionSummary"]
        assert summary["StreamARN"].split(":")[4] == sts.get_caller_identity()["Account"]
    with _client(aws, "s3") as s3, _client(aws, "dynamodb") as dynamodb, _client(aws, "sns") as sns:
        s3.create_bucket(Bucket="lake")
        s3.put_object(Bucket="lake", Key="a", Body=b"x", IfNoneMatch="*")
        assert dynamodb.list_tables()["TableNames"] == []
        assert sns.list_topics()["Topics"] == []


def test_everything_is_on_loopback(aws: LocalAws) -> None:
    urls = [value for name, value in aws.environment().items() if name.startswith("AWS_ENDPOINT_URL")]
    assert len(urls) == 9
    assert all(url.startswith("http://127.0.0.1:") for url in urls)


def test_a_service_without_a_variable_of_its_own_does_not_lead_to_aws(aws: LocalAws, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in aws.environment().items():
        monkeypatch.setenv(name, value)
    with closing(boto3.client("secretsmanager")) as secrets, closing(boto3.client("redshift-data")) as redshift:
        secrets.create_secret(Name="mask", SecretString="key")
        assert secrets.get_secret_value(SecretId="mask")["SecretString"] == "key"
        with pytest.raises(ClientError, match="local AWS has no Redshift"):
            redshift.execute_statement(Database="dev", Sql="SELECT 1")


def test_faults_reach_the_process_of_the_emulator(aws: LocalAws) -> None:
    script = json.dumps([{"operation": "ListStreams", "action": "error", "code": "InvalidArgumentException", "status": 400}])
    with urllib.request.urlopen(f"{aws.kinesis.url}/_faults", script.encode()) as reply:  # noqa: S310 - loopback
        assert json.load(reply) == {"added": 1}
    with _client(aws, "kinesis") as kinesis, pytest.raises(kinesis.exceptions.InvalidArgumentException):
        kinesis.list_streams()


def test_no_process_is_left_running() -> None:
    with LocalAws() as aws:
        pids = [aws.kinesis.pid, aws.moto.pid]
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    with pytest.raises(RuntimeError, match="not running"):
        aws.environment()


def test_ctrl_c_in_a_terminal_does_not_reach_the_helpers(aws: LocalAws) -> None:
    """A terminal signals the group in its foreground."""
    assert os.getpgrp() not in {os.getpgid(aws.kinesis.pid), os.getpgid(aws.moto.pid)}


def test_a_port_in_use_is_explained(aws: LocalAws, tmp_path: Path) -> None:
    port = aws.kinesis.url.rsplit(":", 1)[1]
    log = tmp_path / "log"
    explained = pytest.raises(Fatal, match=r"(?s)stream\.local\.kinesis ended with status 1.*address already in use")
    with explained, helper("stream.local.kinesis", [f"--port={port}"], log=log):
        pass
    assert "address already in use" in log.read_text()
    with pytest.raises(Fatal, match=r"stream\.local\.moto ended"), moto(int(port)):
        pass


def test_a_helper_ends_with_the_process_that_started_it() -> None:
    """The starter is killed outright; the helper notices that its standard input closed."""
    program = (
        "import sys; from stream.local.process import helper\n"
        "with helper('stream.local.kinesis') as h: sys.stdout.write(f'{h.pid}\\n'); sys.stdout.flush(); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        end = os.pidfd_open(pid)
        starter.send_signal(signal.SIGKILL)
    try:
        assert select.select([end], [], [], 120)[0], "the helper is still running"
    finally:
        os.close(end)


def test_a_missing_package_is_named_with_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "moto", None)
    with pytest.raises(Fatal, match=r"needs moto; install kinesis-stream\[local\]"), LocalAws():
        pass


def test_the_command_line_needs_none_of_the_packages_for_local_aws():
    hidden = "; ".join(f"sys.modules[{name!r}] = None" for name in NEEDED)
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; {hidden}; import stream.cli.main"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
