"""What every stage must do, run for each one that is built in or installed."""

from typing import ClassVar

import polars as pl
import pytest

from stream.errors import Halted
from stream.pipeline.components import stage_class, stage_names
from stream.testing import stages as contract
from stream.testing.stages import STAGE_CHECKS
from stream.transform.stage import Applied, Example, StageConfig
from stream.transform.stages import STAGES
from tests.frames import RESOURCES

EVERY = [stage_class(name) for name in stage_names()]


@pytest.mark.parametrize("check", STAGE_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("stage", EVERY, ids=lambda stage: stage.name)
def test_the_contract_holds(stage, check):
    check(stage, RESOURCES)


def test_stages_are_listed_in_alphabetical_order_without_duplicates():
    names = [stage.name for stage in STAGES]
    assert names == sorted(set(names))


class Wrong(StageConfig):
    """A stage without a fault. Each subclass adds one."""

    name: ClassVar[str] = "wrong"
    example: ClassVar[Example] = Example(config={}, given=[{"x": 1}, {"x": 2}], expect=[{"x": 1}, {"x": 2}])
    runs: ClassVar[list[int]] = []

    def output(self, schema, resources):
        return schema

    def bind(self, schema, resources):
        return lambda frame: Applied(self.change(frame))

    def change(self, frame):
        return frame


class Doubles(Wrong):
    """x"""

    def change(self, frame):
        return frame.with_columns(pl.col("x") * 2)


class Remembers(Wrong):
    """x"""

    def change(self, frame):
        self.runs.append(1)
        return frame.with_columns(pl.lit(len(self.runs), pl.Int64).alias("x"))


class Sums(Wrong):
    """x"""

    def change(self, frame):
        return frame.with_columns(pl.col("x").cum_sum())


class Alters(Wrong):
    """x"""

    def change(self, frame):
        if frame.height:
            frame[0, "x"] = 9
        return frame


class Raises(Wrong):
    """x"""

    def change(self, frame):
        if frame["x"].null_count():
            raise ValueError
        return frame


class Adds(Wrong):
    """x"""

    def change(self, frame):
        return frame if frame.height else frame.with_columns(pl.lit(1).alias("y"))


class Mixes(Wrong):
    """x"""

    example = Example(config={}, given=[{"x": 1, "y": 5}, {"x": 2, "y": 6}], expect=[{"x": 6, "y": 5}, {"x": 8, "y": 6}])

    def change(self, frame):
        return frame.with_columns(pl.col("x") + pl.col("y"))


class Needs(Wrong):
    """x"""

    example = Example(config={}, given=[{"x": 1, "y": 5}], expect=[{"x": 1, "y": 6}])

    def change(self, frame):
        return frame.with_columns(pl.col("y") + 1)


class Assumes(Wrong):
    """x"""

    example = Example(config={}, given=[{"x": 1, "y": 5}], expect=[{"x": 1, "y": 5}])

    def output(self, schema, resources):
        assert schema["y"].is_numeric()
        return schema


class Silent(Wrong):
    __doc__ = None


@pytest.mark.parametrize(
    ("stage", "check"),
    [
        (Doubles, contract.example_holds),
        (Remembers, contract.twice_gives_the_same_bytes),
        (Sums, contract.parts_give_what_the_whole_gives),
        (Alters, contract.input_stays_as_it_is),
        (Raises, contract.nulls_do_not_break_it),
        (Adds, contract.no_rows_give_no_rows),
        (Needs, contract.a_missing_column_is_refused),
        (Assumes, contract.a_missing_column_is_refused),
        (Mixes, contract.columns_come_from_their_origins),
        (Silent, contract.it_explains_itself),
    ],
    ids=lambda it: it.__name__,
)
def test_each_check_finds_the_fault_it_is_for(stage, check):
    with pytest.raises(AssertionError):
        check(stage, RESOURCES)


class Bare(Wrong):
    def bind(self, schema, resources):
        return lambda frame: frame


def test_a_stage_that_returns_a_bare_frame_halts_the_shard_with_advice():
    with pytest.raises(Halted, match=r"stage '1:it' returned DataFrame; the function from `bind` must return Applied\(frame"):
        contract.example_holds(Bare, RESOURCES)


@pytest.mark.parametrize("check", STAGE_CHECKS, ids=lambda check: check.__name__)
def test_no_check_finds_a_fault_where_there_is_none(check):
    check(Wrong, RESOURCES)
