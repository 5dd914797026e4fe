"""Whether to follow a leader, who has which lease, and who inherits it, decided from observations."""

import pytest

from stream.lease.decide import ObservedLease
from stream.lease.fleet_rules import (
    ALIVE_SECONDS,
    FIRST_LOOK_SECONDS,
    FleetView,
    Leader,
    Member,
    Version,
    alive,
    assigned,
    dead_workers,
    follows,
    leads,
    observe,
    refusal,
    reports,
    successor,
    wanted_elsewhere,
)
from tests.unit.lease.tables import lease

JAVA, OURS = Member("java", "1"), Member("ours", "1", ours=True)


def seen(key, owner, changed=0.0, checkpoint="TRIM_HORIZON"):
    return ObservedLease(lease(key, owner, checkpoint=checkpoint), changed, changed)


def fleet(*members, leader=None, at=0.0):
    return observe(FleetView(), leader, members, at)


@pytest.mark.parametrize("version", [None, *Version])
def test_known_client_versions_are_joined(version):
    assert refusal("t", version) is None


def test_an_unknown_client_version_is_refused_with_a_remedy():
    assert "coordination.native.table" in refusal("t", "CLIENT_VERSION_4X")


@pytest.mark.parametrize(
    ("version", "wanted"),
    [(None, False), ("CLIENT_VERSION_2X", False), ("CLIENT_VERSION_UPGRADE_FROM_2X", True), ("CLIENT_VERSION_3X", True)],
)
def test_reports_are_written_for_the_versions_that_expect_them(version, wanted):
    assert reports(version) is wanted


@pytest.mark.parametrize("version", [None, Version.INIT, Version.TWO, Version.UPGRADING])
def test_below_3_x_no_leader_is_followed(version):
    assert not follows(version, fleet(JAVA, leader=Leader("java", "a", 120.0)), (), 1.0)


@pytest.mark.parametrize("version", [Version.THREE, Version.THREE_WITH_ROLLBACK])
def test_a_leader_or_a_worker_that_may_become_one_is_followed(version):
    assert follows(version, fleet(leader=Leader("java", "a", 120.0)), {"java"}, 100.0)
    assert follows(version, fleet(JAVA), (), 1.0)
    assert not follows(version, fleet(JAVA), {"java"}, 1.0)
    assert not follows(version, fleet(OURS), (), 1.0)
    assert not follows(version, fleet(), (), 1.0)


def test_a_leader_leads_until_its_lock_expires():
    held = Leader("java", "a", 120.0)
    looks = observe(fleet(leader=held), held, (), 119.0)
    assert leads(looks, 119.9)
    assert not leads(looks, 120.0)
    beaten = observe(looks, Leader("java", "b", 120.0), (), 119.0)
    assert leads(beaten, 238.0)
    # The lock of another begins anew, even if by chance its mark is the same.
    assert leads(observe(looks, Leader("java-2", "a", 120.0), (), 119.0), 238.0)
    assert not leads(observe(looks, None, (), 119.0), 119.0)


def test_a_worker_is_alive_while_its_reports_change():
    first = fleet(JAVA)
    assert alive(first, "java", FIRST_LOOK_SECONDS - 1)
    assert not alive(first, "java", FIRST_LOOK_SECONDS)
    later = observe(first, None, [Member("java", "2")], 30.0)
    assert alive(later, "java", 30.0 + ALIVE_SECONDS - 1)
    assert not alive(later, "java", 30.0 + ALIVE_SECONDS)
    assert not alive(observe(later, None, [], 31.0), "java", 31.0)


def test_an_assigned_lease_is_begun_once_its_previous_owner_has_released_it():
    rows = [lease("a", "me"), lease("b", "me", checkpoint_owner="java"), lease("c", "java"), lease("d", "me"), lease("e", "me"), lease("f")]
    assert [row.key for row in assigned(rows, "me", {"d"}, {"e"})] == ["a"]


def test_a_lease_is_wanted_elsewhere_as_soon_as_another_owner_is_named():
    assert wanted_elsewhere(lease("a", "java", checkpoint_owner="me"), "me")
    assert not wanted_elsewhere(lease("a", "me"), "me")
    assert not wanted_elsewhere(lease("a", "me", checkpoint_owner="java"), "me")
    assert not wanted_elsewhere(lease("a", checkpoint_owner="me"), "me")


def test_the_least_loaded_living_worker_inherits_a_lease():
    rows = [seen("a", "java"), seen("b", "java"), seen("c", "ours"), seen("d", "me"), seen("e", "ours", checkpoint="SHARD_END")]
    now = 5.0
    assert successor(fleet(JAVA, OURS), rows, {}, "me", now, 10.0) == "ours"
    assert successor(fleet(JAVA, OURS), rows, {"ours": 2}, "me", now, 10.0) == "java"
    assert successor(fleet(JAVA, OURS), rows, {"ours": 1}, "me", now, 10.0) == "ours"
    assert successor(fleet(Member("me", "1", ours=True)), rows, {}, "me", now, 10.0) is None
    assert successor(fleet(JAVA, at=-100.0), rows, {}, "me", now, 10.0) is None


def test_a_worker_that_lets_all_of_its_leases_expire_is_idle():
    rows = [seen("a", "java", -20.0), seen("b", "java", -20.0), seen("c", "other", -20.0), seen("d", "other"), seen("e", None)]
    assert dead_workers(rows, 0.0, 10.0) == {"java"}
    assert dead_workers([ObservedLease(lease("a", "next", checkpoint_owner="java"), 0.0, 0.0)], 0.0, 10.0) == set()


def test_a_worker_that_lets_its_leases_expire_inherits_nothing():
    rows = [seen("a", "java", changed=-20.0), seen("b", "ours")]
    assert successor(fleet(JAVA, OURS), rows, {"ours": 5}, "me", 0.0, 10.0) == "ours"
    assert successor(fleet(JAVA), rows, {}, "me", 0.0, 10.0) is None
