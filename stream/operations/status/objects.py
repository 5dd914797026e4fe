"""What `stream status` reads of the objects of `source.s3` beside their shards: claims, the queue, notes of unreadable objects."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Final, Protocol, TypeVar

from stream.audit.completeness import Unclaimed
from stream.aws.session import AwsSession
from stream.aws.sqs import open_sqs
from stream.contracts import Clock, ObjectStore
from stream.metrics import thresholds
from stream.operations.progress.object_lookahead import ObjectsLookahead
from stream.operations.status.finding import DETAILS
from stream.operations.status.outcomes import HOUR
from stream.operations.status.snapshot import ObjectsStatus
from stream.pipeline.model import Pipeline
from stream.source.unreadable import Note, unreadable_notes
from stream.worker.opening.places import queue_place

T = TypeVar("T")

NOTES_SECONDS: Final = 60.0
"""Seconds for listing the notes of unreadable objects, of which there may be as many as objects."""


class ReadPart(Protocol):
    """Reads a part of the shared state; None after noting why it could not be read."""

    async def __call__(self, part: str, reading: Awaitable[T], shards: int = 0, least: float | None = None) -> T | None:
        """The result of ``reading``; ``least``: seconds that it may take."""
        ...


async def read_objects(
    pipeline: Pipeline,
    objects: ObjectsLookahead,
    arrived: Unclaimed | None,
    state: ObjectStore,
    queue: Callable[[], Awaitable[Mapping[str, str]]] | None,
    asked_at: datetime,
    read: ReadPart,
) -> ObjectsStatus:
    """What is known at ``asked_at``. ``arrived``: what a listing found in no shard. ``queue``: asks for the queue's attributes."""
    config = pipeline.source.s3
    watch = None if config is None else config.watch
    every = 0.0 if watch is None or watch.queue is not None else watch.listed_every.total_seconds()
    claim = await read("claims", objects.last_claim())
    said = None if queue is None else await read("queue", queue())
    notes = await read("notes of unreadable objects", unreadable_notes(state, pipeline.source.kinesis.stream), least=NOTES_SECONDS)
    newest = sorted(notes or (), key=lambda note: note[1], reverse=True)
    return ObjectsStatus(
        watched=watch is not None,
        limit=thresholds.BEHIND_SECONDS + every,
        unclaimed=arrived,
        last_claim=claim,
        messages=None if said is None else int(said.get("ApproximateNumberOfMessages", 0)),
        hidden=None if said is None else int(said.get("ApproximateNumberOfMessagesNotVisible", 0)),
        given_up=None if notes is None else len(notes),
        given_up_at=newest[0][1] if newest else None,
        recent=sum(asked_at - noted <= HOUR for _, noted in newest),
        newest=await read("notes of unreadable objects", _describe([note for note, _ in newest[:DETAILS]])) or (),
    )


async def _describe(notes: Sequence[Note]) -> tuple[str, ...]:
    parts = [await note.read() for note in notes]
    return tuple(f"{part.key}, after record {part.after:,}: {part.why}" for part in parts if part is not None)


async def queue_attributes(session: AwsSession, queue: str, clock: Clock) -> Mapping[str, str]:
    """What SQS says of the queue with that ARN or URL."""
    async with open_sqs(session, queue_place(queue), clock) as opened:
        return await opened.attributes()
