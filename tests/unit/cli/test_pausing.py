"""What `stream pause` takes for the end of a pause, and what it and `stream resume` say."""

from datetime import UTC, datetime, timedelta

import pytest
import typer

from stream.cli.pausing import end_of, told_of_pause, told_of_refusal, told_of_resume
from stream.lease.paused import Pause, Pauses, What, paused, resumed
from stream.operations.changes.pauses import Outcome, Outlook, Scope

NOON = datetime(2026, 1, 1, 12, 0, 30, tzinfo=UTC)


def pause(what=What.READING, part="", until=None):
    return Pause(what=what, stream="s", part=part, by="ann@a", note="new disks", since=NOON, until=until)


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("90m", "2026-01-01T13:30:30+00:00"),
        ("1d2h", "2026-01-02T14:00:30+00:00"),
        ("23:15", "2026-01-01T23:15:00+00:00"),
        ("05:30", "2026-01-02T05:30:00+00:00"),
        ("12:00", "2026-01-02T12:00:00+00:00"),
        ("2026-01-03T04:00:00Z", "2026-01-03T04:00:00+00:00"),
        ("2026-01-03T04:00:00+02:00", "2026-01-03T02:00:00+00:00"),
        ("2026-01-03", "2026-01-03T00:00:00+00:00"),
    ],
)
def test_the_end_of_a_pause(text, end):
    assert end_of(text, NOON).isoformat() == end


@pytest.mark.parametrize("text", ["tomorrow", "25:00", "5:30", "90", "", "2026-13-01", "3h soon"])
def test_what_is_no_end_is_refused_with_what_is_allowed(text):
    with pytest.raises(typer.BadParameter, match=r"--until .*: give a "):
        end_of(text, NOON)


def outcome(change, *outlooks):
    return Outcome(change, change.pauses if change else (), outlooks)


def begun(*pauses):
    return paused(None, pauses, "ann@a", "new disks", NOON)


def test_the_output_for_a_pause_has_the_time_until_records_expire():
    change = begun(pause())
    lines = told_of_pause(outcome(change, Outlook("s", NOON + timedelta(hours=20, minutes=5))), Scope(), NOON)
    assert lines == [
        str(pause()),
        "every worker seals what it has read and stops reading within 5 s; it keeps its leases",
        "unread records of s expire from 2026-01-02T08:05:30+00:00 on, in 20h5m: resume well before that",
    ]


def test_the_output_says_what_is_not_known():
    lines = told_of_pause(outcome(begun(pause()), Outlook("s", why="the stream does not answer")), Scope(), NOON)
    assert lines[-1] == "when unread records of s expire is not known: the stream does not answer"


def test_paused_loads_are_shown_as_such():
    lines = told_of_pause(outcome(begun(pause(What.LOADS))), Scope(loads=True), NOON)
    assert lines[0].startswith("loads of s into all tables are paused")
    assert lines[1].endswith("units are sealed as usual, and wait")


def test_a_refusal_names_the_figures_and_what_to_do():
    lines = told_of_refusal([Outlook("s", NOON)], NOON + timedelta(hours=2))
    assert lines == [
        "error: unread records of s expire from 2026-01-01T12:00:30+00:00 on, 2h before the pause ends",
        "nothing was paused; choose an earlier --until, raise the stream's retention, or give --may-expire to lose them",
    ]


def test_the_output_of_resume_says_what_continues_and_what_does_not():
    before = begun(pause(), pause(part="0"), pause(What.LOADS, "redshift"))
    change = resumed(before, [pause().target, pause(What.LOADS, "redshift").target], "bob@b", "", NOON)
    lines = told_of_resume(outcome(change), [pause(part="0")])
    assert lines == [
        "loads of s into redshift: go on with the loader's next round, the sink's `every`, where they stopped",
        "reading of s: goes on within 5 s, exactly where it stopped",
        f"still so: {pause(part='0')}",
    ]
    assert told_of_resume(Outcome(None, ()), []) == ["nothing of that is paused"]
    assert Pauses(change.pauses).reading("s", "0") == pause(part="0")
