"""How much the verbs that read records log at each level."""

import asyncio
import json

import pytest
from typer.testing import CliRunner

from stream.cli.main import app
from stream.cli.options import Least
from stream.metrics.logs import Level
from tests.replays import Place

ORDER = [level.name.lower() for level in sorted(Level)]
RUN, BACKFILL, REDRIVE = ["run", "--once"], ["backfill", "--from", "2020-01-01", "--to", "2100-01-01"], ["dlq", "redrive"]


@pytest.fixture
def place(tmp_path, monkeypatch):
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    return Place(tmp_path)


def logged(place, command, *options, env=None):
    """The lines of the log of ``command``, parsed and as text."""
    done = CliRunner().invoke(app, [*command, str(place.file()), *options], env=env)
    assert done.exit_code == 0, done.output
    text = "\n".join(line for line in done.stderr.splitlines() if line.startswith("{"))
    return [json.loads(line) for line in text.splitlines()], text


def records(place):
    """Thirty records, of which a tenth is broken; all hold the word ``hush``."""
    place.lines(
        "a.json", range(30), render=lambda number: json.dumps({"id": number, "kind": "hush", "value": "hush" if number % 10 == 9 else 1})
    )


def test_the_option_offers_the_levels_of_events():
    assert [(each.value, each.level) for each in Least] == [(level.name.lower(), level) for level in Level]


@pytest.mark.parametrize("level", ORDER)
def test_a_run_writes_the_events_of_its_level_and_above(place, level):
    records(place)
    lines, _ = logged(place, RUN, "--log-level", level)
    written = {line["level"] for line in lines}
    assert written == set(ORDER[ORDER.index(level) :]) - {"error"}  # nothing went wrong but for some records


def test_without_the_option_info_and_warnings_are_logged(place):
    records(place)
    lines, _ = logged(place, RUN)
    assert {line["level"] for line in lines} == {"info", "warning"}


def test_the_environment_sets_the_level_and_the_option_overrides_it(place):
    records(place)
    lines, _ = logged(place, RUN, env={"STREAM_LOG_LEVEL": "DEBUG"})
    assert "unit_cut" in {line["event"] for line in lines}
    lines, _ = logged(place, RUN, "--log-level", "error", env={"STREAM_LOG_LEVEL": "debug"})
    assert lines == []


def test_with_debug_one_trace_follows_a_unit_from_cut_to_seal_without_record_content(place):
    records(place)
    lines, text = logged(place, RUN, "--log-level", "debug")
    (trace,) = {line["trace_id"] for line in lines if line["event"] == "unit_cut"}
    unit = [line["event"] for line in lines if line["trace_id"] == trace]
    assert unit[0] == "unit_cut"
    assert {"stage_applied", "records_rejected", "intent_created", "file_written", "manifest_sealed", "unit_sealed", "checkpointed"} <= set(
        unit
    )
    assert "hush" not in text


@pytest.mark.parametrize("command", [BACKFILL, REDRIVE])
def test_other_verbs_that_read_records_accept_the_option(place, command):
    records(place)
    if command is REDRIVE:
        place.run()
        waiting = asyncio.run(place.letters().table())
        assert waiting.height == 3
    lines, text = logged(place, command, "--log-level", "debug")
    assert "unit_cut" in {line["event"] for line in lines}
    assert "hush" not in text


def test_an_unknown_level_is_refused_with_the_known_ones(place):
    done = CliRunner().invoke(app, ["run", str(place.file()), "--log-level", "trace"])
    assert done.exit_code == 2
    assert all(level in done.output for level in ORDER)
