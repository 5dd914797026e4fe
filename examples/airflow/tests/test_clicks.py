"""The DAG that waits for an hour of a stream, over an emulator in a process of its own, with real processes of `stream`."""

import base64
import json
import shutil
import subprocess
import time
import urllib.request
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest
from airflow.models.xcom import XComModel
from airflow.sdk.exceptions import AirflowException
from airflow.utils.session import create_session

FILE = Path(__file__).parents[1] / "clicks.yaml"


class Clicks:
    """A stream, a pipeline over it, and the lake."""

    def __init__(self, url, folder):
        self.url = url
        self.folder = folder
        self.file = shutil.copy(FILE, folder)
        self.call("CreateStream", StreamName="clicks", ShardCount=2)

    def call(self, operation, **members):
        headers = {"X-Amz-Target": f"Kinesis_20131202.{operation}", "Content-Type": "application/x-amz-json-1.1"}
        request = urllib.request.Request(self.url, json.dumps(members).encode(), headers)  # noqa: S310 - loopback
        with urllib.request.urlopen(request) as answer:  # noqa: S310 - loopback
            return answer.read()

    def put(self, numbers):
        for n in numbers:
            self.call("PutRecord", StreamName="clicks", Data=base64.b64encode(json.dumps({"id": n}).encode()).decode(), PartitionKey=str(n))

    def seal(self):
        subprocess.run(["stream", "run", self.file, "--once"], check=True, capture_output=True)

    def next_second(self):
        """A whole second, as the service's date is, that has begun and lies behind everything that was put."""
        moment = int(time.time()) + 1
        while time.time() < moment:
            self.call("ListShards", StreamName="clicks")
        return datetime.fromtimestamp(moment, UTC).isoformat()


@pytest.fixture
def clicks(tmp_path, monkeypatch):
    python = Path(shutil.which("stream")).with_name("python")
    emulator = subprocess.Popen(
        [python, "-m", "stream.local.kinesis", "--port", "0", "--tied"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=tmp_path
    )
    try:
        url = json.loads(emulator.stdout.readline())["url"]
        settings = {"LAKE": "file:./lake", "STATE": "file:./state", "AWS_ENDPOINT_URL_KINESIS": url, "AWS_REGION": "us-east-1"}
        settings |= dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "test")
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        yield Clicks(url, tmp_path)
    finally:
        emulator.terminate()
        emulator.communicate()


@pytest.mark.usefixtures("bag")
def test_the_sensor_waits_until_what_arrived_is_in_the_lake(clicks):
    from stream_airflow import StreamCompleteSensor

    clicks.put(range(10))
    arguments = [clicks.file, "--until", clicks.next_second(), "--margin", "0"]
    sensor = StreamCompleteSensor(task_id="complete", arguments=arguments)
    assert not sensor.poke({})
    clicks.seal()
    done = sensor.poke({})
    assert (done.is_done, done.xcom_value["verdict"]) == (True, "complete")
    assert len(duckdb.read_parquet(f"{clicks.folder}/lake/**/*.parquet").fetchall()) == 10


@pytest.mark.usefixtures("bag")
def test_what_cannot_be_known_fails_the_try(clicks):
    from stream_airflow import StreamCompleteSensor

    clicks.call("DeleteStream", StreamName="clicks")
    with pytest.raises(AirflowException, match=r"(?s)exit code 2.*clicks"):
        StreamCompleteSensor(task_id="complete", arguments=[clicks.file, "--until", "2026-01-01"]).poke({})


def test_the_job_runs_once_the_hour_is_complete(anew, clicks, monkeypatch):
    dag = anew("clicks")
    clicks.put(range(3))
    clicks.seal()
    monkeypatch.setenv("AIRFLOW_VAR_CLICKS_PIPELINE", str(clicks.file))
    monkeypatch.setenv("AIRFLOW_VAR_CLICKS_JOB", f'echo "$HOUR" > {clicks.folder}/hour')
    done = dag.test(logical_date=datetime(2026, 1, 1, 5, tzinfo=UTC))
    assert {each.task_id: str(each.state) for each in done.get_task_instances()} == {"complete": "success", "job": "success"}
    assert (clicks.folder / "hour").read_text() == "2026-01-01-04\n"
    with create_session() as session:
        found = session.scalars(XComModel.get_many(run_id=done.run_id, key="return_value", dag_ids="clicks").with_only_columns(XComModel))
        pushed = {each.task_id: XComModel.deserialize_value(each) for each in found}
    assert pushed["complete"]["complete_up_to"] >= "2026-01-01T05:00:00+00:00"
