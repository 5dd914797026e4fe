"""The DAG for a machine where `stream` is installed, run by Airflow over files, with real processes."""

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session

FILE = Path(__file__).parents[1] / "orders.yaml"


@pytest.fixture
def dag(anew):
    return anew("orders")


class Archive:
    """Folders of hours of 2026-01-01, the lake that is made of them, and the runs that make it."""

    def __init__(self, folder):
        self.folder = folder
        self.file = Path(shutil.copy(FILE, folder))

    def hour(self, number, lines, *, complete=True):
        folder = self.folder / "orders" / f"2026/01/01/{number:02}"
        folder.mkdir(parents=True)
        (folder / "part-0.json").write_text("".join(f"{line}\n" for line in lines))
        if complete:
            self.mark(number)

    def mark(self, number):
        (self.folder / "orders" / f"2026/01/01/{number:02}" / "_SUCCESS").touch()

    def lake(self):
        return {path.relative_to(self.folder): path.stat().st_mtime_ns for path in (self.folder / "lake").rglob("*.parquet")}

    def ids(self):
        return [row[0] for row in duckdb.read_parquet(f"{self.folder}/lake/**/*.parquet").order("id").select("id").fetchall()]


@pytest.fixture
def archive(tmp_path, monkeypatch):
    made = Archive(tmp_path)
    settings = {"ORDERS": "file:./orders", "LAKE": "file:./lake", "STATE": "file:./state", "AIRFLOW_VAR_ORDERS_PIPELINE": str(made.file)}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    return made


def good(numbers):
    return [json.dumps({"id": n, "value": n % 7}) for n in numbers]


def run(dag, hour):
    """The run of the hour that begins at ``hour``: state, tries and XCom of each task."""
    done = dag.test(logical_date=datetime(2026, 1, 1, hour + 1, tzinfo=UTC))
    assert done.data_interval_start == datetime(2026, 1, 1, hour, tzinfo=UTC)
    tasks = {each.task_id: (str(each.state), each.try_number) for each in done.get_task_instances()}
    with create_session() as session:
        found = session.scalars(XComModel.get_many(run_id=done.run_id, key="return_value", dag_ids="orders").with_only_columns(XComModel))
        pushed = {each.task_id: XComModel.deserialize_value(each) for each in found}
    return str(done.state), tasks, pushed


def test_airflow_finds_every_dag_and_no_error(bag):
    assert bag.import_errors == {}
    assert set(bag.dags) == {"clicks", "orders", "orders_on_kubernetes"}


def test_each_interval_reads_its_hour_and_the_same_interval_again_changes_nothing(dag, archive):
    for hour in range(3):
        archive.hour(hour, good(range(100 * hour, 100 * hour + 100)))
    for hour in (0, 2, 1):
        state, tasks, pushed = run(dag, hour)
        assert (state, tasks) == ("success", {"read": ("success", 1), "account": ("success", 1), "verify": ("success", 1)})
        assert (pushed["read"]["exit_code"], pushed["read"]["outcomes"]) == (0, {"written": 100})
        assert pushed["account"] == {"written": 100}
    assert archive.ids() == list(range(300))
    before = archive.lake()
    state, _, pushed = run(dag, 2)
    assert (state, pushed["read"]["records"], pushed["account"]) == ("success", 0, {})
    assert archive.lake() == before


def test_a_wrong_definition_is_not_tried_again(dag, archive):
    archive.hour(0, good(range(10)))
    archive.file.write_text(archive.file.read_text().replace("sinks:", "sink:"))
    state, tasks, pushed = run(dag, 0)
    assert (state, tasks["read"], tasks["verify"][0]) == ("failed", ("failed", 1), "upstream_failed")
    assert pushed["read"]["exit_code"] == 2
    assert "sink" in pushed["read"]["error"]
    assert not (archive.folder / "lake").exists()


def test_an_hour_that_is_not_complete_yet_is_tried_again(dag, archive):
    archive.hour(0, good(range(10)), complete=False)
    read = dag.task_dict["read"]
    read.on_retry_callback = [lambda _: archive.mark(0)]
    state, tasks, pushed = run(dag, 0)
    assert (state, tasks["read"], pushed["read"]["records"]) == ("success", ("success", 2), 10)
    assert archive.ids() == list(range(10))


def test_too_many_dead_letters_fail_the_run(dag, archive):
    archive.hour(0, [*good(range(98)), "{", "["])
    state, tasks, pushed = run(dag, 0)
    assert (state, tasks["read"], tasks["account"], tasks["verify"][0]) == ("failed", ("success", 1), ("failed", 1), "upstream_failed")
    assert pushed["read"]["outcomes"] == {"dead_lettered": 2, "written": 98}
    assert archive.ids() == list(range(98))


def test_a_file_of_the_lake_that_is_gone_fails_the_proof_at_once(dag, archive):
    for hour in range(2):
        archive.hour(hour, good(range(10)))
    assert run(dag, 0)[0] == "success"
    next(iter((archive.folder / "lake").rglob("*.parquet"))).unlink()
    state, tasks, _ = run(dag, 1)
    assert (state, tasks["account"], tasks["verify"]) == ("failed", ("success", 1), ("failed", 1))


@pytest.mark.usefixtures("bag")
def test_who_stops_the_task_stops_the_process():
    from stream_airflow import StreamOperator

    operator = StreamOperator(task_id="runs", arguments=["local", "--port", "0", "--moto-port", "0"], result=False)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(operator.execute, {})
        while operator._process.sub_process is None and not running.done():
            os.sched_yield()
        operator.on_kill()
        # Killed before Python could listen, or ended in good order.
        running.exception(60)
    assert operator._process.sub_process.returncode in {0, -15}


SHARD = {"stream": "orders", "shard": "0", "records": 100, "units": 2, "state": "ended", "reason": ""}
RESULT = {"records": 100, "outcomes": {"written": 98, "filtered": 1, "dead_lettered": 1}, "units": 2, "shards": [SHARD]}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({}, []),
        ({"records": 101}, ["101 records, but the outcomes come to 100", "101 records, but the shards come to 100"]),
        ({"units": 3}, ["3 units, but those of the shards come to 2"]),
        ({"shards": [SHARD | {"state": "halted", "reason": "why"}]}, ["orders/0 stands still: why"]),
        ({"outcomes": {"written": 98, "dead_lettered": 2}}, ["2 of 100 records are dead letters, more than 1.00%"]),
        ({"records": 0, "outcomes": {}, "units": 0, "shards": []}, []),
    ],
)
@pytest.mark.usefixtures("bag")
def test_what_is_wrong_with_a_result_is_said(change, told):
    from stream_airflow import complaints

    found = complaints(RESULT | change, 0.01)
    assert [each.partition(";")[0] for each in found] == told
