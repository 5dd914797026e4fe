"""What every stage must do, run for each one that is built in."""

import polars as pl
import pytest

from stream.transform.engine import Step, advance
from stream.transform.stages import STAGES
from stream.transform.types import SYSTEM_SCHEMA
from tests.frames import RESOURCES, rows

every_stage = pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)


def example(stage):
    config = stage.model_validate(stage.example.config)
    given = stage.example.given
    return config, rows({name: [row[name] for row in given] for name in given[0]})


def step(config, frame):
    return Step(
        "1:it",
        config.bind(frame.schema, RESOURCES),
        config.output(frame.schema, RESOURCES),
        config.row_wise,
        config.drops,
        not config.expands,
        config.expands,
    )


def plain(frame):
    """The user's columns with times as ISO-8601 text."""
    texts = [pl.col(name).dt.strftime("%Y-%m-%dT%H:%M:%SZ") for name, kind in frame.schema.items() if isinstance(kind, pl.Datetime)]
    return frame.with_columns(texts).drop(list(SYSTEM_SCHEMA)).to_dicts()


@every_stage
def test_the_example_holds(stage):
    config, frame = example(stage)
    after, _ = advance(step(config, frame), frame)
    assert plain(after) == stage.example.expect


@every_stage
def test_the_output_is_as_declared_and_every_row_ends_once(stage):
    config, frame = example(stage)
    made = step(config, frame)
    after, settled = advance(made, frame)
    assert after.schema == made.output
    assert list(after.columns) == list(made.output)
    assert sorted([*after["_row"].unique(), *settled["_row"]]) == frame["_row"].to_list()


@every_stage
def test_an_empty_frame_gives_an_empty_frame_as_declared(stage):
    config, frame = example(stage)
    applied = step(config, frame).run(frame.clear())
    assert applied.frame.is_empty()
    assert applied.frame.schema == config.output(frame.schema, RESOURCES)
    assert applied.rejects is None or applied.rejects.is_empty()


@every_stage
def test_nulls_alone_do_not_break_it(stage):
    config, frame = example(stage)
    empty = frame.with_columns(pl.lit(None, kind).alias(name) for name, kind in frame.schema.items() if name not in SYSTEM_SCHEMA)
    after, settled = advance(step(config, frame), empty)
    assert after["_row"].n_unique() + settled.height == frame.height
    assert not settled["reason"].str.starts_with("stage_error").any()


@every_stage
def test_twice_is_the_same_and_the_input_stays(stage):
    config, frame = example(stage)
    before = frame.clone()
    first, second = advance(step(config, frame), frame), advance(step(config, frame), frame)
    assert first[0].equals(second[0])
    assert first[1].equals(second[1])
    assert frame.equals(before)


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage.row_wise], ids=lambda stage: stage.name)
def test_a_row_wise_stage_gives_the_same_in_parts(stage):
    config, frame = example(stage)
    made = step(config, frame)
    whole = advance(made, frame)
    parts = [advance(made, frame[index : index + 1]) for index in range(frame.height)]
    assert pl.concat([part[0] for part in parts]).equals(whole[0])
    assert pl.concat([part[1] for part in parts]).sort("_row").equals(whole[1].sort("_row"))


@every_stage
def test_it_explains_itself(stage):
    assert stage.__doc__
    for name, field in stage.model_fields.items():
        assert field.description, f"{stage.name}.{name} has no description"


def test_names_are_unique_and_sorted():
    names = [stage.name for stage in STAGES]
    assert names == sorted(set(names))
