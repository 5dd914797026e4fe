"""What a run that ends tells its caller, by the exit code and by the result document."""

import json
import signal

import pytest
from typer.testing import CliRunner

from stream import events
from stream.cli.main import app
from stream.cli.run import carry_out
from stream.worker.assemble import WorkerOptions
from tests.clocks import HurriedClock
from tests.replays import Place


@pytest.fixture
def place(tmp_path, monkeypatch):
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    return Place(tmp_path, {"rows": 10})


class OnceAt:
    """An ``Emit`` that does ``act`` once, at the first event of ``kind``."""

    def __init__(self, kind, act):
        self._kind, self._act, self._done = kind, act, False

    def __call__(self, event):
        if isinstance(event, self._kind) and not self._done:
            self._done = True
            self._act()


def fail():
    raise ZeroDivisionError("by seven")


def test_a_run_cut_short_by_a_signal_fails_and_the_next_one_continues(place):
    for number in range(30):
        place.lines(f"{number:03}.json", range(30 * number, 30 * number + 30))
    end = place.run(listeners=(OnceAt(events.UnitSealed, lambda: signal.raise_signal(signal.SIGTERM)),))
    assert end.code == 1
    assert "a signal ended the run, and it is not known that archive is read to its end" in end.error
    reported = place.result()
    assert (reported["exit_code"], reported["error"]) == (1, end.error)
    assert 10 <= reported["records"] < 900
    assert place.run().code == 0
    assert place.result()["records"] == 900 - reported["records"]
    assert place.rows()["id"].sort().to_list() == list(range(900))
    assert place.proof() == []


def end_of_a_run_stopped_at_its_first_repeated_call(place, mode):
    """The end of a run over 30 records that has a tenth of a second after its signal, while its collector is unreachable."""
    place.lines("a.json", range(30))
    pipeline = place.pipeline(more=f'audit: {{otlp: {{endpoint: "http://127.0.0.1:1", mode: {mode}}}}}')
    stop = OnceAt(events.CallRepeated, lambda: signal.raise_signal(signal.SIGTERM))
    return carry_out(pipeline, WorkerOptions(place.folder, {}, 0.1, 2, (stop,)), None)


def test_with_strict_the_error_says_that_checkpoints_wait_for_the_collector(place):
    end = end_of_a_run_stopped_at_its_first_repeated_call(place, "strict")
    assert end.code == 1
    assert "its checkpoints stored within 0.1 s of the signal" in end.error
    assert "archive/objects-000001-0001 waits for export spans, for which checkpoints wait with `mode: strict`: no answer: " in end.error
    assert "http://127.0.0.1:1" in end.error
    assert len(place.rows()) == 30


def test_without_strict_an_unreachable_collector_delays_nothing(place):
    end = end_of_a_run_stopped_at_its_first_repeated_call(place, "ledger")
    assert "waits for" not in end.error
    assert len(place.rows()) == 30


def hurried(place, *listeners, **changes):
    """The end of a run on whose clock everything takes a thousandth of its time."""
    options = WorkerOptions(place.folder, {}, 30.0, 2, listeners, clock=HurriedClock())
    return carry_out(place.pipeline(**changes), options, place.folder / "result.json")


def test_a_run_whose_store_never_answers_ends_before_it_has_begun_and_says_what_it_waited_for(place, aws_keys, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    place.lines("a.json", range(30))
    more = 'requires: ["file:./in/a.json"]'
    text = place.text(more=more).replace('state: "file:./state"', "state: s3://bucket/state/")
    place.text = lambda **_: text
    end = hurried(place)
    assert end.code == 1
    assert "nothing of this run has succeeded for" in end.error
    assert "archive waits for look at: " in end.error
    assert place.result()["error"] == end.error


def test_a_run_whose_checkpoints_wait_for_a_collector_that_never_answers_ends_and_the_next_one_continues(place):
    place.lines("a.json", range(30))
    end = hurried(place, more='audit: {otlp: {endpoint: "http://127.0.0.1:1", mode: strict}}')
    assert end.code == 1
    assert "archive/objects-000001-0001 waits for export" in end.error
    assert "run it again to continue" in end.error
    assert place.run().code == 0
    assert len(place.rows()) == 30
    assert place.proof() == []


@pytest.mark.parametrize("name", ["lake", "state"])
def test_a_directory_that_cannot_be_made_ends_a_run_before_anything_is_read(place, name):
    place.lines("a.json", range(30))
    (place.folder / "file").touch()
    opened = []
    end = place.run(listeners=(opened.append,), **{name: "file/below"})
    assert end.code == 1
    assert f"cannot use the store file:{place.folder}/file/below: " in end.error
    assert "Not a directory. Remedy: " in end.error
    assert [type(event) for event in opened] == [events.WorkerFailed]


@pytest.mark.parametrize(("mebibytes", "short"), [(511, True), (512, False), (None, False)])
def test_a_container_that_is_too_small_is_reported_and_not_refused(place, mebibytes, short):
    found = []
    limit = None if mebibytes is None else mebibytes * 2**20
    assert carry_out(place.pipeline(), WorkerOptions(place.folder, {}, 60.0, 2, (found.append,), memory_limit=limit), None).code == 0
    assert [(each.limit, each.least) for each in found if isinstance(each, events.MemoryShort)] == ([(limit, 512 * 2**20)] if short else [])


def test_an_unexpected_error_is_in_the_result(place):
    with pytest.raises(ZeroDivisionError):
        place.run(listeners=(OnceAt(events.WorkerStarted, fail),))
    assert place.result()["exit_code"] == 1
    assert place.result()["error"].startswith("unexpected ZeroDivisionError; please report it with this trace: test_runs_that_end.py:")
    assert "by seven" not in place.result()["error"]


@pytest.mark.parametrize(
    ("command", "more", "reported"),
    [
        (["run", "--once"], "sink: []", "sink"),
        (["backfill", "--from", "2020-01-01", "--to", "2021-01-01"], "sink: []", "sink"),
        (["backfill", "--from", "2020-01-01", "--to", "2021-01-01", "--namespace", "no spaces"], "", "no spaces"),
        (["dlq", "redrive"], "sink: []", "sink"),
    ],
)
def test_an_invalid_definition_is_in_the_result(place, command, more, reported):
    result = place.folder / "result.json"
    done = CliRunner().invoke(app, [*command, str(place.file(more=more)), "--result", str(result)])
    assert done.exit_code == 2, done.output
    assert reported in done.output
    document = json.loads(result.read_text())
    assert (document["exit_code"], document["records"]) == (2, 0)
    assert reported in document["error"]


def test_a_result_on_standard_output_is_one_line(place):
    place.lines("a.json", range(30))
    done = CliRunner().invoke(app, ["run", str(place.file()), "--once", "--result", "-"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["outcomes"] == {"written": 30}
    assert done.stdout.count("\n") == 1
    assert done.stdout.startswith('{"application":"replay"')
    assert not (place.folder / "-").exists()


@pytest.mark.parametrize("command", [["run", "--once"], ["backfill", "--from", "2020-01-01", "--to", "2021-01-01"], ["dlq", "redrive"]])
def test_a_result_in_a_missing_directory_is_refused_before_anything_is_read(place, command):
    place.lines("a.json", range(30))
    done = CliRunner().invoke(app, [*command, str(place.file()), "--result", str(place.folder / "out" / "result.json")])
    assert done.exit_code == 2
    assert "there is no directory" in done.output
    assert not (place.folder / "state").exists()


def test_a_result_that_cannot_be_written_is_an_error_and_not_a_traceback(place):
    place.lines("a.json", range(30))
    done = CliRunner().invoke(app, ["run", str(place.file()), "--once", "--result", "/proc/result.json"])
    assert isinstance(done.exception, SystemExit)
    assert done.exit_code == 1
    assert "error: the result cannot be written to /proc/result.json" in done.output
