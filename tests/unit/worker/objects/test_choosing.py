from datetime import UTC, datetime
from random import Random

import pytest

from stream.contracts import ObjectInfo
from stream.source.objects import PinnedObject
from stream.worker.objects.choosing import CLAIM_OBJECTS, WAITING_MESSAGES, Held, claim_of, is_due, seconds_to_wait, sort_out
from stream.worker.objects.claimed import Block, Claimed, joined, version_digest

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def info(key, size=10, version="v1"):
    return ObjectInfo(key, size, NOW, version)


def pinned(key, size=10, version="v1"):
    return PinnedObject(key, size, version, NOW.isoformat())


def test_objects_are_sorted_by_whether_this_version_or_another_one_is_claimed():
    claimed = Claimed()
    claimed.add([("same", pinned("same")), ("longer", pinned("longer")), ("other", pinned("other"))])
    found = sort_out([info("new"), info("same"), info("longer", size=11), info("other", version="v2")], claimed)
    assert [each.key for each in found.fresh] == ["new"]
    assert [each.key for each in found.changed] == ["longer", "other"]
    assert found.claimed == 1


@pytest.mark.parametrize("seed", range(20))
def test_what_is_claimed_is_found_wherever_it_lies(seed, monkeypatch):
    """In recent entries, in chunks, in merged ones, and in blocks that were read."""
    from stream.worker.objects import claimed as module

    monkeypatch.setattr(module, "_CHUNK", 7)
    monkeypatch.setattr(module, "_MERGED", 3)
    rng, claimed, blocks = Random(seed), Claimed(), []
    names = [f"{number}" for number in range(rng.randrange(1, 200))]
    left = list(names)
    while left:
        some = [left.pop() for _ in range(min(len(left), rng.randrange(1, 12)))]
        into = Claimed() if rng.random() < 0.4 else claimed
        keys, versions = into.add([(name, pinned(name, size=int(name))) for name in some])
        if into is not claimed:
            blocks.append(Block("u", keys, versions))
        if len(blocks) == 2:
            claimed.add_block(joined(blocks))
            blocks = []
    for block in blocks:
        claimed.add_block(block)
    assert len(claimed) == len(names)
    found = claimed.versions([info(name) for name in [*names, "new"]])
    assert found == [*(version_digest(int(name), "v1") for name in names), None]


def test_an_empty_block_adds_nothing():
    claimed = Claimed()
    claimed.add_block(Block("u", b"", b""))
    assert claimed.of_keys(["a"]) == [None]
    assert claimed.of_keys([]) == []


def test_each_shard_gets_about_as_many_bytes_and_continues_where_it_was():
    claim = claim_of([info(str(number), size=100) for number in range(8)], [5, 0, 2], 4, turn=0)
    assert claim.appended == ((5, 7), (0, 2), (2, 4), (0, 2))
    assert [[item.key for item in claim.objects_of(shard)] for shard in (1, 2, 3, 4)] == [["0", "1"], ["2", "3"], ["4", "5"], ["6", "7"]]


def test_claims_of_one_object_reach_all_shards_in_turn_and_shards_of_an_earlier_definition_keep_what_they_have():
    ends, took = [3, 3, 3, 9], []
    for turn in range(6):
        claim = claim_of([info("x")], ends, 3, turn)
        took.append([end - begin for begin, end in claim.appended].index(1))
        ends = [end for _, end in claim.appended]
    assert took == [0, 1, 2, 0, 1, 2]
    assert ends == [5, 5, 5, 9]


@pytest.mark.parametrize(
    ("held", "now", "due"),
    [
        (Held(0, 0, float("-inf")), 100.0, False),
        (Held(1, 1, float("-inf")), 100.0, True),
        (Held(1, 1, 95.0), 100.0, False),
        (Held(1, 1, 90.0), 100.0, True),
        (Held(CLAIM_OBJECTS, 1, 99.9), 100.0, True),
        (Held(1, WAITING_MESSAGES, 99.9), 100.0, True),
    ],
)
def test_a_claim_is_due_when_it_is_full_or_the_last_one_is_old(held, now, due):
    assert is_due(held, now, 10.0) is due


def test_a_receive_waits_no_longer_than_a_message_may_wait_and_never_spins():
    assert seconds_to_wait(Held(0, 0, 0.0), 100.0, 10.0, 20) == 20
    assert seconds_to_wait(Held(1, 1, 95.0), 100.0, 10.0, 20) == 5
    assert seconds_to_wait(Held(1, 1, 90.1), 100.0, 10.0, 20) == 1
    assert seconds_to_wait(Held(1, 1, 100.0), 100.0, 60.0, 20) == 20
