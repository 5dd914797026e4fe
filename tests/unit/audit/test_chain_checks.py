"""Checkpoints beside another application on the same leases."""

from __future__ import annotations

import pytest

from stream.audit.chain import Followed, Link, LinkKind, ShardLog, StoredCheckpoint
from stream.audit.chain_checks import check_checkpoint, check_passed

LOG = ShardLog("s", "shardId-000000000000", (), ())
UNIT = Link("u", LinkKind.UNIT, sealed=True, digest="d", last=7)


def end(trigger, after=0):
    return Link("e", LinkKind.END, sealed=True, digest="d", after=after, trigger=trigger)


@pytest.mark.parametrize("stored", [None, StoredCheckpoint(0, 0, 0)])
def test_a_shard_ended_by_another_application_needs_no_checkpoint_of_ours(stored):
    assert check_checkpoint(LOG, Followed((), end("foreign"), None), stored) == []


def test_our_checkpoint_may_stay_at_our_last_unit_if_another_application_reached_the_end():
    chain = Followed((UNIT,), end("foreign", 7), None)
    assert check_checkpoint(LOG, chain, StoredCheckpoint(7, 0, 0)) == []
    assert check_checkpoint(LOG, chain, StoredCheckpoint(5, 0, 0)) != []


def test_a_shard_we_ended_needs_a_checkpoint():
    assert check_checkpoint(LOG, Followed((), end("end"), None), StoredCheckpoint(0, 0, 0)) != []


@pytest.mark.parametrize(
    ("stored", "sound"),
    [
        (None, True),
        (StoredCheckpoint(0, 0, 0), True),
        (StoredCheckpoint(7, 0, 0), True),
        (StoredCheckpoint(None, 0, 7), True),
        (StoredCheckpoint(5, 0, 0), False),
        (StoredCheckpoint(7, 1, 0), False),
        (StoredCheckpoint(9, 0, 7), False),
        (StoredCheckpoint(None, problem="it was edited"), False),
    ],
)
def test_an_earlier_checkpoint_must_be_a_position_in_the_chain(stored, sound):
    chain = Followed((UNIT,), end("shard_end", 7), None)
    assert bool(check_passed(LOG, chain, stored)) is not sound
