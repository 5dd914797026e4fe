from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.audit.completeness import (
    DONE,
    FOR_EVER,
    Found,
    Loaded,
    Lookahead,
    Question,
    Sealed,
    Standing,
    State,
    Unclaimed,
    Verdict,
    answer,
    settled,
    stand,
    unlisted,
)

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
ASKED = Question(NOON, timedelta(seconds=5))
LATER = NOON + timedelta(minutes=1)


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("sealed", "behind", "state", "reach"),
    [
        # The log alone answers: the shard has ended, or what is sealed goes far enough.
        (Sealed("s", 7, at(-900), ended=True), None, State.ENDED, FOR_EVER),
        (Sealed("s", 7, at(5)), None, State.COMPLETE, at(0)),
        # The next record decides, and one that arrived within the margin decides nothing yet.
        (Sealed("s", 7, at(-900)), Lookahead(Found.RECORD, at(5)), State.COMPLETE, at(0)),
        (Sealed("s", 7, at(4)), Lookahead(Found.RECORD, at(4.999)), State.EARLY, at(-0.001)),
        (Sealed("s", 7, at(4)), Lookahead(Found.RECORD, at(0)), State.EARLY, at(-5)),
        (Sealed("s", 7, at(-900)), Lookahead(Found.RECORD, at(-0.001)), State.UNSEALED, at(-5.001)),
        (Sealed("s"), Lookahead(Found.RECORD, at(5)), State.COMPLETE, at(0)),
        # No record follows: then the service's clock decides, as it was before the stream was read.
        (Sealed("s", 7, at(-900)), Lookahead(Found.TIP), State.COMPLETE, at(55)),
        (Sealed("s"), Lookahead(Found.TIP), State.COMPLETE, at(55)),
        (Sealed("s", 7, at(-900)), Lookahead(Found.END, children=("t",)), State.ENDED, FOR_EVER),
        # What nobody can tell is no yes, whatever is sealed is whole.
        (Sealed("s", 7, at(4)), Lookahead(Found.EXPIRED, why="gone"), State.EXPIRED, at(-1)),
        (Sealed("s"), Lookahead(Found.GONE), State.GONE, None),
        (Sealed("s", 7, at(4)), Lookahead(Found.SILENT), State.SILENT, at(-1)),
        (Sealed("s", 7, at(4)), None, State.SILENT, at(-1)),
    ],
)
def test_a_shard_has_the_state_that_its_log_and_stream_imply(
    sealed: Sealed, behind: Lookahead | None, state: State, reach: datetime | None
) -> None:
    found = stand(sealed, behind, LATER, ASKED)
    assert (found.state, found.reach) == (state, reach)
    if state in DONE:
        assert found.reach is not None
        assert found.reach >= ASKED.until


def test_at_the_tip_it_is_early_until_the_services_clock_has_passed_the_moment_and_margin() -> None:
    tip = Lookahead(Found.TIP)
    assert stand(Sealed("s"), tip, at(4.999), ASKED).state is State.EARLY
    assert stand(Sealed("s"), tip, at(5), ASKED).state is State.COMPLETE


def whole(name: str = "s") -> Standing:
    return stand(Sealed(name, 7, at(20)), None, LATER, ASKED)


@pytest.mark.parametrize(
    ("standings", "tables", "asked_at", "why", "verdict"),
    [
        ([whole()], [], LATER, "", Verdict.COMPLETE),
        ([whole()], [Loaded("dwh")], LATER, "", Verdict.COMPLETE),
        ([whole()], [Loaded("dwh", units=1, rows=2, oldest=at(-9))], LATER, "", Verdict.NOT_YET),
        ([whole()], [Loaded("dwh", why="no answer")], LATER, "", Verdict.UNKNOWN),
        ([whole()], [Loaded("a", why="no answer"), Loaded("b", units=1)], LATER, "", Verdict.NOT_YET),
        ([whole()], None, LATER, "", Verdict.UNKNOWN),
        # A shard that is made after the list, and before the moment, would be missing in it.
        ([whole()], [], at(4.999), "", Verdict.NOT_YET),
        ([], [], LATER, "", Verdict.NOT_YET),
        ([whole()], [], LATER, "nobody has begun", Verdict.NOT_YET),
        ([whole(), stand(Sealed("t"), Lookahead(Found.SILENT), LATER, ASKED)], [], LATER, "", Verdict.UNKNOWN),
        ([whole(), stand(Sealed("t"), Lookahead(Found.GONE), LATER, ASKED)], [], LATER, "", Verdict.NOT_YET),
        (
            [stand(Sealed("t"), Lookahead(Found.SILENT), LATER, ASKED), stand(Sealed("u"), Lookahead(Found.RECORD, at(-1)), LATER, ASKED)],
            [],
            LATER,
            "",
            Verdict.NOT_YET,
        ),
    ],
)
def test_the_answer_follows_from_all_shards_and_tables(
    standings: list[Standing], tables: list[Loaded] | None, asked_at: datetime, why: str, verdict: Verdict
) -> None:
    assert answer("numbers", standings, tables, asked_at, ASKED, why).verdict is verdict


@pytest.mark.parametrize(
    ("unclaimed", "standings", "why", "verdict", "reach"),
    [
        (Unclaimed(), [whole()], "", Verdict.COMPLETE, at(15)),
        # Finished shards of objects are not listed any more.
        (Unclaimed(), [], "", Verdict.COMPLETE, at(55)),
        (Unclaimed(), [], "nobody has begun", Verdict.NOT_YET, None),
        (Unclaimed(fresh=2, fresh_since=at(-0.001)), [whole()], "", Verdict.NOT_YET, at(-0.001)),
        (Unclaimed(fresh=2, fresh_since=at(0)), [whole()], "", Verdict.COMPLETE, at(0)),
        (Unclaimed(changed=1, changed_since=at(-3)), [whole()], "", Verdict.NOT_YET, at(-3)),
        (Unclaimed(1, at(2), 1, at(1)), [whole()], "", Verdict.COMPLETE, at(1)),
    ],
)
def test_an_object_in_no_shard_counts_by_its_date(
    unclaimed: Unclaimed, standings: list[Standing], why: str, verdict: Verdict, reach: datetime | None
) -> None:
    found = answer("objects", standings, [], LATER, ASKED, why, unclaimed)
    assert (found.verdict, found.reach) == (verdict, reach)


def test_the_reach_is_that_of_the_last_shard_and_the_last_table() -> None:
    behind = stand(Sealed("t", 7, at(-900)), Lookahead(Found.RECORD, at(-30)), LATER, ASKED)
    tables = [Loaded("dwh", units=1, oldest=at(-60))]
    assert answer("n", [whole(), behind], [], LATER, ASKED).reach == at(-35)
    assert answer("n", [whole(), behind], tables, LATER, ASKED).reach == at(-65)
    assert answer("n", [whole()], [], at(3), ASKED).reach == at(-2)
    assert answer("n", [whole(), stand(Sealed("u"), Lookahead(Found.GONE), LATER, ASKED)], [], LATER, ASKED).reach is None
    assert answer("n", [whole()], [Loaded("dwh", why="no answer")], LATER, ASKED).reach is None
    assert answer("n", [stand(Sealed("s", ended=True), None, LATER, ASKED)], [], LATER, ASKED).reach == at(55)


def test_a_child_missing_from_stream_and_log_is_gone() -> None:
    (found,) = unlisted(["a", "b"], ["a"])
    assert (found.shard, found.state, found.reach) == ("b", State.GONE, None)


MARGIN = 50


@st.composite
def shards(draw: st.DrawFn) -> tuple[list[int], int, int | None]:
    """A shard's arrival times, out of order by at most the margin; how many are sealed; the clock, if the rest arrived later."""
    bases = sorted(draw(st.lists(st.integers(0, 1000), max_size=12)))
    arrivals = [base - draw(st.integers(0, MARGIN)) for base in bases]
    sealed = draw(st.integers(0, len(arrivals)))
    tip = draw(st.none() | st.integers(bases[sealed - 1] if sealed else 0, bases[sealed] if sealed < len(bases) else 2000))
    return arrivals, sealed, tip


@given(shards(), st.integers(-100, 1200))
def test_no_unsealed_record_arrived_before_a_moment_called_complete(shard: tuple[list[int], int, int | None], until: int) -> None:
    arrivals, count, tip = shard
    question = Question(at(until), timedelta(seconds=MARGIN))
    sealed = Sealed("s", count, at(max(arrivals[:count])) if count else None)
    left = arrivals[count:]
    behind = Lookahead(Found.RECORD, at(left[0])) if tip is None and left else Lookahead(Found.TIP)
    asked_at = at(tip if tip is not None else 3000)

    found = stand(sealed, None if settled(sealed, question) else behind, asked_at, question)

    if found.state in DONE:
        assert all(arrival >= until for arrival in left)
    assert found.reach is None or all(at(arrival) >= found.reach for arrival in left)
