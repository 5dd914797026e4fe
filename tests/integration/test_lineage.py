"""OpenLineage events of complete workers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stream import events
from stream.errors import Fatal
from tests.integration.narration import Received, work
from tests.integration.test_narration import ImpatientClock, Sealed, Stage, emulator, received, stage, valid_records
from tests.unit.audit.test_lineage import assert_official

__all__ = ["emulator", "received", "stage"]


def kept(stage: Stage) -> list[dict[str, Any]]:
    files = sorted((stage.folder / stage.stream / "state" / "app" / "lineage").rglob("*.ndjson"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def test_lineage_events_follow_a_run_from_start_to_completion(stage: Stage) -> None:
    stage.put(valid_records(30))
    work(stage.pipeline("audit: {lineage: {interval: 50ms}}\n"), Sealed(30))
    found = kept(stage)
    for event in found:
        assert_official(event)
    states = [event["eventType"] for event in found]
    assert (states[0], states[-1]) == ("START", "COMPLETE")
    assert set(states[1:-1]) <= {"RUNNING"}
    assert len({event["run"]["runId"] for event in found}) == 1
    last = found[-1]
    assert last["inputs"][0]["inputFacets"]["inputStatistics"]["rowCount"] == 30
    assert last["outputs"][0]["outputFacets"]["outputStatistics"]["rowCount"] == 24
    assert [field["name"] for field in last["outputs"][0]["facets"]["schema"]["fields"]] == ["n", "kind", "note", "at", "twice", "day"]
    columns = last["outputs"][0]["facets"]["columnLineage"]["fields"]
    assert {name: [each["field"] for each in entry["inputFields"]] for name, entry in columns.items()} == {
        "n": ["n"], "kind": ["kind"], "note": ["note"], "at": ["at"], "twice": ["n"], "day": ["at"],
    }  # fmt: skip
    assert Path(last["run"]["facets"]["stream_ledger"]["ledger"].removeprefix("file:")).is_dir()


def test_a_run_that_cannot_continue_ends_with_a_fail_event(stage: Stage) -> None:
    stage.put([b"{broken"] * 20)
    file = stage.pipeline("audit: {lineage: {}}\n")
    file.write_text(file.read_text().replace("min_records: 1000000", "min_records: 5"))
    with pytest.raises(Fatal):
        work(file, lambda _: False)
    assert [event["eventType"] for event in kept(stage)] == ["START", "FAIL"]
    assert "would become dead letters" in kept(stage)[-1]["run"]["facets"]["errorMessage"]["message"]


@pytest.mark.parametrize("status", [200, 500])
def test_events_are_posted_and_kept_if_the_receiver_refuses_them(stage: Stage, received: Received, status: int) -> None:
    received.status = status
    stage.put(valid_records(10))
    heard = work(stage.pipeline(f"audit: {{lineage: {{url: '{received.url}/api/v1/lineage'}}}}\n"), Sealed(10), clock=ImpatientClock())
    posted = [json.loads(body) for path, body in received.bodies if path == "/api/v1/lineage"]
    reported = posted if status == 200 else kept(stage)
    assert [event["eventType"] for event in reported] == ["START", "COMPLETE"]
    assert bool(kept(stage)) == (status == 500)
    assert any(isinstance(event, events.CallRepeated) and event.call == "report lineage" for event in heard) == (status == 500)


def test_a_trailing_line_break_in_a_token_is_removed(stage: Stage, received: Received) -> None:
    stage.put(valid_records(10))
    lineage = f"{{url: '{received.url}/api/v1/lineage', headers: {{authorization: {{env: TOKEN}}}}}}"
    work(stage.pipeline(f"audit: {{lineage: {lineage}}}\n"), Sealed(10), clock=ImpatientClock(), env={"TOKEN": "Bearer t\n"})
    assert [json.loads(body)["eventType"] for _, body in received.bodies] == ["START", "COMPLETE"]
