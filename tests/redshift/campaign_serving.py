"""The double as a process of its own, started by the command of the Docker composition."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from multiprocessing import connection
from pathlib import Path
from typing import Any

import boto3
import yaml

from tests.redshift.conftest import KEYS

ROOT = Path(__file__).parents[2]


def test_the_composed_data_api_answers_and_ends_cleanly(s3: Any) -> None:
    service = yaml.safe_load((ROOT / "deploy" / "local" / "docker-compose.yml").read_text())["services"]["redshift"]
    assert service["command"] == ["python", "-m", "tests.redshift.double", "--host", "0.0.0.0", "--port", "4567"]  # noqa: S104
    command = [sys.executable, "-m", "tests.redshift.double"]
    environment = {**os.environ, **KEYS, "AWS_ENDPOINT_URL": s3.meta.endpoint_url, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        client = boto3.client("redshift-data", endpoint_url=url, region_name="us-east-1")
        made = client.execute_statement(Database="dev", WorkgroupName="any", Sql="SELECT 1")["Id"]
        reader, writer = connection.Pipe()
        for _ in range(1200):
            if client.describe_statement(Id=made)["Status"] == "FINISHED":
                break
            connection.wait([reader], timeout=0.1)
        reader.close()
        writer.close()
        assert client.get_statement_result(Id=made)["Records"] == [[{"longValue": 1}]]
        client.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
