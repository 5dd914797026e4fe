"""Which leases workers take from those that have no access: rule by rule, and in random fleets over hours."""

import math
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.lease.access import FIRST_HOLD, LONGEST_HOLD, Access, AccessRecord, within_reach
from stream.lease.decide import VERY_OLD, ObservedLease, Rules, Why, first_holder, marked_as_stolen, observe, take_as_kcl, take_evenly
from tests.unit.lease.tables import lease

NOW = 10_000.0
FAILOVER = 10.0


def said(key, holder, since=60.0):
    """A lease that its holder renews, and of which it has said for ``since`` seconds that it has no access."""
    return ObservedLease(lease(key, holder, refused=holder), NOW - 1, NOW - 500, NOW - since)


def renewed(key, holder):
    return ObservedLease(lease(key, holder), NOW - 1, NOW - 500)


def seen_by(rows, known, me="me"):
    return within_reach({row.lease.key: row for row in rows}, me, NOW, FAILOVER, known, lambda _: "s")


def taken(rows, known):
    seen = {row.lease.key: row for row in rows}
    takes = take_evenly(seen_by(rows, known), "me", NOW, Rules(FAILOVER, max_steal=8))
    return {take.lease.key: take.why for take in marked_as_stolen(takes, seen, NOW, FAILOVER)}


def record(sealed=(), refused=(), tried=None):
    known = AccessRecord()
    happened = [(at, known.seal, "mine") for at in sealed] + [(at, known.refuse, key) for key, at in refused]
    for at, note, key in sorted(happened, key=lambda each: each[0]):
        note("s", key, at)
    if tried is not None:
        known.attempt("s", tried)
    return known


HELD = [said("x", "a"), said("y", "a"), renewed("mine", "me")]


def test_a_worker_that_seals_takes_every_lease_of_one_without_access():
    assert taken(HELD, record(sealed=[NOW - 5])) == {"x": Why.REFUSED, "y": Why.REFUSED}


def test_a_worker_that_has_sealed_nothing_since_tries_one_lease_and_no_second_one():
    assert taken(HELD, record(sealed=[NOW - 70])) == {"x": Why.REFUSED}
    assert taken(HELD, record()) == {"x": Why.REFUSED}
    assert taken(HELD, record(tried=NOW - 20)) == {}
    assert taken(HELD, record(tried=NOW - 20, sealed=[NOW - 5])) == {"x": Why.REFUSED, "y": Why.REFUSED}
    assert taken(HELD, record(tried=NOW - FIRST_HOLD - 1)) == {"x": Why.REFUSED}


def test_a_lease_is_left_alone_for_a_failover_time_after_its_holder_has_said_so():
    assert taken([said("x", "a", FAILOVER - 1), renewed("mine", "me")], record(sealed=[NOW - 5])) == {}


def test_a_worker_without_access_takes_nothing_over_before_it_has_sealed_something():
    assert taken(HELD, record(refused=[("mine", NOW - 5)])) == {}
    assert taken(HELD, record(refused=[("mine", NOW - 2 * LONGEST_HOLD)])) == {}
    assert taken(HELD, record(refused=[("mine", NOW - 20)], sealed=[NOW - 5])) == {"x": Why.REFUSED, "y": Why.REFUSED}


def test_a_worker_without_access_leaves_balance_and_free_leases_to_others_for_a_while():
    known = record(refused=[("gone", NOW - 5)])
    assert taken([renewed(f"s{at}", "a") for at in range(6)], known) == {}
    assert taken([renewed(f"s{at}", "a") for at in range(6)], record(refused=[("gone", NOW - FIRST_HOLD - 1)]))
    assert taken([ObservedLease(lease("x"), NOW - 20, NOW - 20)], known) == {}
    assert taken([ObservedLease(lease("x"), NOW - VERY_OLD * FAILOVER - 1, NOW - 100)], known) == {"x": Why.FREE}


def test_a_lease_on_which_access_was_refused_to_this_worker_too_is_left_to_others():
    known = record(refused=[("x", NOW - 100)], sealed=[NOW - 5])
    assert taken(HELD, known) == {"y": Why.REFUSED}
    later = record(refused=[("x", NOW - LONGEST_HOLD - 1)], sealed=[NOW - 5])
    assert set(taken(HELD, later)) == {"x", "y"}


def test_leases_of_workers_without_access_are_not_moved_for_balance():
    rows = [said(f"s{at}", "a", 5.0) for at in range(6)]
    assert taken(rows, record(sealed=[NOW - 1])) == {}


def test_among_kcl_workers_they_are_taken_too():
    def choose(known):
        rows = seen_by(HELD, known)
        return [
            take.lease.key
            for take in take_as_kcl(rows, "me", NOW, Rules(FAILOVER), lambda found: sorted(found, key=lambda row: row.lease.key))
        ]

    assert choose(record(sealed=[NOW - 5])) == ["x", "y"]
    assert choose(record(refused=[("mine", NOW - 5)])) == []


def test_what_one_stream_lacks_does_not_count_in_another():
    known = record(refused=[("mine", NOW - 5)])
    rows = {row.lease.key: row for row in HELD}
    assert set(within_reach(rows, "me", NOW, FAILOVER, known, lambda key: "s" if key == "mine" else "t")) == {"x", "mine"}


def test_each_refusal_after_a_hold_doubles_it_and_a_seal_ends_it():
    access, now, holds = Access(), 0.0, []
    for _ in range(8):
        access = access.after_refusal(now)
        holds.append(access.hold)
        assert access.is_cut_off(now + access.hold)
        assert not access.is_cut_off(now + access.hold + 1)
        now += access.hold + 1
    assert holds == [300, 600, 1200, 2400, 3600, 3600, 3600, 3600]
    assert access.after_refusal(now - 10).hold == 3600
    assert access.after_seal(now) == Access(sealed=now)


def test_the_time_counts_from_when_a_worker_was_first_seen_to_say_that_it_has_no_access():
    first = observe({}, [lease("x", "a", 5, refused="a")], 100.0)
    assert observe(first, [lease("x", "a", 6, refused="a")], 110.0)["x"].refused == 100.0
    assert observe(first, [lease("x", "a", 6)], 110.0)["x"].refused is None
    assert observe(first, [lease("x", "b", 6, refused="b")], 110.0)["x"].refused == 110.0
    assert observe(first, [lease("x", "b", 6, refused="a")], 110.0)["x"].refused is None


def test_a_worker_without_access_is_the_last_to_look_for_all():
    rows = {row.lease.key: row for row in (said("a", "one"), renewed("b", "two"))}
    assert first_holder(rows, NOW, FAILOVER) == "two"
    assert first_holder({"a": rows["a"]}, NOW, FAILOVER) == "one"


def test_a_worker_that_may_not_list_is_the_last_to_list_for_all_whatever_else_it_holds():
    def barred(key, holder):
        return ObservedLease(lease(key, holder, unlisted=holder), NOW - 1, NOW - 500)

    def lists(*rows):
        return first_holder({row.lease.key: row for row in rows}, NOW, FAILOVER)

    assert lists(barred("a", "one"), renewed("b", "one"), said("c", "two")) == "two"
    assert lists(barred("b", "one"), renewed("a", "one"), renewed("c", "two")) == "two"
    assert lists(barred("a", "one"), barred("b", "two"), renewed("c", "three")) == "three"
    assert lists(barred("a", "one"), barred("b", "two")) == "one"
    # Whoever holds the lease now has not said so.
    assert lists(ObservedLease(lease("a", "two", unlisted="one"), NOW - 1, NOW - 500), renewed("b", "one")) == "two"


# --- fleets over hours ------------------------------------------------------------------------------------------------------

STEP = 5.0
fleets = st.tuples(st.integers(2, 6), st.integers(1, 10), st.integers(0, 2**32))


class Fleet:
    """Workers that share leases. ``reaches``: whether a worker can work on a shard at a moment; ``busy``: shards with records."""

    def __init__(self, workers, leases, seed, reaches, kcl=False):
        self.rng, self.reaches, self.kcl = Random(seed), reaches, kcl
        self.workers = [f"w{at}" for at in range(workers)]
        self.rows = {f"s{at:02}": lease(f"s{at:02}") for at in range(leases)}
        self.busy = {key for key in self.rows if self.rng.random() < 0.7} or {"s00"}
        self.views = {worker: {} for worker in self.workers}
        self.known = {worker: AccessRecord() for worker in self.workers}
        self.now, self.moves = 1000.0, []

    def run(self, seconds):
        """Let time pass; returns the moves from one worker to another as (when, key, why)."""
        begin, end = len(self.moves), self.now + seconds
        while self.now < end:
            self.now += STEP
            self._work()
            for worker in self.rng.sample(self.workers, len(self.workers)):
                self._take(worker)
        return self.moves[begin:]

    def _work(self):
        for key, row in self.rows.items():
            refused = row.refused
            if row.owner is not None and key in self.busy:
                if not self.reaches(row.owner, key, self.now):
                    refused = row.owner
                    self.known[row.owner].refuse("s", key, self.now)
                elif self.rng.random() < 0.2:
                    refused = None
                    self.known[row.owner].seal("s", key, self.now)
            self.rows[key] = lease(key, row.owner, row.counter + 1, refused=refused)

    def _take(self, me):
        seen = self.views[me] = observe(self.views[me], self.rows.values(), self.now)
        known = self.known[me]
        within = within_reach(seen, me, self.now, FAILOVER, known, lambda _: "s")
        steal = self.rng.random() < 0.1
        rules = Rules(FAILOVER, max_steal=1 if known.in_doubt or self.kcl else 8, steal=steal, tenure=60.0)
        if self.kcl:
            takes = take_as_kcl(within, me, self.now, rules, lambda rows: self.rng.sample(rows, len(rows)))
        else:
            takes = take_evenly(within, me, self.now, rules)
        for take in marked_as_stolen(takes, seen, self.now, FAILOVER):
            row = self.rows[take.lease.key]
            if row.counter != take.lease.counter or row.owner == me:
                continue
            if row.owner is not None:
                self.moves.append((self.now, row.key, take.why))
            if take.why is Why.REFUSED or (take.why is Why.STOLEN and known.in_doubt):
                known.attempt("s", self.now)
            self.rows[row.key] = lease(row.key, me, row.counter + 1)

    def owners(self):
        return {key: row.owner for key, row in self.rows.items()}


@pytest.mark.parametrize("kcl", [False, True], ids=["even", "kcl"])
@given(fleets)
@settings(max_examples=10, deadline=None)
def test_when_one_worker_alone_loses_its_access_the_others_read_its_shards_and_it_takes_few_back(kcl, drawn):
    workers, leases, seed = drawn
    lost = [math.inf]
    fleet = Fleet(workers, leases, seed, lambda worker, _, now: worker != "w0" or now < lost[0], kcl)
    fleet.run(300)
    lost[0] = fleet.now
    fleet.run(600)
    stuck = {key for key, owner in fleet.owners().items() if owner == "w0" and key in fleet.busy}
    # It may be trying its access again just now, with one shard at a time.
    assert len(stuck) <= 1, f"seed {seed}: {stuck}"
    back = [move for move in fleet.run(2 * 3600) if move[2] is not Why.REFUSED]
    assert len(back) <= 8 + (leases - len(fleet.busy)) * 8, f"seed {seed}: {back}"


@pytest.mark.parametrize("kcl", [False, True], ids=["even", "kcl"])
@given(fleets)
@settings(max_examples=10, deadline=None)
def test_when_all_lose_their_access_every_lease_stays_and_when_it_is_back_all_work_again(kcl, drawn):
    workers, leases, seed = drawn
    gone = [math.inf, math.inf]
    fleet = Fleet(workers, leases, seed, lambda _, __, now: not gone[0] <= now < gone[1], kcl)
    fleet.busy = set(fleet.rows)
    fleet.run(300)
    gone[0] = fleet.now
    first = fleet.run(900)
    assert len(first) <= workers * (1 + leases // workers), f"seed {seed}: {first}"
    assert fleet.run(2 * 3600) == [], f"seed {seed}"
    gone[1] = fleet.now
    fleet.run(2 * 3600)
    assert all(row.refused is None for row in fleet.rows.values())
    assert all(not known.in_doubt for worker, known in fleet.known.items() if worker in fleet.owners().values())
    if not kcl:
        counts = [list(fleet.owners().values()).count(worker) for worker in fleet.workers]
        assert max(counts) - min(counts) <= 1, f"seed {seed}: {counts}"


@given(fleets)
@settings(max_examples=10, deadline=None)
def test_a_shard_that_nobody_can_work_on_is_passed_on_rarely(drawn):
    workers, leases, seed = drawn
    fleet = Fleet(workers, leases + 1, seed, lambda _, key, __: key != "s00")
    fleet.busy.add("s00")
    fleet.run(300)
    moves = [move for move in fleet.run(2 * 3600) if move[1] == "s00"]
    assert len(moves) <= 5 * workers, f"seed {seed}: {moves}"
