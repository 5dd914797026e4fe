from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from stream.contracts import Shard
from stream.lease.shards import children_of, ready


def named(number: int) -> str:
    return f"shardId-{number:012d}"


def grown(seed: int, steps: int, roots: int) -> list[Shard]:
    """A stream after random splits and merges of its open shards."""
    dice = random.Random(seed)
    made = [Shard("s", named(i)) for i in range(roots)]
    live = [shard.shard_id for shard in made]
    for _ in range(steps):
        place = dice.randrange(len(live))
        if dice.random() < 0.4 and place + 1 < len(live):
            parents = (live[place], live[place + 1])
            made.append(Shard("s", named(len(made)), parents))
            live[place : place + 2] = [made[-1].shard_id]
        else:
            halves = [Shard("s", named(len(made) + i), (live[place],)) for i in range(2)]
            made += halves
            live[place : place + 1] = [half.shard_id for half in halves]
    return made


def ids(shards: list[Shard]) -> list[str]:
    return [shard.shard_id for shard in shards]


@given(st.integers(0, 10**6), st.integers(0, 25), st.integers(1, 5), st.integers(0, 10))
def test_every_shard_is_started_once_and_only_behind_its_parents(seed: int, steps: int, roots: int, trimmed: int) -> None:
    everything = grown(seed, steps, roots)
    listed = everything[min(trimmed, len(everything) - 1) :]
    known = set(ids(listed))
    dice = random.Random(seed)
    ended: set[str] = set()
    running: set[str] = set()
    order: list[str] = []
    while len(ended) < len(listed):
        for shard in ready(dice.sample(listed, len(listed)), ended, running):
            assert all(parent in ended or parent not in known for parent in shard.parents)
            running.add(shard.shard_id)
            order.append(shard.shard_id)
        assert running, "nothing runs and nothing is ready"
        finished = dice.choice(sorted(running))
        running.remove(finished)
        ended.add(finished)
    assert sorted(order) == sorted(known)
    assert ready(listed, ended, running) == []


def test_a_merge_waits_for_both_parents() -> None:
    shards = [Shard("s", "a"), Shard("s", "b"), Shard("s", "c", ("a", "b"))]
    assert ids(ready(shards, set(), set())) == ["a", "b"]
    assert ids(ready(shards, {"a"}, {"b"})) == []
    assert ids(ready(shards, {"a", "b"}, set())) == ["c"]


def test_a_parent_that_the_service_forgot_blocks_nobody_but_one_that_runs_does() -> None:
    shards = [Shard("s", "b"), Shard("s", "c", ("gone", "b"))]
    assert ids(ready(shards, set(), {"b"})) == []
    assert ids(ready(shards, {"b"}, set())) == ["c"]
    assert ids(ready([Shard("s", "c", ("gone",))], set(), set())) == ["c"]


def test_shards_come_in_order_of_id_whatever_the_order_given() -> None:
    shards = [Shard("s", named(i)) for i in (5, 1, 3)]
    assert ids(ready(shards, set(), set())) == [named(1), named(3), named(5)]


def test_children_are_found_by_either_parent() -> None:
    shards = [Shard("s", "d", ("a",)), Shard("s", "c", ("a", "b")), Shard("s", "a"), Shard("s", "b")]
    assert ids(children_of(shards, "a")) == ["c", "d"]
    assert ids(children_of(shards, "b")) == ["c"]
    assert children_of(shards, "d") == []
