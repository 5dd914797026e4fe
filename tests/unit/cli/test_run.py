"""What ``stream run`` says before it reads anything."""

import socket

import pytest
from typer.testing import CliRunner

from stream.cli.main import app

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


def test_metrics_are_served_where_the_command_says_and_not_where_the_file_does(tmp_path, taken):
    file = tmp_path / "pipeline.yaml"
    file.write_text(PIPELINE)
    done = CliRunner().invoke(app, ["run", str(file), "--metrics-host", "127.0.0.1", "--metrics-port", str(taken)])
    assert done.exit_code == 1
    assert f"metrics cannot be served on 127.0.0.1:{taken}" in done.output


def test_one_of_both_leaves_the_other_as_the_file_says(tmp_path, taken):
    file = tmp_path / "pipeline.yaml"
    file.write_text(PIPELINE.replace("192.0.2.1", "127.0.0.1"))
    done = CliRunner().invoke(app, ["run", str(file), "--metrics-port", str(taken)])
    assert done.exit_code == 1
    assert f"metrics cannot be served on 127.0.0.1:{taken}" in done.output
