"""Loads in good order: against the double, through the real client."""

from tests.redshift.world import UPSERT


def test_every_sealed_row_is_in_the_table_once(world):
    world.seal({0: 3, 1: 2})
    assert world.load()
    world.assert_exactly_once()
    assert world.ledger() == world.heads()
    world.seal({0: 1, 2: 4})
    assert world.load()
    world.assert_exactly_once()


def test_an_upsert_keeps_the_row_with_the_last_sequence_number(make_world):
    world = make_world(options=UPSERT)
    world.seal({0: 3, 1: 2})
    assert world.load()
    world.assert_exactly_once()
    world.seal({1: 3, 0: 1})
    assert world.load()
    world.assert_exactly_once()
