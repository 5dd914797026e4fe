"""In the process of the tests, libraries have the settings that the service gives them."""

from __future__ import annotations

import os
import subprocess
import sys

import polars as pl
import pyarrow as pa
import pytest

from stream.cli.loading import settings_of_libraries
from tests.libraries import loaded


def test_polars_and_arrow_are_as_in_the_service() -> None:
    wanted = settings_of_libraries({}, len(os.sched_getaffinity(0))) | os.environ
    assert str(pl.thread_pool_size()) == wanted["POLARS_MAX_THREADS"]
    assert pa.default_memory_pool().backend_name == wanted["ARROW_DEFAULT_MEMORY_POOL"]


def test_processes_that_tests_start_find_their_settings_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEPT", "as it was")
    monkeypatch.delenv("GONE", raising=False)
    before = dict(os.environ)
    loaded({"KEPT": "changed", "GONE": "set"})
    assert dict(os.environ) == before


def test_a_library_has_the_settings_that_it_is_loaded_with() -> None:
    told = "from tests.libraries import loaded; import sys; sys.stdout.write(str(loaded({'POLARS_MAX_THREADS': '3'})))"
    assert subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True).stdout == "3"
