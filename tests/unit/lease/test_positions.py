"""Which rows take over the positions of another consumer."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.contracts import Shard, StartKind
from stream.lease.foreign_positions import WHOLE_RECORD, Position
from stream.lease.positions import Fate, Step, plan, row_of
from stream.lease.rows import SHARD_END, TRIM_HORIZON, ExtendedSequenceNumber, Lease, Progress
from stream.lease.shards import missing_leases, new_lease, unblocked
from tests.unit.lease.tables import lease
from tests.unit.lease.test_shards import grown, named

START = StartKind.TRIM_HORIZON
STARTS = (StartKind.TRIM_HORIZON, StartKind.LATEST)
A, B, C, D = (named(number) for number in range(4))


def at(text: str, subsequence: int = WHOLE_RECORD) -> ExtendedSequenceNumber:
    return ExtendedSequenceNumber(text, subsequence if text.isdigit() else 0)


def given_positions(**positions: str | None) -> list[Position]:
    return [Position({"a": A, "b": B, "c": C, "d": D}[name], None if text is None else at(text)) for name, text in positions.items()]


def opened(shards: list[Shard]) -> list[Shard]:
    """``shards`` as the service lists them: those that nothing continues are open."""
    parents = {parent for shard in shards for parent in shard.parents}
    return [replace(shard, is_open=shard.shard_id not in parents) for shard in shards]


SPLIT = opened([Shard("s", A, begins=100), Shard("s", B, (A,), begins=200), Shard("s", C, (A,), begins=200)])


def fates(steps: list[Step]) -> dict[str, tuple[Fate, str]]:
    return {step.shard: (step.fate, step.checkpoint.text if step.checkpoint else "") for step in steps}


def test_children_of_a_finished_parent_continue_where_they_were() -> None:
    steps = plan(SPLIT, given_positions(a=SHARD_END, b="250"), {}, (), START)
    assert fates(steps) == {A: (Fate.WRITE, SHARD_END), B: (Fate.WRITE, "250"), C: (Fate.START, "")}


def test_a_child_of_an_unfinished_parent_waits() -> None:
    steps = plan(SPLIT, given_positions(a="150", b=TRIM_HORIZON), {}, (), START)
    assert fates(steps) == {A: (Fate.WRITE, "150"), B: (Fate.WAIT, ""), C: (Fate.WAIT, "")}


def test_a_parent_without_a_position_was_finished_if_a_child_was_begun() -> None:
    for begun in (given_positions(b="250"), given_positions(b=None), given_positions(b=SHARD_END)):
        assert fates(plan(SPLIT, begun, {}, (), START))[A] == (Fate.WRITE, SHARD_END)
    assert fates(plan(SPLIT, given_positions(b=TRIM_HORIZON), {}, (), START))[A] == (Fate.START, "")


def test_a_closed_shard_begun_without_a_position_gets_a_row_since_no_worker_creates_one() -> None:
    steps = plan(SPLIT, given_positions(a=None, b="250", c="250"), {}, (), START)
    assert fates(steps)[A] == (Fate.WRITE, TRIM_HORIZON)
    rows = {step.shard: row_of(step, SPLIT[0], step.shard, None) for step in steps if step.shard != A}
    assert missing_leases(SPLIT, rows, START) == []


def test_contradictory_positions_are_refused() -> None:
    line = opened([Shard("s", A), Shard("s", B, (A,)), Shard("s", C, (B,))])
    steps = plan(line, given_positions(a="150", c="250"), {}, (), START)
    assert fates(steps)[B] == (Fate.REFUSE, "")
    assert "says how far it was read" in steps[1].why


def test_a_position_smaller_than_any_number_of_the_shard_is_refused() -> None:
    (a, *_) = plan(SPLIT, given_positions(a="99"), {}, (), START)
    assert (a.fate, "begin at 100" in a.why) == (Fate.REFUSE, True)


def test_positions_of_shards_missing_from_the_stream_are_reported() -> None:
    steps = plan(SPLIT[:1], given_positions(d="9"), {}, (), START)
    assert fates(steps) == {A: (Fate.START, ""), D: (Fate.GONE, "")}


@pytest.mark.parametrize(
    ("row", "fate"),
    [
        (lease(A, checkpoint="150"), Fate.KEEP),
        (lease(A, checkpoint="160"), Fate.KEEP),
        (lease(A, checkpoint=SHARD_END), Fate.KEEP),
        (lease(A, checkpoint="149"), Fate.REFUSE),
        (lease(A, checkpoint=TRIM_HORIZON), Fate.REFUSE),
        (lease(A, checkpoint="140", progress=Progress(155, 0, 140, at("140", 0))), Fate.KEEP),
        (lease(A, checkpoint="140", progress=Progress(145, 0, 140, at("140", 0))), Fate.REFUSE),
        (lease(A, checkpoint="140", progress=Progress(None, 0, 140, at("140", 0))), Fate.KEEP),
    ],
)
def test_a_row_is_never_changed_and_one_with_less_progress_stops_the_import(row: Lease, fate: Fate) -> None:
    (a, *_) = plan(SPLIT, given_positions(a="150"), {A: row}, (), START)
    assert (a.fate, a.checkpoint) == (fate, None)


def test_of_two_positions_in_one_aggregate_the_greater_subsequence_is_further() -> None:
    half = [Position(A, at("150", 4))]
    assert plan(SPLIT, half, {A: replace(lease(A), checkpoint=at("150", 3))}, (), START)[0].fate is Fate.REFUSE
    assert plan(SPLIT, half, {A: replace(lease(A), checkpoint=at("150", 4))}, (), START)[0].fate is Fate.KEEP


def test_a_shard_already_in_the_commit_log_is_not_imported_again() -> None:
    assert plan(SPLIT, given_positions(a="150"), {}, {A}, START)[0].fate is Fate.REFUSE
    assert plan(SPLIT, given_positions(a=SHARD_END), {}, {A}, START)[0].fate is Fate.KEEP
    assert plan(SPLIT, [], {}, {A}, START)[0].fate is Fate.KEEP


def test_a_start_that_may_skip_records_is_refused() -> None:
    start = StartKind.AT_TIMESTAMP
    assert fates(plan(SPLIT, given_positions(a=SHARD_END, b="250"), {}, (), start))[C] == (Fate.REFUSE, "")
    assert fates(plan(SPLIT, given_positions(a="150"), {}, (), start))[C] == (Fate.REFUSE, "")
    assert fates(plan(SPLIT, given_positions(a=None), {}, (), start))[A] == (Fate.REFUSE, "")
    assert fates(plan(SPLIT[:1], given_positions(a=TRIM_HORIZON), {}, (), start))[A] == (Fate.REFUSE, "")


@pytest.mark.parametrize("start", [StartKind.LATEST, StartKind.AT_TIMESTAMP])
def test_a_shard_without_a_position_begins_at_the_start_of_the_pipeline(start: StartKind) -> None:
    two = opened([Shard("s", A), Shard("s", B)])
    assert fates(plan(two, given_positions(a="150"), {}, (), start)) == {A: (Fate.WRITE, "150"), B: (Fate.START, "")}


def test_with_latest_a_shard_at_trim_horizon_gets_a_row_that_says_so() -> None:
    assert fates(plan(SPLIT, given_positions(a=SHARD_END, b="250"), {}, (), StartKind.LATEST))[C] == (Fate.START, "")
    two = opened([Shard("s", A), Shard("s", B)])
    assert fates(plan(two, given_positions(a=TRIM_HORIZON, b=None), {}, (), StartKind.LATEST)) == {
        A: (Fate.WRITE, TRIM_HORIZON),
        B: (Fate.START, ""),
    }


def test_a_position_at_latest_needs_a_pipeline_that_starts_at_latest() -> None:
    two = opened([Shard("s", A), Shard("s", B)])
    assert fates(plan(two, given_positions(a="LATEST"), {}, (), START))[A] == (Fate.REFUSE, "")
    assert fates(plan(two, given_positions(a="LATEST"), {}, (), StartKind.LATEST))[A] == (Fate.START, "")
    assert fates(plan(SPLIT, given_positions(a="LATEST", b="250", c="250"), {}, (), START))[A] == (Fate.WRITE, SHARD_END)


@dataclass
class OtherConsumer:
    """Another consumer somewhere in a stream. It begins children once their parents are read; if ``hasty``, once these are begun."""

    listed: list[Shard]
    rng: random.Random
    hasty: bool
    finished: set[str] = field(default_factory=set)
    reached: dict[str, int | None] = field(default_factory=dict)

    def work(self, steps: int) -> None:
        graph = {shard.shard_id: shard for shard in self.listed}
        for _ in range(steps):
            before = self.reached.keys() if self.hasty else self.finished
            may = [
                shard
                for shard in self.listed
                if shard.shard_id not in self.finished and all(parent in before for parent in shard.parents if parent in graph)
            ]
            if not may:
                return
            shard = self.rng.choice(may)
            match self.rng.randrange(3):
                case 0:
                    self.reached.setdefault(shard.shard_id, None)
                case 1:
                    self.reached[shard.shard_id] = 1 + (self.reached.get(shard.shard_id) or 0)
                case _ if not shard.is_open:
                    self.reached[shard.shard_id] = 99
                    self.finished.add(shard.shard_id)

    def positions(self, *, forgets: bool) -> list[Position]:
        """What it has stored; if it ``forgets``, not about finished shards before one that was begun."""
        lost: set[str] = set()
        if forgets:
            graph = {shard.shard_id: shard for shard in self.listed}
            rest = [parent for name in self.reached for parent in graph[name].parents]
            while rest:
                if (name := rest.pop()) in graph and name not in lost:
                    lost.add(name)
                    rest += graph[name].parents
        return [
            Position(name, at(SHARD_END) if name in self.finished else None if number is None else at(str(number)))
            for name, number in self.reached.items()
            if name not in lost or name not in self.finished
        ]


def read_on(listed: list[Shard], rows: dict[str, Lease], rng: random.Random, start: StartKind) -> dict[str, str]:
    """Where a fleet of our workers begins each shard that it reads; all shards that are open now are closed later, without children."""
    began: dict[str, str] = {}
    while True:
        for shard, sentinel in missing_leases(listed, rows, start):
            rows[shard.shard_id] = new_lease(shard.shard_id, shard, sentinel)
        may = sorted(name for name, row in rows.items() if not row.ended and unblocked(row, rows))
        if not may:
            return began
        name = rng.choice(may)
        began[name] = rows[name].checkpoint.text
        rows[name] = replace(rows[name], checkpoint=at(SHARD_END))


@settings(max_examples=150)
@given(
    st.integers(0, 10**6), st.integers(0, 14), st.integers(1, 4), st.integers(0, 6), st.booleans(), st.booleans(), st.sampled_from(STARTS)
)
def test_every_record_is_read_by_one_of_the_two_consumers(
    seed: int, grows: int, roots: int, trimmed: int, hasty: bool, forgets: bool, start: StartKind
) -> None:
    everything = opened(grown(seed, grows, roots))
    listed = everything[min(trimmed, len(everything) - 1) :]
    rng = random.Random(seed)
    other = OtherConsumer(listed, rng, hasty and not forgets)
    if start is StartKind.LATEST:
        # With a position for each of the oldest shards, the start decides about nothing.
        other.reached = {shard.shard_id: 1 for shard in listed if not {*shard.parents} & {each.shard_id for each in listed}}
    other.work(rng.randrange(40))
    steps = plan(listed, other.positions(forgets=forgets), {}, (), start)
    assert not [step for step in steps if step.fate is Fate.REFUSE]
    graph = {shard.shard_id: shard for shard in listed}
    rows = {step.shard: row_of(step, graph[step.shard], step.shard, None) for step in steps if step.fate is Fate.WRITE}
    expected = {
        shard.shard_id: str(other.reached.get(shard.shard_id) or TRIM_HORIZON) for shard in listed if shard.shard_id not in other.finished
    }
    assert read_on(listed, dict(rows), rng, start) == expected
    again = plan(listed, other.positions(forgets=forgets), rows, (), start)
    assert not [step for step in again if step.fate in {Fate.WRITE, Fate.REFUSE}]
