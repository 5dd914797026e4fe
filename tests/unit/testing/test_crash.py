import pytest

from stream import events
from stream.testing.crash import POINTS, CrashAt, Point, main


def test_a_point_is_an_event_and_a_number():
    assert Point.parse("IntentCreated:2") == Point(events.IntentCreated, 2)
    assert Point.parse("ShardEnded") == Point(events.ShardEnded, 1)
    assert "Event" not in POINTS


@pytest.mark.parametrize(("text", "says"), [("Nothing:1", "there are: "), ("UnitCut:0", "count from 1"), ("UnitCut:x", "count from 1")])
def test_an_invalid_point_is_refused_with_the_valid_ones(text, says):
    with pytest.raises(ValueError, match=says):
        Point.parse(text)


def test_the_program_lists_the_valid_points(capsys, tmp_path):
    with pytest.raises(SystemExit):
        main(["--at", "Nothing", str(tmp_path / "pipeline.yaml")])
    assert "IntentCreated" in capsys.readouterr().err


def test_it_acts_once_and_at_its_own_event_only():
    acted = []
    listener = CrashAt(Point(events.IntentCreated, 2), lambda: acted.append(listener.seen))
    for event in (events.Checkpointed("s", "a", 1), *[events.IntentCreated("s", "a", 0, 1)] * 3):
        listener(event)
    assert acted == [2]
