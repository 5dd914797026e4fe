"""Which stream a log is of: its ARN and the time at which it was created, pinned by the first worker that reads it.

A stream's name says neither account nor region, and two deployments may share a state by mistake. Sequence numbers of another stream look
like later ones, so without the pin each would record gaps over what the other has not read yet. A stream that is deleted and created again
keeps its ARN, and its sequence numbers go on rising: the log follows it, and the pin says since when.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum, auto
from typing import Final

import msgspec

from stream.contracts import Clock, ObjectStore
from stream.errors import Fatal

ATTEMPTS: Final = 5
"""How often to look again because another worker was faster. Each time, one of them has made progress."""

SAME: Final = timedelta(seconds=1)
"""Times of creation that differ by no more than this are of one stream, however they were rounded: to delete one takes longer."""


class DamagedPin(Fatal):
    """The object that says which stream a log is of cannot be read as such. ``remedy``: what to do, in a sentence."""

    remedy: Final = (
        "Restore its previous version, or stop all workers and delete it: the next one to start pins the stream that it finds. "
        "Nothing is read until then"
    )

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}. {self.remedy}.")


class Former(msgspec.Struct, frozen=True):
    """A stream of the same ARN that was there before: when it was created, and when and by which worker its successor was found."""

    created: str
    followed_at: str
    worker: str


class Pin(msgspec.Struct, frozen=True):
    """The stream that a log is of. ``created``: as the service says; empty if it does not. ``former``: the oldest first."""

    arn: str
    created: str
    pinned_at: str
    worker: str
    former: tuple[Former, ...] = ()

    def __str__(self) -> str:
        """The stream in words."""
        return in_words(self.arn, _moment(self.created))


class Relation(Enum):
    """How a stream is related to the pinned one. ``EARLIER``: it has the ARN and was created before."""

    SAME = auto()
    SUCCESSOR = auto()
    EARLIER = auto()
    OTHER = auto()

    @property
    def belongs(self) -> bool:
        """Whether the log may follow the stream."""
        return self in {Relation.SAME, Relation.SUCCESSOR}


def relation(pin: Pin, arn: str, created: datetime | None) -> Relation:
    """How the stream with that ARN, created then, is related to the pinned one; a time that is not known tells nothing."""
    if arn != pin.arn:
        return Relation.OTHER
    before = _moment(pin.created)
    if created is None or before is None or abs(created - before) <= SAME:
        return Relation.SAME
    return Relation.SUCCESSOR if created > before else Relation.EARLIER


def identity_key(stream: str) -> str:
    """Key of the object that says which stream ``stream`` is."""
    return f"identities/{stream}.json"


def in_words(arn: str, created: datetime | None) -> str:
    """A stream, for messages."""
    return arn if created is None else f"{arn}, created at {created.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


@dataclass(frozen=True, slots=True)
class StreamPins:
    """Reads and writes the pins of one application's log. Stateless: all instances over one store see the same pins."""

    store: ObjectStore

    async def read(self, stream: str) -> Pin | None:
        """What is pinned for ``stream``; None if nothing is.

        Raises:
            DamagedPin: the object cannot be read as a pin.
        """
        found = await self._read(stream)
        return None if found is None else found[0]

    async def recognise(
        self, stream: str, arn: str, created: datetime | None, clock: Clock, worker: str, *, follow: bool = True
    ) -> tuple[Pin, Relation]:
        """What is pinned for ``stream``, and how the stream with that ARN, created then, was related to it when this was called.

        If nothing is pinned, that stream is. If it succeeds the pinned one, it takes its place, unless ``follow`` is false. Of workers that
        do so together, one does.

        Raises:
            DamagedPin: the object cannot be read as a pin.
            Fatal: others keep writing it.
        """
        key, now, told = identity_key(stream), clock.now().isoformat(), "" if created is None else created.isoformat()
        for _ in range(ATTEMPTS):
            found = await self._read(stream)
            if found is None:
                await self.store.create(key, msgspec.json.encode(Pin(arn, told, now, worker)))
                continue
            pin, etag = found
            related = relation(pin, arn, created)
            if related is not Relation.SUCCESSOR or not follow:
                return pin, related
            following = Pin(arn, told, pin.pinned_at, pin.worker, (*pin.former, Former(pin.created, now, worker)))
            if await self.store.replace(key, msgspec.json.encode(following), etag) is not None:
                return following, related
        msg = f"{self.store.url}: object {key} was written {ATTEMPTS} times and is not as it was written; see who else writes or deletes it"
        raise Fatal(msg)

    def refusal(self, stream: str, pin: Pin, arn: str, created: datetime | None, place: str) -> str:
        """Why a stream that does not belong to the log is not read, and what to do. ``place``: where ``stream`` was looked for."""
        return (
            f"the log {self.store.url} is of another stream than the `{stream}` that was found here ({place}). Of the log: {pin}; pinned "
            f"at {pin.pinned_at} by {pin.worker}. Found here: {in_words(arn, created)}. A log has the records of one stream, so nothing is "
            "read. If the first one is meant, correct the credentials, the region or the endpoint. If this one is meant, give it another "
            "`application` or `state`, or its ARN as `source.kinesis.stream`, so that it has a part of the log to itself. If the log is to "
            f"be this one's, stop all workers and delete the object {identity_key(stream)} there: the next one to start pins what it finds."
        )

    def question(self, stream: str, pin: Pin, arn: str, created: datetime | None, place: str) -> str:
        """Why a stream that was created again is not read before somebody decides, and how. ``place``: where it was looked for."""
        return (
            f"the log {self.store.url} is of a former stream than the `{stream}` that was found here ({place}): it was deleted and created "
            f"again. Of the log: {pin}. Found here: {in_words(arn, created)}. What the former one held and nobody had read is lost, and "
            "with `on_expired: halt` nothing is read until a person decides. To go on with the new one, run with "
            "`source.kinesis.on_expired: gap` until `stream_succeeded` and, for each shard that had been begun, `records_expired` are "
            "logged; then `halt` may be set again. To keep the two apart, give the new one another `application`."
        )

    async def _read(self, stream: str) -> tuple[Pin, str] | None:
        key = identity_key(stream)
        stored = await self.store.get(key)
        if stored is None:
            return None
        try:
            pin = msgspec.json.decode(stored.body, type=Pin)
            _moment(pin.created)
        except (msgspec.MsgspecError, UnicodeDecodeError, ValueError) as error:
            msg = f"{self.store.url}: object {key} does not say which stream the log is of: {error}"
            raise DamagedPin(msg) from error
        return pin, stored.etag


def _moment(text: str) -> datetime | None:
    """The time in ``text``; raises ``ValueError`` if it is neither empty nor a time with a zone."""
    if not text:
        return None
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        msg = f"the time {text!r} has no zone"
        raise ValueError(msg)
    return moment
