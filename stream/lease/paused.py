"""What is paused on purpose, decided from the recorded pauses and the time. Pure.

A pause concerns the reading of a stream or of one shard, or the loads of a stream into one table or all of them. Reading and loads are
independent: while only loads are paused, units are sealed as usual, and what is sealed before reading was paused is still loaded.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final, NamedTuple, TypeAlias

import msgspec

Moment: TypeAlias = Annotated[datetime, msgspec.Meta(tz=True)]


class What(StrEnum):
    """What stands still during a pause."""

    READING = "reading"
    LOADS = "loads"


class Target(NamedTuple):
    """What a pause applies to. ``part``: the id of a shard, or for loads the name of a sink; empty for all of the stream."""

    what: What
    stream: str
    part: str = ""

    def __str__(self) -> str:
        """The target as text."""
        where = f"{self.stream}/{self.part}" if self.part and self.what is What.READING else self.stream
        if self.what is What.READING:
            return f"reading of {where}"
        return f"loads of {where} into {self.part or 'all tables'}"


class Pause(msgspec.Struct, frozen=True, kw_only=True):
    """One pause. ``until``: when it ends by itself; None if somebody has to end it. ``by`` and ``note``: who paused, and why."""

    what: What
    stream: str
    part: str = ""
    by: str
    note: str
    since: Moment
    until: Moment | None = None

    @property
    def target(self) -> Target:
        """What it applies to."""
        return Target(self.what, self.stream, self.part)

    def holds(self, now: datetime) -> bool:
        """Whether it has not ended by itself."""
        return self.until is None or now < self.until

    def __str__(self) -> str:
        """The pause as text, for a person who wants to know why nothing moves."""
        verb = "is" if self.what is What.READING else "are"
        until = f" until {_text(self.until)}" if self.until is not None else ""
        return f"{self.target} {verb} paused{until}, by {self.by} since {_text(self.since)}: {self.note}"


class Action(StrEnum):
    """What a change did."""

    PAUSE = "pause"
    RESUME = "resume"


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One change by an operator, and the state after it.

    ``number`` counts the changes of an application from 1. ``changed``: the pauses that it made or ended. ``pauses``: all that hold after
    it, apart from those that have ended by themselves since.
    """

    number: int
    action: Action
    by: str
    at: Moment
    note: str
    changed: tuple[Pause, ...]
    pauses: tuple[Pause, ...]


@dataclass(frozen=True, slots=True)
class Pauses:
    """The pauses that hold at one moment."""

    all: tuple[Pause, ...] = ()

    def reading(self, stream: str, shard_id: str) -> Pause | None:
        """Why the shard is not to be read: of several pauses, the one that lasts longest; None if it may be read."""
        return self._longest((Target(What.READING, stream), Target(What.READING, stream, shard_id)))

    def loads(self, stream: str, sink: str) -> Pause | None:
        """Why units of the stream are not to be loaded into the table of ``sink``; None if they may be."""
        return self._longest((Target(What.LOADS, stream), Target(What.LOADS, stream, sink)))

    def of(self, target: Target) -> Pause | None:
        """The pause of exactly ``target``."""
        return next((pause for pause in self.all if pause.target == target), None)

    def _longest(self, targets: Sequence[Target]) -> Pause | None:
        found = [pause for target in targets if (pause := self.of(target)) is not None]
        return max(found, key=_ends, default=None)


NONE: Final = Pauses()


def held_at(change: Change | None, now: datetime) -> Pauses:
    """The pauses that hold at ``now``, if ``change`` is the newest one."""
    return Pauses(tuple(pause for pause in (change.pauses if change is not None else ()) if pause.holds(now)))


def seconds_to_next_end(pauses: Pauses, now: datetime) -> float | None:
    """Seconds until the next pause ends by itself; None if none does."""
    return min(((pause.until - now).total_seconds() for pause in pauses.all if pause.until is not None), default=None)


def paused(newest: Change | None, wanted: Sequence[Pause], by: str, note: str, now: datetime) -> Change | None:
    """The change that makes every pause of ``wanted`` hold; None if all of them do already, with the same note and end.

    A pause of the same target is replaced, but keeps the time since which nothing has moved.
    """
    before = held_at(newest, now)
    changed = []
    for pause in wanted:
        known = before.of(pause.target)
        if known is None:
            changed.append(pause)
        elif (known.note, known.until) != (pause.note, pause.until):
            changed.append(msgspec.structs.replace(pause, since=known.since))
    if not changed:
        return None
    targets = {pause.target for pause in changed}
    pauses = (*(pause for pause in before.all if pause.target not in targets), *changed)
    return _change(newest, Action.PAUSE, by, note, now, changed, pauses)


def resumed(newest: Change | None, targets: Iterable[Target], by: str, note: str, now: datetime) -> Change | None:
    """The change that ends the pauses of ``targets``; None if none of them holds."""
    before, ending = held_at(newest, now), set(targets)
    changed = [pause for pause in before.all if pause.target in ending]
    if not changed:
        return None
    return _change(newest, Action.RESUME, by, note, now, changed, [pause for pause in before.all if pause.target not in ending])


def _change(
    newest: Change | None, action: Action, by: str, note: str, now: datetime, changed: Sequence[Pause], pauses: Sequence[Pause]
) -> Change:
    number = newest.number + 1 if newest is not None else 1
    ordered = sorted(pauses, key=lambda pause: pause.target)
    return Change(number=number, action=action, by=by, at=now, note=note, changed=tuple(changed), pauses=tuple(ordered))


def _ends(pause: Pause) -> tuple[bool, float]:
    return pause.until is None, pause.until.timestamp() if pause.until is not None else 0.0


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")
