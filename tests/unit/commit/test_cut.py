import pytest

from stream.commit.cut import Circumstances, Limits, OpenUnit, Trigger, seconds_until_due, trigger

LIMITS = Limits(rows=100, payload_bytes=1000, age_seconds=60)
SMALL = OpenUnit(rows=1, payload_bytes=1, since=10.0)


@pytest.mark.parametrize(
    ("filling", "now", "around", "why"),
    [
        (None, 1e9, Circumstances(ended=True, draining=True, pressure=True), None),
        (SMALL, 10.0, Circumstances(), None),
        (SMALL, 69.9, Circumstances(), None),
        (SMALL, 70.0, Circumstances(), Trigger.AGE),
        (OpenUnit(99, 999, 10.0), 10.0, Circumstances(), None),
        (OpenUnit(100, 1, 10.0), 10.0, Circumstances(), Trigger.ROWS),
        (OpenUnit(1, 1000, 10.0), 10.0, Circumstances(), Trigger.BYTES),
        (SMALL, 10.0, Circumstances(pressure=True), Trigger.PRESSURE),
        (SMALL, 10.0, Circumstances(draining=True, pressure=True), Trigger.DRAIN),
        (OpenUnit(100, 1000, 10.0), 99.0, Circumstances(ended=True, draining=True, pressure=True), Trigger.SHARD_END),
    ],
)
def test_each_limit_triggers_the_cut_of_a_unit(filling, now, around, why):
    assert trigger(filling, LIMITS, now, around) is why


@pytest.mark.parametrize(("filling", "now", "seconds"), [(SMALL, 10.0, 0.25), (SMALL, 69.9, 0.1), (SMALL, 90.0, 0.0)])
def test_the_wait_for_the_next_page_ends_when_the_unit_is_due(filling, now, seconds):
    assert seconds_until_due(filling, LIMITS, now, 0.25) == pytest.approx(seconds)


def test_an_empty_unit_waits_without_a_limit():
    assert seconds_until_due(None, LIMITS, 0.0, 0.25) is None
