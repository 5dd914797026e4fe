"""The commands of docs/airflow.md, one after the other, where an archive lies."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from conftest import DAGS

PAGE = (Path(__file__).parents[3] / "docs" / "airflow.md").read_text()
COMMANDS = [line for block in re.findall(r"^```sh airflow\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE) for line in block.splitlines()]


def test_the_commands_of_the_page_do_what_it_says(tmp_path):
    shutil.copy(DAGS.parent / "orders.yaml", tmp_path)
    hour = tmp_path / "orders" / "2026/01/01/00"
    hour.mkdir(parents=True)
    (hour / "part-0.json").write_text("".join(json.dumps({"id": n, "value": n}) + "\n" for n in range(100)))
    (hour / "_SUCCESS").touch()
    home = {"AIRFLOW_HOME": str(tmp_path), "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path}/airflow.db"}
    places = {"ORDERS": "file:./orders", "LAKE": "file:./lake", "STATE": "file:./state"}
    places["AIRFLOW_VAR_ORDERS_PIPELINE"] = str(tmp_path / "orders.yaml")
    said = {}
    for line in COMMANDS:
        command = shlex.split(line)
        if command[0] == "airflow":
            command = [sys.executable, "-m", *command]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=os.environ | home | places)
        assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
        said[" ".join(shlex.split(line)[1:3])] = done.stdout + done.stderr
    assert len(said) == 3
    assert "100 records committed by this run" in said["dags test"]
    assert "All 100 records are accounted for, once." in said["dags test"]
    assert "| 2026-01-01 02:00:00+00:00 |" in said["backfill create"]


def test_every_file_of_the_example_is_named():
    made = {path.relative_to(DAGS.parents[2]).as_posix() for path in (*DAGS.glob("*.py"), *DAGS.parent.glob("*.yaml"))}
    assert [each for each in made if each not in PAGE] == []
