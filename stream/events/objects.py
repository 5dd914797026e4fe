"""What happens to the objects of a watched source; before they are read, ``shard`` is empty."""

from __future__ import annotations

from dataclasses import dataclass

from stream.events.base import Event


@dataclass(frozen=True, slots=True)
class ObjectsClaimed(Event):
    """This worker claimed ``objects`` objects of ``size`` bytes in claim ``number``; ``age``: seconds since the oldest was modified."""

    number: int
    objects: int
    size: int
    age: float


@dataclass(frozen=True, slots=True)
class ObjectsWaiting(Event):
    """``objects`` objects are known and unclaimed; ``since``: since when this worker knows one of them (Unix time), 0: there is none."""

    objects: int
    since: float


@dataclass(frozen=True, slots=True)
class ObjectsSkipped(Event):
    """Notifications named ``objects`` that need no claim; ``why``: claimed, deleted, empty, other_event, other_place, test_event."""

    why: str
    objects: int


@dataclass(frozen=True, slots=True)
class ObjectRefused(Event):
    """An object, or a message, that a person has to look at is left alone; ``why``: changed, content, key, unreadable."""

    why: str
    detail: str


@dataclass(frozen=True, slots=True)
class ObjectsUnread(Event):
    """``objects`` objects of the shard are claimed and not read to their ends yet, as far as this worker knows."""

    objects: int


@dataclass(frozen=True, slots=True)
class QueueFailed(Event):
    """The queue of notifications cannot be used; objects are still found by listing."""

    detail: str


@dataclass(frozen=True, slots=True)
class QueueAnswered(Event):
    """The queue can be used again."""
