"""How a function divides its time and its memory."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.errors import DefinitionError
from stream.hosts.allowance import ANSWER_SECONDS, LEAST_MEMORY_MB, SEALING_SECONDS, allowance, within_memory
from stream.pipeline.model import Pipeline
from tests.unit.pipeline.definitions import least


@given(st.floats(0.0, 900.0))
def test_reading_ends_before_sealing_and_sealing_before_the_answer(remaining):
    made = allowance(remaining)
    assert 0.0 <= made.reading <= made.working <= remaining
    assert made.working - made.reading <= SEALING_SECONDS + 1e-9
    assert remaining - made.working <= ANSWER_SECONDS + 1e-9
    if remaining > 0:
        assert made.reading > remaining / 2


def test_with_three_seconds_a_third_is_left_for_sealing():
    made = allowance(3.0)
    assert (round(made.reading, 3), round(made.working, 3)) == (1.8, 2.7)


def test_no_time_is_no_error():
    assert allowance(0.0).working == 0.0


def pipeline(**changes):
    return Pipeline.model_validate(least() | changes)


@pytest.mark.parametrize(("megabytes", "budget"), [(512, 96 * 2**20), (1769, 256 * 2**20), (10_240, 256 * 2**20)])
def test_the_budget_fits_the_function_and_is_never_raised(megabytes, budget):
    assert within_memory(pipeline(), megabytes).memory.budget == budget


def test_a_function_that_is_too_small_for_any_record_is_refused():
    with pytest.raises(DefinitionError, match=f"has {LEAST_MEMORY_MB - 1} MB of memory"):
        within_memory(pipeline(), LEAST_MEMORY_MB - 1)
