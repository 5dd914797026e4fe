"""An Airflow of its own for the tests: a temporary home, SQLite, the DAGs of this example, no address but loopback."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

DAGS = Path(__file__).parents[1] / "dags"
HOME = Path(tempfile.mkdtemp(prefix="airflow-"))
atexit.register(shutil.rmtree, HOME, ignore_errors=True)

# Airflow reads all of it while it is imported.
os.environ |= {
    "AIRFLOW_HOME": str(HOME),
    "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{HOME}/airflow.db",
    "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
}


def _stay_here(event: str, arguments: tuple[Any, ...]) -> None:
    """Refuse what would leave this machine."""
    if event == "socket.connect" and isinstance(arguments[1], tuple) and arguments[1][0] not in {"127.0.0.1", "::1", "localhost"}:
        msg = f"a test wanted to reach {arguments[1]}"
        raise PermissionError(msg)


sys.addaudithook(_stay_here)


@pytest.fixture(scope="session")
def bag():
    """Every DAG of the example, found as the processor of DAG files finds them."""
    from airflow.dag_processing.dagbag import BundleDagBag
    from airflow.utils.db import initdb

    initdb()
    return BundleDagBag(dag_folder=str(DAGS), bundle_path=DAGS, bundle_name="dags-folder")


@pytest.fixture
def anew(bag):
    """Gives a DAG by its name as it is written, but that tries follow each other at once. A test may change it."""
    from airflow.dag_processing.dagbag import DagBag

    def one(name: str) -> Any:
        assert name in bag.dags
        made = DagBag(dag_folder=str(DAGS / f"{name}.py")).dags[name]
        for task in made.tasks:
            task.retry_delay = timedelta(0)
        return made

    return one
