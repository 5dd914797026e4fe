"""The order of `--shuffle`."""

from __future__ import annotations

from itertools import groupby
from types import SimpleNamespace

from tests.conftest import shuffled

ITEMS = [SimpleNamespace(path=f"test_{file}.py", name=f"{file}-{number}") for file in range(10) for number in range(10)]


def names(seed: int) -> list[str]:
    return [item.name for item in shuffled(ITEMS, seed)]


def test_a_seed_repeats_its_order_and_another_seed_has_another_one() -> None:
    assert names(1) == names(1)
    assert names(1) != names(2)


def test_every_test_runs_once_in_an_order_of_its_own_and_beside_those_of_its_file() -> None:
    collected, found = [item.name for item in ITEMS], names(1)
    assert found != collected
    assert sorted(found) == sorted(collected)
    files = [[name.partition("-")[::2] for name in tests] for _, tests in groupby(found, lambda name: name.partition("-")[0])]
    assert len(files) == 10
    assert [file for ((file, _), *_) in files] != sorted(file for ((file, _), *_) in files)
    assert all([number for _, number in tests] != sorted(number for _, number in tests) for tests in files)
