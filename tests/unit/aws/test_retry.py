from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stream.aws.retry import FOR_EVER, GiveUp, Policy, Wait, decide
from stream.errors import Fatal, Halted, Retryable


@given(st.integers(1, 10_000), st.floats(0, 1), st.floats(0.01, 5), st.floats(5, 60))
def test_pauses_lie_between_zero_and_the_cap(attempt: int, random: float, base: float, cap: float) -> None:
    step = decide(Retryable("x"), attempt, random, Policy(base, cap))
    assert isinstance(step, Wait)
    assert 0 <= step.seconds <= cap


def test_the_ceiling_doubles_until_the_cap() -> None:
    steps = [decide(Retryable("x"), attempt, 1.0, Policy(base=0.1, cap=1.0)) for attempt in range(1, 7)]
    assert steps == [Wait(0.1), Wait(0.2), Wait(0.4), Wait(0.8), Wait(1.0), Wait(1.0)]


def test_the_random_number_scales_the_pause() -> None:
    assert decide(Retryable("x"), 3, 0.0) == Wait(0.0)
    assert decide(Retryable("x"), 3, 0.5) == Wait(0.2)


def test_attempts_are_limited_only_by_the_policy() -> None:
    policy = Policy(attempts=3)
    assert isinstance(decide(Retryable("x"), 2, 0.5, policy), Wait)
    assert decide(Retryable("x"), 3, 0.5, policy) == GiveUp()
    assert isinstance(decide(Retryable("x"), 10**6, 0.5, FOR_EVER), Wait)


def test_only_retryable_errors_are_repeated() -> None:
    for error in (Fatal("x"), Halted("x"), ValueError("x")):
        assert decide(error, 1, 0.5) == GiveUp()
