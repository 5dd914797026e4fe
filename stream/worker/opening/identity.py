"""Makes sure that a stream which is about to be read is the one that the log is of (``commit.identity``)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from stream.aws.kinesis import KinesisClient, StreamSummary
from stream.commit.identity import Pin, Relation, StreamPins, relation
from stream.contracts import Clock, Emit, ObjectStore
from stream.errors import Fatal, OtherStream
from stream.events import StreamSucceeded
from stream.pipeline.model import OnExpired, Pipeline
from stream.stream_ids import stream_id

_UNKNOWN = datetime.fromtimestamp(0, UTC)


def created_of(summary: StreamSummary) -> datetime | None:
    """When the stream was created; None if the service does not say."""
    return summary.created if summary.created - _UNKNOWN > timedelta() else None


@dataclass(frozen=True, slots=True)
class Pinning:
    """What a worker pins a stream with; whoever only reads has none."""

    clock: Clock
    worker: str
    emit: Emit


class PinnedStream:
    """``source.access.Recognition``: the log's own stream is recognised; any other is refused.

    ``stream``: its name, ARN or id. ``place``: where it is looked for, in words. With ``pinning``, a stream is pinned if none is, and one
    that was deleted and created again takes the place of the pinned one; without, nothing is written. With ``asks``, one that was created
    again is refused, too, since a person is to decide about what was lost.
    """

    def __init__(self, state: ObjectStore, stream: str, place: str, pinning: Pinning | None = None, *, asks: bool = False) -> None:
        self._pins = StreamPins(state)
        self._stream = stream_id(stream)
        self._place = place
        self._pinning = pinning
        self._asks = asks
        self._seen: tuple[str, datetime | None] | None = None

    @property
    def done(self) -> bool:
        """Whether the stream was recognised at least once."""
        return self._seen is not None

    async def __call__(self, summary: StreamSummary) -> None:
        """Compare the stream with the pinned one; the same answer as before costs nothing.

        Raises:
            OtherStream: it is another one.
            Fatal: what is pinned cannot be read, or a person is to decide first.
            Retryable: the state kept failing.
        """
        seen = summary.arn, created_of(summary)
        if seen == self._seen:
            return
        pin = await self._pinned(*seen)
        if why := self.why_refused(pin, summary):
            raise Fatal(why) if pin is not None and relation(pin, *seen).belongs else OtherStream(why)
        self._seen = seen

    def why_refused(self, pin: Pin | None, summary: StreamSummary) -> str:
        """Why a stream is not the one that is pinned, or is not to be read; empty if it is the one, or none is pinned."""
        if pin is None:
            return ""
        found = summary.arn, created_of(summary)
        related = relation(pin, *found)
        if not related.belongs:
            return self._pins.refusal(self._stream, pin, *found, self._place)
        return self._pins.question(self._stream, pin, *found, self._place) if related is Relation.SUCCESSOR and self._asks else ""

    async def pin(self) -> Pin | None:
        """What is pinned; None if nothing is."""
        return await self._pins.read(self._stream)

    async def _pinned(self, arn: str, created: datetime | None) -> Pin | None:
        if self._pinning is None:
            return await self._pins.read(self._stream)
        clock, worker = self._pinning.clock, self._pinning.worker
        pin, related = await self._pins.recognise(self._stream, arn, created, clock, worker, follow=not self._asks)
        if related is Relation.SUCCESSOR and not self._asks:
            self._pinning.emit(StreamSucceeded(self._stream, "", arn, pin.former[-1].created, pin.created))
        return pin


def asks_first(pipeline: Pipeline) -> bool:
    """Whether ``pipeline`` leaves a stream that was created again alone until a person has decided."""
    return pipeline.source.kinesis.on_expired is OnExpired.HALT


def only_compared(client: KinesisClient, state: ObjectStore, stream: str, *, asks: bool = False) -> PinnedStream:
    """For commands: the stream is compared with the pinned one, and nothing is written. ``asks``: as for ``PinnedStream``."""
    return PinnedStream(state, stream, client.place, asks=asks)
