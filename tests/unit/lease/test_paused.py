"""What is paused, decided from the recorded pauses and the time."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.lease.paused import Action, Pause, Pauses, Target, What, held_at, paused, resumed, seconds_to_next_end
from tests.sealed import NOON

HOUR = timedelta(hours=1)
LATER = NOON + HOUR


def pause(what=What.READING, stream="s", part="", until=None, note="new disks", by="ann@a", since=NOON):
    return Pause(what=what, stream=stream, part=part, by=by, note=note, since=since, until=until)


def begun(*pauses):
    return paused(None, pauses, "ann@a", "new disks", NOON)


def test_a_stream_that_is_paused_pauses_every_shard_and_no_other_stream():
    pauses = held_at(begun(pause()), LATER)
    assert pauses.reading("s", "0") == pauses.reading("s", "1") == pause()
    assert pauses.reading("t", "0") is None
    assert pauses.loads("s", "redshift") is None


def test_a_shard_that_is_paused_pauses_no_other():
    pauses = held_at(begun(pause(part="0")), LATER)
    assert pauses.reading("s", "0") is not None
    assert pauses.reading("s", "1") is None


def test_loads_are_paused_by_table_or_all_of_them_and_reading_continues():
    one, every = (held_at(begun(pause(What.LOADS, part=part)), LATER) for part in ("redshift", ""))
    assert one.loads("s", "redshift") is not None
    assert one.loads("s", "iceberg") is None
    assert every.loads("s", "iceberg") is not None
    assert every.reading("s", "0") is None


def test_a_pause_ends_at_its_end_and_not_before():
    change = begun(pause(until=LATER))
    assert held_at(change, LATER - timedelta(microseconds=1)).reading("s", "0") is not None
    assert held_at(change, LATER).reading("s", "0") is None


def test_of_two_pauses_the_one_that_lasts_longest_is_shown():
    short, long, endless = pause(until=LATER), pause(part="0", until=LATER + HOUR), pause(part="0")
    assert Pauses((short, long)).reading("s", "0") == long
    assert Pauses((short, endless)).reading("s", "0") == endless


def test_pausing_again_with_another_end_replaces_the_pause_and_keeps_its_beginning():
    again = pause(until=LATER + HOUR, note="takes longer", since=NOON + timedelta(minutes=5))
    change = paused(begun(pause(until=LATER)), [again], "bob@b", "takes longer", again.since)
    assert change.number == 2
    assert change.pauses == change.changed == (pause(until=LATER + HOUR, note="takes longer"),)


def test_pausing_again_in_the_same_way_changes_nothing():
    assert paused(begun(pause()), [pause(since=LATER)], "bob@b", "new disks", LATER) is None


def test_a_pause_that_has_ended_by_itself_can_be_made_anew():
    change = paused(begun(pause(until=LATER)), [pause(until=LATER + HOUR, since=LATER)], "ann@a", "new disks", LATER)
    assert change.pauses == (pause(until=LATER + HOUR, since=LATER),)


def test_resuming_ends_exactly_what_is_named():
    shard = Target(What.READING, "s", "0")
    change = resumed(begun(pause(), pause(part="0")), [shard], "bob@b", "done", LATER)
    assert (change.action, change.number, change.by, change.note) == (Action.RESUME, 2, "bob@b", "done")
    assert change.changed == (pause(part="0"),)
    assert change.pauses == (pause(),)
    # Its stream still is.
    assert held_at(change, LATER).reading("s", "0") == pause()


def test_resuming_what_is_not_paused_or_not_any_more_changes_nothing():
    stream = Target(What.READING, "s")
    assert resumed(None, [stream], "bob@b", "", NOON) is None
    assert resumed(begun(pause(part="0")), [stream], "bob@b", "", NOON) is None
    assert resumed(begun(pause(until=LATER)), [stream], "bob@b", "", LATER) is None


@pytest.mark.parametrize(("ends", "seconds"), [((), None), ((None,), None), ((None, LATER), 3600.0), ((LATER + HOUR, LATER), 3600.0)])
def test_when_the_next_pause_ends(ends, seconds):
    pauses = Pauses(tuple(pause(part=str(number), until=end) for number, end in enumerate(ends)))
    assert seconds_to_next_end(pauses, NOON) == seconds


def test_a_pause_is_described_in_one_line():
    assert str(pause(part="0", until=LATER)) == (
        "reading of s/0 is paused until 2026-01-01T13:00:00+00:00, by ann@a since 2026-01-01T12:00:00+00:00: new disks"
    )
    assert str(pause(What.LOADS)) == "loads of s into all tables are paused, by ann@a since 2026-01-01T12:00:00+00:00: new disks"


PARTS = st.sampled_from(["", "0", "1"])
WHATS = st.sampled_from(list(What))
STEPS = st.lists(
    st.tuples(st.booleans(), WHATS, st.sampled_from("st"), PARTS, st.sampled_from([None, 1, 2, 5]), st.integers(0, 2)), max_size=12
)


@given(STEPS)
def test_after_any_changes_exactly_that_is_paused_which_was_paused_last_and_has_not_ended(steps):
    """Against a plain dictionary of ends by target."""
    newest, now, known = None, NOON, {}
    for pausing, what, stream, part, hours, passed in steps:
        now += passed * HOUR
        known = {target: end for target, end in known.items() if end is None or end > now}
        target, end = Target(what, stream, part), None if hours is None else now + hours * HOUR
        if pausing:
            change = paused(newest, [pause(what, stream, part, end, since=now)], "ann@a", "new disks", now)
            assert (change is None) == (target in known and known[target] == end)
            known[target] = end
        else:
            change = resumed(newest, [target], "ann@a", "", now)
            assert (change is None) == (target not in known)
            known.pop(target, None)
        newest = change or newest
        assert {each.target: each.until for each in held_at(newest, now).all} == known
        for shard in "01":
            stands = {Target(What.READING, stream, ""), Target(What.READING, stream, shard)} & known.keys()
            assert (held_at(newest, now).reading(stream, shard) is not None) == bool(stands)
