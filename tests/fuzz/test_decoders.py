"""A short run of what `make fuzz` does with a million records each, and .ci/run with 50,000, of which these are the first."""

import pytest

from tests.frames import batch
from tests.fuzz.decoders import TARGETS, fuzz, mutated, random, target

RECORDS = 1_000


@pytest.mark.parametrize("name", TARGETS)
def test_mutated_records_crash_nothing_and_each_ends_once(name):
    outcomes = fuzz(name, RECORDS, seed=1)
    assert outcomes["decoded"] > RECORDS // 100
    assert name == "raw" or outcomes.total() - outcomes["decoded"] > RECORDS // 10


def test_a_seed_gives_the_same_records_again():
    assert [mutated(b'{"a": 1}', [b"x"], random.Random(n)) for n in range(50)] == [
        mutated(b'{"a": 1}', [b"x"], random.Random(n)) for n in range(50)
    ]


@pytest.mark.parametrize("name", TARGETS)
def test_records_that_are_not_mutated_are_read(name):
    it = target(name)
    got = it.chain.run(batch(it.records), "s")
    assert set(got.settled["reason"]) <= {"filtered"}
    assert got.frame.height
