"""Surveys the shards of objects: how many claimed objects wait in each, since when, and who reads it. For ``stream shards``."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from stream.audit.completeness import Standing
from stream.commit.log import CommitLog
from stream.contracts import Clock, Emit
from stream.errors import DefinitionError
from stream.lease.pauses import PauseRecord
from stream.operations.opening import open_checkpoints
from stream.operations.progress.backlog import Backlog
from stream.operations.progress.completeness import Completeness
from stream.operations.progress.object_lookahead import open_lookahead
from stream.operations.shards.survey import LATE, WHOLE, owners
from stream.pipeline.model import Pipeline
from stream.worker.opening.places import session_of
from stream.worker.opening.stores import Stores


@dataclass(frozen=True, slots=True)
class ObjectRow:
    """One unfinished shard. ``owner``: of its lease, if there are leases. ``sealed_by``: the worker that sealed its last unit."""

    name: str
    standing: Standing
    backlog: Backlog
    owner: str | None = None
    sealed_by: str = ""
    marks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ObjectSurvey:
    """The shards of one pipeline. ``leased``: whether a lease table says who reads them. ``why``: why nothing is known."""

    stream: str
    asked_at: datetime
    rows: tuple[ObjectRow, ...]
    leased: bool
    why: str = ""


async def survey_objects(pipeline: Pipeline, base: Path, only: tuple[str, ...], clock: Clock, emit: Emit) -> ObjectSurvey:
    """The shards of ``pipeline``, which reads objects, or ``only`` those. Lists no objects: what is not claimed is in no shard.

    Raises:
        DefinitionError: there is no shard of one of these names.
        Halted: a claim or a link of the log cannot be read.
        StreamError: the state or the lease table cannot be read.
    """
    async with AsyncExitStack() as stack:
        session, name = session_of(pipeline), pipeline.source.kinesis.stream
        state = Stores.open(pipeline, base, session).state
        lookahead = open_lookahead(pipeline, base, state, session, clock, lists=False)
        checkpoints = await open_checkpoints(pipeline, name, state, session, clock, stack, emit)
        completeness = Completeness(name, CommitLog(state, pipeline.application, clock, "shards"), checkpoints, lookahead)
        owner = await owners(pipeline, clock, emit, stack)
        answer = await completeness.ask(WHOLE, tables=False)
        if unknown := set(only).difference(each.shard for each in answer.shards):
            there = ", ".join(each.shard for each in answer.shards)
            msg = f"{', '.join(sorted(unknown))}: no shard of {name} that is not finished; there are {there or 'none'}"
            raise DefinitionError(msg)
        pauses, rows = await PauseRecord(state).in_force(answer.asked_at), []
        for standing in answer.shards:
            if only and standing.shard not in only:
                continue
            last = completeness.tails[standing.shard].last
            row = ObjectRow(standing.shard, standing, lookahead.backlogs.get(standing.shard, Backlog()))
            marks = ["paused"] if pauses.reading(name, row.name) is not None else []
            if row.backlog.oldest is not None and answer.asked_at - row.backlog.oldest > pipeline.flush.age + LATE:
                marks.append("late")
            held_by = None if owner is None else await owner(row.name)
            rows.append(replace(row, owner=held_by, sealed_by=last.sealed_by if last else "", marks=tuple(marks)))
        return ObjectSurvey(name, answer.asked_at, tuple(rows), owner is not None, answer.why)
