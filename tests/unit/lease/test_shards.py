from __future__ import annotations

import random
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.contracts import Shard, StartKind
from stream.lease.rows import ExtendedSequenceNumber, Progress, encode
from stream.lease.shards import children_of, holes, missing_leases, new_lease, ready, recreated, removable, replaced, unblocked
from tests.unit.lease.tables import lease


def named(number: int) -> str:
    return f"shardId-{number:012d}"


def grown(seed: int, steps: int, roots: int) -> list[Shard]:
    """A stream after random splits and merges of its open shards."""
    rng = random.Random(seed)
    made = [Shard("s", named(i)) for i in range(roots)]
    live = [shard.shard_id for shard in made]
    for _ in range(steps):
        place = rng.randrange(len(live))
        if rng.random() < 0.4 and place + 1 < len(live):
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
def test_every_shard_is_started_once_and_only_after_its_parents(seed: int, steps: int, roots: int, trimmed: int) -> None:
    everything = grown(seed, steps, roots)
    listed = everything[min(trimmed, len(everything) - 1) :]
    known = set(ids(listed))
    rng = random.Random(seed)
    ended: set[str] = set()
    running: set[str] = set()
    order: list[str] = []
    while len(ended) < len(listed):
        for shard in ready(rng.sample(listed, len(listed)), ended, running):
            assert all(parent in ended or parent not in known for parent in shard.parents)
            running.add(shard.shard_id)
            order.append(shard.shard_id)
        assert running, "nothing runs and nothing is ready"
        finished = rng.choice(sorted(running))
        running.remove(finished)
        ended.add(finished)
    assert sorted(order) == sorted(known)
    assert ready(listed, ended, running) == []


def test_a_merge_waits_for_both_parents() -> None:
    shards = [Shard("s", "a"), Shard("s", "b"), Shard("s", "c", ("a", "b"))]
    assert ids(ready(shards, set(), set())) == ["a", "b"]
    assert ids(ready(shards, {"a"}, {"b"})) == []
    assert ids(ready(shards, {"a", "b"}, set())) == ["c"]


def test_a_parent_missing_from_the_stream_blocks_nothing_and_a_running_one_does() -> None:
    shards = [Shard("s", "b"), Shard("s", "c", ("gone", "b"))]
    assert ids(ready(shards, set(), {"b"})) == []
    assert ids(ready(shards, {"b"}, set())) == ["c"]
    assert ids(ready([Shard("s", "c", ("gone",))], set(), set())) == ["c"]


@pytest.mark.parametrize(
    ("begins", "is_open", "end", "continued", "another"),
    [
        (100, False, 150, True, False),
        (100, True, 150, True, False),
        (100, True, 150, False, True),
        (200, True, 150, True, True),
        (200, False, 150, True, True),
        (151, False, 150, True, False),
        (200, False, 0, True, False),
        (200, True, 0, False, True),
        (0, False, 150, False, False),
    ],
)
def test_an_ended_shard_is_distinguished_from_a_new_one_with_the_same_id(
    begins: int, is_open: bool, end: int, continued: bool, another: bool
) -> None:
    now = Shard("s", "a", begins=begins, is_open=is_open)
    listed = [now, Shard("s", "b", ("a",) if continued else ())]
    assert recreated(now, end, ("b",), listed) is another
    assert recreated(now, end, (), listed) is (another and begins > end + 1 > 1)


def test_shards_are_started_in_order_of_id() -> None:
    shards = [Shard("s", named(i)) for i in (5, 1, 3)]
    assert ids(ready(shards, set(), set())) == [named(1), named(3), named(5)]


def test_children_are_found_by_either_parent() -> None:
    shards = [Shard("s", "d", ("a",)), Shard("s", "c", ("a", "b")), Shard("s", "a"), Shard("s", "b")]
    assert ids(children_of(shards, "a")) == ["c", "d"]
    assert ids(children_of(shards, "b")) == ["c"]
    assert children_of(shards, "d") == []


# --- lease rows -----------------------------------------------------------------------------------------------------------

# The graph of KCL's HierarchicalShardSyncer: 0+1 became 6, 2+3 became 7, 6+7 became 8; 4 is open since ever; 5 became 9 and 10.
KCL_GRAPH = [
    *(Shard("s", str(number)) for number in range(6)),
    Shard("s", "6", ("0", "1")),
    Shard("s", "7", ("2", "3")),
    Shard("s", "8", ("6", "7")),
    Shard("s", "9", ("5",)),
    Shard("s", "10", ("5",)),
]


def rows(*shards):
    return {shard: lease(shard) for shard in shards}


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (StartKind.LATEST, {"6": "LATEST"}),
        (StartKind.TRIM_HORIZON, {"0": "TRIM_HORIZON", "1": "TRIM_HORIZON"}),
        (StartKind.AT_TIMESTAMP, {"0": "AT_TIMESTAMP", "1": "AT_TIMESTAMP"}),
    ],
)
def test_missing_leases_match_the_example_in_the_kcls_documentation(start, expected):
    found = missing_leases(KCL_GRAPH, rows("4", "5", "7"), start)
    assert {shard.shard_id: sentinel for shard, sentinel in found} == expected


@pytest.mark.parametrize(
    ("start", "expected"),
    [(StartKind.LATEST, {"4", "8", "9", "10"}), (StartKind.TRIM_HORIZON, {"0", "1", "2", "3", "4", "5"})],
)
def test_an_empty_table_gets_the_leases_that_the_start_implies(start, expected):
    assert {shard.shard_id for shard, _ in missing_leases(KCL_GRAPH, {}, start)} == expected


def test_children_left_without_rows_by_a_crash_begin_at_the_beginning():
    ended = {"5": lease("5", checkpoint="SHARD_END"), **rows("4", "7", "6")}
    found = missing_leases(KCL_GRAPH, ended, StartKind.LATEST)
    assert {shard.shard_id: sentinel for shard, sentinel in found} == {"9": "TRIM_HORIZON", "10": "TRIM_HORIZON"}


def test_a_merged_shard_gets_no_row_before_both_of_its_parents_have_ended():
    """With a row, it would be read before the parent that has none, which nobody would ever read."""
    merged = [Shard("s", "1"), Shard("s", "2"), Shard("s", "3", ("1", "2"))]
    one, both = {"1": lease("1", checkpoint="SHARD_END")}, {name: lease(name, checkpoint="SHARD_END") for name in ("1", "2")}
    assert [(shard.shard_id, at) for shard, at in missing_leases(merged, one, StartKind.TRIM_HORIZON)] == [("2", "TRIM_HORIZON")]
    assert missing_leases(merged, one | rows("2"), StartKind.TRIM_HORIZON) == []
    assert [(shard.shard_id, at) for shard, at in missing_leases(merged, both, StartKind.LATEST)] == [("3", "TRIM_HORIZON")]


def test_a_new_row_equals_one_created_by_the_kcl():
    made = new_lease("7", Shard("s", "7", ("2", "3"), 5, 9), "TRIM_HORIZON")
    assert encode(made) == {
        "leaseKey": {"S": "7"},
        "checkpoint": {"S": "TRIM_HORIZON"},
        "checkpointSubSequenceNumber": {"N": "0"},
        "leaseCounter": {"N": "0"},
        "ownerSwitchesSinceCheckpoint": {"N": "0"},
        "parentShardId": {"SS": ["2", "3"]},
        "startingHashKey": {"S": "5"},
        "endingHashKey": {"S": "9"},
    }
    several = new_lease("1:s:2:7", Shard("s", "7"), "LATEST", stream_name="1:s:2")
    assert (several.stream_name, several.shard_id) == ("1:s:2", "7")


def test_a_child_waits_for_every_parent_that_has_a_row():
    child = lease("6", parents=frozenset({"0", "1"}))
    assert unblocked(child, {})
    assert not unblocked(child, rows("0"))
    assert not unblocked(child, {"0": lease("0", checkpoint="SHARD_END"), "1": lease("1")})
    assert unblocked(child, {"0": lease("0", checkpoint="SHARD_END"), "1": lease("1", checkpoint="SHARD_END")})


def removed(leases, listed=("0", "1", "2")):
    return [each.key for each in removable(leases, listed)]


def read(key, checkpoint, **more):
    """A row that one of our workers wrote."""
    shown = ExtendedSequenceNumber(checkpoint)
    return lease(key, checkpoint=checkpoint, progress=Progress(shown.sequence, 0, 0, shown), **more)


def test_the_row_of_an_ended_shard_is_removed_once_its_children_have_begun():
    ended = read("0", "SHARD_END", children=frozenset({"1", "2"}))
    assert removed({"0": ended}) == []
    assert removed({"0": ended, "1": lease("1", checkpoint="5")}) == []
    assert removed({"0": ended, "1": lease("1", checkpoint="5"), "2": lease("2")}) == []
    assert removed({"0": ended, "1": lease("1", checkpoint="5"), "2": lease("2", checkpoint="6")}) == ["0"]


def test_a_row_ended_by_another_application_stays_until_its_end_is_in_the_log():
    ended = lease("0", checkpoint="SHARD_END", children=frozenset({"1", "2"}))
    assert removed({"0": ended, "1": read("1", "5"), "2": lease("2", checkpoint="6")}) == []
    assert removed({"0": ended, "1": read("1", "5"), "2": read("2", "6")}) == ["0"]
    below = {"0": ended, "1": read("1", "5"), "2": lease("2", checkpoint="SHARD_END", parents=frozenset({"0"}))}
    third = lease("3", checkpoint="7", parents=frozenset({"2"}))
    assert removed(below | {"3": third}) == []
    assert removed(below | {"3": read("3", "7", parents=frozenset({"2"}))}) == ["0"]
    assert removed({"0": ended}, listed=("1", "2")) == ["0"]


@pytest.mark.parametrize(
    ("begins", "is_open", "position", "another"),
    [(100, False, 150, False), (200, True, 150, True), (200, False, 150, True), (100, True, 150, True), (200, True, None, True)],
)
def test_an_ended_row_whose_id_now_names_another_shard_is_replaced(begins, is_open, position, another):
    """The row's own shard continues in ``1`` and ``2``, which the stream does not list."""
    progress = None if position is None else Progress(None, 0, position, ExtendedSequenceNumber("SHARD_END"))
    ended = lease("0", checkpoint="SHARD_END", children=frozenset({"1", "2"}), progress=progress)
    listed = [Shard("s", "0", begins=begins, is_open=is_open), Shard("s", "3", begins=begins)]
    assert replaced([ended, lease("3")], listed) == ({"0"} if another else set())
    assert replaced([lease("0", checkpoint="9")], listed) == set()
    assert replaced([ended], listed[1:]) == set()


def test_no_row_is_removed_before_its_parents_or_before_it_has_ended():
    middle = read("1", "SHARD_END", parents=frozenset({"0"}), children=frozenset({"2"}))
    begun = lease("2", checkpoint="9")
    assert removed({"0": lease("0"), "1": middle, "2": begun}) == []
    assert removed({"1": middle, "2": begun}) == ["1"]
    assert removed({"1": middle, "2": lease("2")}, listed=("2",)) == ["1"]
    assert removed({"2": begun}, listed=()) == []


def test_holes_in_the_hash_range_are_found():
    top = 2**128 - 1

    def ranged(*ranges, checkpoint="5"):
        return [lease(str(each), checkpoint=checkpoint, hash_range=each) for each in ranges]

    assert holes(ranged((0, top))) == []
    assert holes(ranged((0, 9), (5, top))) == []
    assert holes(ranged((0, 9), (11, top))) == [(10, 10)]
    assert holes(ranged((1, 9))) == [(0, 0), (10, top)]
    assert holes([*ranged((0, 9)), *ranged((10, top), checkpoint="SHARD_END")]) == [(10, top)]
    assert holes([lease("x")]) == []


@given(st.integers(0, 2**32), st.integers(0, 25), st.sampled_from(list(StartKind)))
@settings(max_examples=150, deadline=None)
def test_whatever_rows_are_lost_the_open_shards_are_covered_after_one_sync(seed, reshards, start):
    """A random history of splits and merges, random rows kept: after one sync the rows cover the whole hash range."""
    rng = Random(seed)
    shards, leaves = [Shard("s", "0", (), 0, 2**128 - 1)], ["0"]
    by_id = {"0": shards[0]}
    for number in range(reshards):
        leaf = by_id[leaves.pop(rng.randrange(len(leaves)))]
        neighbours = [by_id[each] for each in leaves if by_id[each].first_hash == leaf.last_hash + 1]
        if neighbours and rng.random() < 0.4:
            leaves.remove(neighbours[0].shard_id)
            made = [Shard("s", f"m{number}", (leaf.shard_id, neighbours[0].shard_id), leaf.first_hash, neighbours[0].last_hash)]
        else:
            middle = (leaf.first_hash + leaf.last_hash) // 2
            bounds = ((leaf.first_hash, middle), (middle + 1, leaf.last_hash))
            made = [Shard("s", f"{side}{number}", (leaf.shard_id,), *bound) for side, bound in zip("ab", bounds, strict=True)]
        for shard in made:
            by_id[shard.shard_id] = shard
            leaves.append(shard.shard_id)
    kept = {each: lease(each, hash_range=(by_id[each].first_hash, by_id[each].last_hash)) for each in by_id if rng.random() < 0.3}
    made = {shard.shard_id: new_lease(shard.shard_id, shard, sentinel) for shard, sentinel in missing_leases(by_id.values(), kept, start)}
    assert not made.keys() & kept.keys()
    assert holes((kept | made).values()) == []
    assert missing_leases(by_id.values(), kept | made, start) == []
