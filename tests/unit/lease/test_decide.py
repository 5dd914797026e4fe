"""Who takes which lease: the KCL 2.x taker by the cases of its own tests, and the even balance in random fleets."""

import math
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.lease.decide import ObservedLease, Rules, Why, first_holder, is_available, marked_as_stolen, observe, take_as_kcl, take_evenly
from tests.unit.lease.plain_balance import take_plainly
from tests.unit.lease.tables import lease

NOW = 1000.0
FAILOVER = 10.0
RULES = Rules(FAILOVER)


def seen_of(*rows):
    """Rows as ``(owner, seconds since the counter changed)``."""
    made = [ObservedLease(lease(f"shardId-{at}", owner), NOW - age, NOW - age) for at, (owner, age) in enumerate(rows)]
    return {row.lease.key: row for row in made}


def in_given_order(rows):
    return sorted(rows, key=lambda row: row.lease.key)


def kcl(rows, me="me", rules=RULES):
    takes = take_as_kcl(seen_of(*rows), me, NOW, rules, in_given_order)
    return [int(take.lease.key.removeprefix("shardId-")) for take in takes]


FRESH = 1.0
EXPIRED = 15.0
VERY_OLD = 31.0


@pytest.mark.parametrize(
    ("name", "rows", "expected"),
    [
        ("expired leases are taken up to the target", [("a", FRESH), *[("b", EXPIRED)] * 4], [1, 2, 3]),
        ("own expired leases are taken again", [("me", EXPIRED)], [0]),
        ("a lease that is renewed is left alone", [("a", FRESH)], []),
        ("very old ones are all taken, whatever the target", [("a", FRESH), ("b", VERY_OLD), ("b", VERY_OLD)], [1, 2]),
        ("a new row that nobody owns is infinitely old", [("a", FRESH), (None, math.inf)], [1]),
        ("no steal when off by one", [("me", FRESH), ("a", FRESH), ("a", FRESH)], []),
        ("one is stolen from the most loaded", [("me", FRESH), ("a", FRESH), ("a", FRESH), ("a", FRESH)], [1]),
        ("nothing is stolen while some are expired", [("a", FRESH), ("a", FRESH), ("a", FRESH), ("b", EXPIRED)], [3]),
        ("more workers than leases: one each", [("a", FRESH), ("b", FRESH)], []),
    ],
)
def test_the_kcl_rule_takes_what_the_kcl_takes(name, rows, expected):
    assert kcl(rows) == expected, name


def test_the_kcl_rule_counts_ended_shards_like_any_other():
    seen = seen_of(("a", FRESH), ("a", FRESH), ("me", FRESH), ("me", FRESH))
    ended = {key: ObservedLease(lease(key, row.lease.owner, checkpoint="SHARD_END"), row.changed, row.since) for key, row in seen.items()}
    mixed = seen | {key: ended[key] for key in ("shardId-2", "shardId-3")}
    assert take_as_kcl(mixed, "me", NOW, RULES, in_given_order) == []


def test_the_kcl_rule_never_takes_more_than_allowed():
    assert kcl([(None, math.inf)] * 5, rules=Rules(FAILOVER, max_leases=2)) == [0, 1]
    assert kcl([("a", EXPIRED)] * 5, rules=Rules(FAILOVER, max_leases=2)) == [0, 1]
    assert kcl([("me", FRESH), ("a", VERY_OLD)], rules=Rules(FAILOVER, max_leases=1)) == []
    assert kcl([("me", FRESH), ("me", FRESH), ("a", VERY_OLD)], rules=Rules(FAILOVER, max_leases=1)) == []


def test_the_kcl_rule_steals_what_is_missing_up_to_the_limit():
    assert kcl([("a", FRESH)] * 6, rules=Rules(FAILOVER, max_steal=5)) == [0, 1, 2]
    assert kcl([("a", FRESH)] * 6, rules=Rules(FAILOVER, steal=False)) == []


def test_a_worker_that_needs_two_steals_one_from_a_worker_at_its_target():
    # Five leases, three workers, target 2: `a` and `b` are at it or above, this worker has none.
    assert kcl([("a", FRESH), ("a", FRESH), ("b", FRESH), ("b", FRESH)]) == [0]


def test_the_age_of_a_lease_counts_from_when_its_counter_was_seen_to_change():
    first = observe({}, [lease("x", "a", 5), lease("y")], 100.0)
    assert first["x"].changed == 100.0
    assert first["y"].changed == -math.inf
    assert is_available(first["y"], 100.0, FAILOVER)
    again = observe(first, [lease("x", "a", 5)], 109.0)
    assert not is_available(again["x"], 109.0, FAILOVER)
    assert is_available(again["x"], 110.1, FAILOVER)
    assert not is_available(observe(again, [lease("x", "a", 6)], 110.1)["x"], 119.0, FAILOVER)
    assert observe(again, [lease("x", "b", 6)], 110.0)["x"].since == 110.0


def test_a_lease_in_a_hand_off_belongs_to_its_present_owner():
    handed = ObservedLease(lease("x", "next", checkpoint_owner="present"), NOW, NOW)
    assert not is_available(handed, NOW, FAILOVER)
    assert take_evenly({"x": handed}, "me", NOW, RULES) == []


def test_taking_a_lease_its_owner_still_renews_is_called_stealing():
    rows = seen_of(("a", FRESH), ("a", FRESH), ("a", FRESH), (None, FRESH))
    takes = take_as_kcl(rows, "me", NOW, RULES, in_given_order)
    assert [take.why for take in marked_as_stolen(takes, rows, NOW, FAILOVER)] == [Why.FREE]
    stolen = take_evenly(seen_of(("a", FRESH), ("a", FRESH)), "me", NOW, RULES)
    assert [take.why for take in marked_as_stolen(stolen, rows, NOW, FAILOVER)] == [Why.STOLEN]
    expired = take_evenly(late := seen_of(("a", EXPIRED)), "me", NOW, RULES)
    assert [take.why for take in marked_as_stolen(expired, late, NOW, FAILOVER)] == [Why.EXPIRED]


def even(rows, me="me", rules=RULES):
    return [take.lease.key for take in take_evenly(rows, me, NOW, rules)]


def test_ended_shards_do_not_count_in_the_even_balance():
    rows = {key: ObservedLease(lease(key, "me", checkpoint="SHARD_END"), NOW, NOW) for key in ("e1", "e2", "e3")}
    rows |= {key: ObservedLease(lease(key, "a"), NOW, NOW) for key in ("x", "y")}
    assert len(even(rows)) == 1


@pytest.mark.parametrize(("rows", "expected"), [([("me", EXPIRED)], 1), ([("me", FRESH), ("me", EXPIRED)], 0), ([("me", FRESH)] * 2, 0)])
def test_leases_of_its_own_that_have_expired_do_not_count_against_its_maximum(rows, expected):
    assert len(take_evenly(seen_of(*rows), "me", NOW, Rules(FAILOVER, max_leases=1))) == expected


def test_a_hot_lease_weighs_more_than_many_quiet_ones():
    rows = {"hot": ObservedLease(lease("hot", "a", throughput=5000.0), NOW, NOW - 999)}
    rows |= {f"q{at}": ObservedLease(lease(f"q{at}", "a", throughput=1.0), NOW, NOW - 999) for at in range(3)}
    rows |= {f"m{at}": ObservedLease(lease(f"m{at}", "me", throughput=1.0), NOW, NOW - 999) for at in range(2)}
    assert "hot" not in even(rows)


def test_a_lease_stays_for_its_tenure_unless_the_taker_has_none():
    rows = {f"s{at}": ObservedLease(lease(f"s{at}", "a"), NOW, NOW - 1) for at in range(6)}
    rules = Rules(FAILOVER, max_steal=8, tenure=60.0)
    assert len(even(rows, rules=rules)) == 3
    rows |= {"mine": ObservedLease(lease("mine", "me"), NOW, NOW - 1)}
    assert even(rows, rules=rules) == []


def test_low_rates_do_not_move_leases():
    rows = {f"s{at}": ObservedLease(lease(f"s{at}", ("a", "me")[at % 2], throughput=3.0 * (at % 2)), NOW, NOW - 999) for at in range(8)}
    assert even(rows) == even(rows, me="a") == []


def test_a_free_lease_that_nobody_takes_is_taken_by_any_worker_in_the_end():
    owned = {f"s{at}": ObservedLease(lease(f"s{at}", "me"), NOW, NOW) for at in range(3)}
    other = {"o": ObservedLease(lease("o", "a"), NOW, NOW)}
    assert even(owned | other | {"x": ObservedLease(lease("x"), NOW - 1, NOW)}) == []
    assert even(owned | other | {"x": ObservedLease(lease("x"), NOW - 31, NOW)}) == ["x"]


def test_a_new_lease_is_taken_even_if_the_least_loaded_worker_has_its_maximum():
    rules = Rules(FAILOVER, max_leases=3)
    rows = [lease("hot", "me", throughput=5000.0), *(lease(f"quiet{at}", "a") for at in range(3)), lease("new")]
    seen = observe({}, rows, NOW - 31)
    assert take_evenly(seen, "a", NOW - 31, rules) == take_evenly(seen, "me", NOW - 31, rules) == []
    renewed = observe(seen, [lease(row.key, row.owner, 1, throughput=row.throughput) if row.owner else row for row in rows], NOW)
    assert even(renewed, "a", rules) == []
    assert even(renewed, "me", rules) == ["new"]


fleets = st.tuples(st.integers(1, 8), st.integers(0, 40), st.integers(0, 2**32))


def play(workers, leases, seed, choose, rounds):
    """In each round every worker decides from its own view, in random order; the second taker of a lease fails. Returns moves a round."""
    rng = Random(seed)
    rows = {f"s{at:02}": lease(f"s{at:02}", throughput=rng.choice((0.0, 0.0, 10.0, 200.0))) for at in range(leases)}
    views, moves, now = {worker: {} for worker in range(workers)}, [], 0.0
    for _ in range(rounds):
        now += 2 * FAILOVER
        moved = 0
        views = {worker: observe(view, rows.values(), now - rng.random()) for worker, view in views.items()}
        for worker in rng.sample(sorted(views), workers):
            for take in choose(views[worker], f"w{worker}", now, rng):
                if rows[take.lease.key].counter == take.lease.counter:
                    rows[take.lease.key] = lease(
                        take.lease.key, f"w{worker}", take.lease.counter + 1, throughput=rows[take.lease.key].throughput
                    )
                    moved += 1
        moves.append(moved)
        for key, row in rows.items():
            rows[key] = lease(key, row.owner, row.counter + 1, throughput=row.throughput)
    return rows, moves


@given(fleets)
@settings(max_examples=60, deadline=None)
def test_an_evenly_balanced_fleet_settles_and_stays(fleet):
    workers, leases, seed = fleet
    rules = Rules(FAILOVER, max_steal=8)
    rows, moves = play(workers, leases, seed, lambda seen, me, now, _: take_evenly(seen, me, now, rules), 24)
    assert all(row.owner is not None for row in rows.values())
    assert moves[-6:] == [0] * 6
    load = {f"w{worker}": 0.0 for worker in range(workers)}
    for row in rows.values():
        load[row.owner] += 32 + row.throughput
    mean, heaviest = sum(load.values()) / workers, max((32 + row.throughput for row in rows.values()), default=0)
    assert max(load.values()) - min(load.values()) <= max(1.25 * heaviest, 0.1 * mean) + 1e-6


@given(fleets)
@settings(max_examples=60, deadline=None)
def test_a_fleet_by_kcl_rules_settles_with_no_worker_above_the_target(fleet):
    workers, leases, seed = fleet

    def choose(seen, me, now, rng):
        return take_as_kcl(seen, me, now, RULES, lambda rows: rng.sample(rows, len(rows)))

    rows, _ = play(workers, leases, seed, choose, leases + 20)
    assert all(row.owner is not None for row in rows.values())
    counts = {f"w{worker}": sum(row.owner == f"w{worker}" for row in rows.values()) for worker in range(workers)}
    target = 1 if workers >= leases else math.ceil(leases / workers)
    assert max(counts.values()) <= target


@given(fleets, st.sampled_from((1, 8, 100)), st.sampled_from((0.0, 60.0)), st.sampled_from((2**31, 3)))
@settings(deadline=None)
def test_the_fast_balance_equals_the_plain_one(fleet, steals, tenure, most):
    workers, leases, seed = fleet
    rng, rules = Random(seed), Rules(FAILOVER, max_leases=most, max_steal=steals, tenure=tenure)
    ages, unowned = rng.choice(((FRESH,), (FRESH,), (FRESH, EXPIRED, VERY_OLD))), rng.choice((0.0, 0.0, 0.1))
    rows = {}
    for at in range(leases):
        owner = f"w{rng.choice((0, rng.randrange(workers)))}" if rng.random() >= unowned else None
        row = lease(f"s{at:02}", owner, throughput=rng.choice((0.0, 1.0, 10.0, 500 * rng.random())))
        rows[row.key] = ObservedLease(row, NOW - rng.choice(ages) if owner else -math.inf, NOW - rng.choice((1.0, 99.0)))
    for me in ("me", "w0"):
        assert even(rows, me, rules) == take_plainly(rows, me, NOW, rules)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([], None),
        ([(None, math.inf), (None, math.inf)], None),
        ([("a", 1.0), ("b", 1.0)], "a"),
        ([(None, math.inf), ("b", 1.0)], "b"),
        # Whoever is dead does not hold up the others, also if nobody may take its lease.
        ([("a", 15.0), ("b", 1.0)], "b"),
        ([("a", 15.0), ("b", 15.0)], None),
    ],
)
def test_the_first_holder_is_the_live_owner_of_the_first_lease_that_has_one(rows, expected):
    assert first_holder(seen_of(*rows), NOW, FAILOVER) == expected
