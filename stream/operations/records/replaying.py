"""Shows a record after each stage of the definition that its unit was committed with: reads the unit again, and runs it again."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from stream.audit.chain import Link
from stream.audit.trace import Fate
from stream.batch import ROW, SEQUENCE, SUBSEQUENCE, Batch
from stream.contracts import LendingSource, Start, StartKind, shard_of_chain
from stream.errors import DefinitionError, Halted
from stream.pipeline.sensitive import Sensitive, hidden, sensitive_by_step, unreadable
from stream.transform.engine import SOURCE, CompiledChain
from stream.transform.stage import StageConfig
from stream.worker.recipes.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Step:
    """A record after one step of the chain: its rows as plain values, or the outcome and reason with which it ended there."""

    name: str
    rows: tuple[Mapping[str, Any], ...]
    ended: str = ""


async def read_unit(source: LendingSource, link: Link) -> Batch:
    """The records of a unit, from the stream.

    Raises:
        Halted: the stream no longer holds them.
    """
    listed = {shard.shard_id: shard for shard in await source.shards()}
    name, generation = shard_of_chain(link.shard)
    shard = listed.get(name)
    if shard is None:
        msg = f"the stream no longer has the shard {link.shard}: its records were dropped by age and cannot be shown"
        raise Halted(msg)
    frames, shard = [], replace(shard, generation=generation)
    async with aclosing(source.read(shard, link.after, Start(StartKind.TRIM_HORIZON), link.last)) as pages:  # type: ignore[type-var]
        async for page in pages:
            frames.append(page.batch)
            source.budget.release(page.held)
    batch = Batch.concat(frames)
    if batch.rows != link.records:
        msg = (
            f"the stream holds {batch.rows} of the unit's {link.records} records: the others were dropped by age, so it cannot be run again"
        )
        raise Halted(msg)
    return batch


def replay(
    recipe: Recipe, stages: Sequence[StageConfig], sensitive: Sensitive | None, batch: Batch, link: Link, fate: Fate
) -> Sequence[Step]:
    """The record before decoding and after each of the ``stages`` of ``recipe``, obtained by running the whole unit again.

    What ``sensitive`` declares is hidden.

    Raises:
        DefinitionError: the recipe's chain cannot be run step by step.
    """
    chain = recipe.chain
    if not isinstance(chain, CompiledChain):
        msg = f"the definition {recipe.digest} was not compiled by this build's engine"
        raise DefinitionError(msg)
    is_it = (pl.col(SEQUENCE) == fate.sequence) & (pl.col(SUBSEQUENCE) == fate.subsequence)
    row = batch.frame.with_row_index(ROW).filter(is_it)[ROW]
    steps = []
    columns: dict[str, Collection[str]] = {SOURCE: (), **sensitive_by_step(sensitive, stages, chain)}
    hide = {name: unreadable(sensitive, each) for name, each in columns.items()}
    for name, _, after, settled, _ in chain.walk(batch, recipe.label(link.stream, shard_of_chain(link.shard)[0])):
        rows = after.filter(pl.col(ROW).is_in(row.implode())).drop(ROW)
        end = settled.filter(pl.col(ROW).is_in(row.implode()))
        ended = "" if end.is_empty() else f"{fate.outcome}: {end['reason'][0]}"
        if rows.height or ended:
            steps.append(Step(name, tuple(hidden(each, hide[name]) for each in rows.to_dicts()), ended))
    return steps
