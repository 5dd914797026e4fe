"""What tests/conftest.py does to libraries: they have the settings of the service, and botocore does what it does by itself."""

from __future__ import annotations

import os
import subprocess
import sys

import botocore.hooks
import botocore.session
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


def test_events_of_botocore_are_called_as_it_calls_them_itself() -> None:
    session = botocore.session.Session()
    session.create_client("kinesis", region_name="us-east-1").close()
    events = session.get_component("event_emitter")
    assert type(events) is not botocore.hooks.EventAliaser
    plain = botocore.hooks.EventAliaser(botocore.hooks.HierarchicalEmitter())
    known = dict(events._alias_name_cache)
    assert len(known) > 100
    assert {name: plain._alias_event_name(name) for name in known} == known
    assert any(name != alias for name, alias in known.items())


def test_sessions_with_other_names_for_events_do_not_share_them() -> None:
    aliaser = botocore.session.EventAliaser(botocore.hooks.HierarchicalEmitter(), {"here": "there"})
    usual = botocore.session.EventAliaser(botocore.hooks.HierarchicalEmitter())
    assert aliaser._alias_event_name("only.here") == "only.there"
    assert usual._alias_event_name("only.here") == "only.here"
