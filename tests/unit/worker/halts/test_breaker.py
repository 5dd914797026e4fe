from hypothesis import given
from hypothesis import strategies as st

from stream.worker.halts.breaker import Breaker, ShardBreaker

BREAKER = Breaker(max_ratio=0.2, min_records=100, window=60.0)


def test_a_large_unit_is_judged_on_its_own():
    assert ShardBreaker(BREAKER).trips(0.0, 100, 20) is None
    assert ShardBreaker(BREAKER).trips(0.0, 100, 21) == "21 of 100 records"
    assert ShardBreaker(BREAKER).trips(0.0, 99, 99) is None


def test_small_units_are_judged_together():
    breaker = ShardBreaker(BREAKER)
    assert [breaker.trips(float(second), 30, 9) for second in range(3)] == [None] * 3
    assert breaker.trips(3.0, 30, 9) == "36 of 120 records of the last 60 s, 9 of 30 in this unit,"


def test_units_outside_the_window_do_not_count():
    breaker = ShardBreaker(BREAKER)
    assert [breaker.trips(30.0 * step, 40, 40) for step in range(10)] == [None] * 10


def test_a_good_unit_never_trips_because_of_earlier_ones():
    breaker = ShardBreaker(BREAKER)
    for second in range(3):
        breaker.trips(float(second), 30, 30)
    assert breaker.trips(3.0, 30, 0) is None


@given(st.lists(st.tuples(st.integers(1, 200), st.integers(0, 200)).filter(lambda unit: unit[1] <= unit[0])))
def test_it_trips_only_above_the_ratio(units):
    breaker, seen = ShardBreaker(BREAKER), []
    for second, (records, dead) in enumerate(units[:50]):
        seen.append((records, dead))
        if breaker.trips(float(second), records, dead) is not None:
            alone, together = dead / records, sum(d for _, d in seen) / sum(r for r, _ in seen)
            assert max(alone, together) > BREAKER.max_ratio
