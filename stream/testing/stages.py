"""The contract of a stage, as checks that you can run on a stage of your own.

    @pytest.mark.parametrize("check", STAGE_CHECKS, ids=lambda check: check.__name__)
    def test_the_contract_holds(check):
        check(MyStage, Resources())

Each check takes the stage's class and the resources that its example needs, and raises AssertionError saying what is wrong. All of
them run the stage as the engine does, over its own example, so the most useful example shows every option at work.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any, Final

import polars as pl
from polars.exceptions import PolarsError

from stream.batch import ROW
from stream.transform.engine import STAGE_ERROR, advance
from stream.transform.stage import Resources, SchemaMismatch, StageConfig, Step
from stream.transform.types import SYSTEM, SYSTEM_SCHEMA

StageCheck = Callable[[type[StageConfig], Resources], None]


def frame_of(given: Sequence[dict[str, Any]], times: int = 1) -> pl.DataFrame:
    """A stage's input: the system columns, one record per row, and the columns of ``given``, with all rows repeated ``times`` times."""
    columns = pl.DataFrame({name: [row[name] for row in given] for name in given[0]})
    user = pl.concat([columns] * times, rechunk=True)
    rows = range(user.height)
    system = [["s"] * user.height, [str(10**20 + row) for row in rows], [0] * user.height, list(rows), list(rows)]
    return pl.concat([pl.DataFrame(dict(zip(SYSTEM, system, strict=True)), schema=SYSTEM_SCHEMA), user], how="horizontal")


def step_of(config: StageConfig, schema: pl.Schema, resources: Resources) -> Step:
    """``config`` as a step of a chain whose columns so far are ``schema``."""
    bound, output = config.bind(schema, resources), config.output(schema, resources)
    return Step("1:it", bound, output, config.divisible(), config.drops, not config.expands, config.expands)


def _example(stage: type[StageConfig], resources: Resources, times: int = 1) -> tuple[Step, pl.DataFrame]:
    frame = frame_of(stage.example.given, times)
    return step_of(stage.model_validate(stage.example.config), frame.schema, resources), frame


def _hold(*, holds: bool, message: str) -> None:
    if not holds:
        raise AssertionError(message)


def _bytes(*frames: pl.DataFrame) -> bytes:
    """The frames as files: what counts is what is written, not its layout in memory."""
    buffer = io.BytesIO()
    for frame in frames:
        frame.write_parquet(buffer, row_group_size=1 << 20)
    return buffer.getvalue()


def example_holds(stage: type[StageConfig], resources: Resources) -> None:
    """``example.given`` gives ``example.expect``; times as ISO-8601 text with a Z."""
    step, frame = _example(stage, resources)
    after = advance(step, frame)[0].drop(SYSTEM)
    texts = [pl.col(name).dt.strftime("%Y-%m-%dT%H:%M:%SZ") for name, kind in after.schema.items() if isinstance(kind, pl.Datetime)]
    found = after.with_columns(texts).to_dicts()
    _hold(holds=found == stage.example.expect, message=f"the example gives {found}, not {stage.example.expect}")


def output_is_as_declared_and_every_row_ends_once(stage: type[StageConfig], resources: Resources) -> None:
    """The columns are those of ``output``, in that order; each record either leaves the stage or is settled, never both."""
    step, frame = _example(stage, resources, times=3)
    after, settled = advance(step, frame)
    _hold(holds=list(after.schema.items()) == list(step.output.items()), message=f"{after.schema} is not {step.output}, as declared")
    ended = sorted([*after[ROW].unique(), *settled[ROW]])
    _hold(holds=ended == frame[ROW].to_list(), message=f"records {frame[ROW].to_list()} went in, {ended} ended")


def no_rows_give_no_rows(stage: type[StageConfig], resources: Resources) -> None:
    """An empty frame gives an empty frame with the declared columns."""
    step, frame = _example(stage, resources)
    applied = step.run(frame.clear())
    _hold(holds=applied.frame.is_empty() and applied.frame.schema == step.output, message=f"no rows gave {applied.frame}")
    _hold(holds=applied.rejects is None or applied.rejects.is_empty(), message=f"no rows gave rejects {applied.rejects}")


def nulls_do_not_break_it(stage: type[StageConfig], resources: Resources) -> None:
    """If every value is null, each record still ends once, and nothing is raised."""
    step, frame = _example(stage, resources)
    nulls = frame.with_columns(pl.lit(None, kind).alias(name) for name, kind in frame.schema.items() if name not in SYSTEM)
    after, settled = advance(step, nulls)
    _hold(holds=after[ROW].n_unique() + settled.height == frame.height, message="a record of nulls did not end once")
    raised = settled.filter(pl.col("reason").str.starts_with(STAGE_ERROR))["reason"].to_list()
    _hold(holds=not raised, message=f"nulls made it raise: {raised}")


def twice_gives_the_same_bytes(stage: type[StageConfig], resources: Resources) -> None:
    """Two runs, and a run after binding again, give equal bytes."""
    step, frame = _example(stage, resources, times=3)
    again, _ = _example(stage, resources, times=3)
    first, *others = (_bytes(*advance(each, frame)) for each in (step, step, again))
    _hold(holds=all(first == other for other in others), message="equal rows gave other bytes the second time")


def input_stays_as_it_is(stage: type[StageConfig], resources: Resources) -> None:
    """The input frame is unchanged afterwards."""
    step, frame = _example(stage, resources)
    before = _bytes(frame)
    advance(step, frame)
    _hold(holds=_bytes(frame) == before, message="the stage changed the frame that it was given")


def parts_give_what_the_whole_gives(stage: type[StageConfig], resources: Resources) -> None:
    """A row-wise stage gives the same rows wherever the frame is cut; any other must declare ``row_wise = False``."""
    step, frame = _example(stage, resources, times=3)
    if not step.row_wise:
        return
    whole = [part.sort(ROW, maintain_order=True) for part in advance(step, frame)]
    for cut in range(1, frame.height):
        low, high = advance(step, frame[:cut]), advance(step, frame[cut:])
        parts = [pl.concat(both).sort(ROW, maintain_order=True) for both in zip(low, high, strict=True)]
        same = all(part.equals(other) for part, other in zip(parts, whole, strict=True))
        _hold(holds=same, message=f"cut before row {cut} the stage gives other rows: is it row-wise?")


def a_missing_column_is_refused(stage: type[StageConfig], resources: Resources) -> None:
    """Without a column that it needs, ``output`` raises SchemaMismatch, so that `stream check` finds out, not each record.

    What a stage that calls users' functions needs is not known before it runs.
    """
    _, frame = _example(stage, resources)
    config = stage.model_validate(stage.example.config)
    if config.function_paths():
        return
    for missing in (name for name in frame.columns if name not in SYSTEM):
        rest = frame.drop(missing)
        try:
            config.output(rest.schema, resources)
            step = step_of(config, rest.schema, resources)
        except SchemaMismatch:
            continue
        except (PolarsError, LookupError) as error:
            message = f"without {missing}, it raises {type(error).__name__}; raise SchemaMismatch, as `stages.common.require` does"
            raise AssertionError(message) from error
        raised = advance(step, rest)[1].filter(pl.col("reason").str.starts_with(STAGE_ERROR))["reason"].to_list()
        _hold(holds=not raised, message=f"`output` accepts columns without {missing}, and then every row raises: {raised[:1]}")


def columns_come_from_their_origins(stage: type[StageConfig], resources: Resources) -> None:
    """A column's values do not change with those of a column that ``origins`` does not name for it."""
    step, frame = _example(stage, resources, times=2)
    config = stage.model_validate(stage.example.config)
    origins = config.origins(frame.schema, step.output)
    whole = _rows_by_record(advance(step, frame)[0])
    for changed in (name for name in frame.columns if name not in SYSTEM):
        for values in (frame[changed].reverse(), pl.Series(changed, [None] * frame.height, frame.schema[changed])):
            other = _rows_by_record(advance(step, frame.with_columns(values))[0])
            # Which rows there are may depend on every column.
            for record in (each for each in whole if len(whole[each]) == len(other.get(each, ()))):
                for row, another in zip(whole[record], other[record], strict=True):
                    for name in (each for each in row if changed not in origins[each]):
                        message = f"{name} changes with {changed}, which is not among its origins: {sorted(origins[name])}"
                        _hold(holds=row[name] == another[name], message=message)


def _rows_by_record(frame: pl.DataFrame) -> dict[int, list[dict[str, Any]]]:
    found: dict[int, list[dict[str, Any]]] = {}
    for row in frame.to_dicts():
        found.setdefault(row[ROW], []).append(row)
    return found


def it_explains_itself(stage: type[StageConfig], resources: Resources) -> None:  # noqa: ARG001 - like the others
    """The class has a docstring and each option a description: they are its reference page."""
    _hold(holds=bool(stage.__doc__), message=f"{stage.__name__} has no docstring")
    silent = [name for name, field in stage.model_fields.items() if not field.description]
    _hold(holds=not silent, message=f"options without a description: {', '.join(silent)}")


STAGE_CHECKS: Final[tuple[StageCheck, ...]] = (
    example_holds,
    output_is_as_declared_and_every_row_ends_once,
    no_rows_give_no_rows,
    nulls_do_not_break_it,
    twice_gives_the_same_bytes,
    input_stays_as_it_is,
    parts_give_what_the_whole_gives,
    a_missing_column_is_refused,
    columns_come_from_their_origins,
    it_explains_itself,
)
"""Every check; a stage that passes them all can be run."""
