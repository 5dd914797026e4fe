"""Plays many schedules, and finds for the first one that fails a smaller one that fails in the same way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from stream.contracts import Clock
from stream.errors import StreamError, unforeseen
from stream.simulation.fleet import Tools
from stream.simulation.judge import judge, left
from stream.simulation.promises import Failure
from stream.simulation.schedule import Piece, Schedule, Struck, draw
from stream.simulation.subject import Subject
from stream.simulation.virtual_time import Deadlock, leaping
from stream.simulation.world import World

MOST_ATTEMPTS: Final = 150
"""Schedules that are played at most to make a failing one smaller."""


@dataclass(frozen=True)
class Played:
    """A schedule, the world that it has left, and what is wrong with it."""

    schedule: Schedule
    world: World
    failures: list[Failure]


@dataclass
class Tally:
    """What has been played. ``troubles``: how often each kind of trouble, reshard or update happened."""

    schedules: int = 0
    calls: int = 0
    records: int = 0
    units: int = 0
    workers: int = 0
    troubles: Counter[str] = field(default_factory=Counter)

    def add(self, played: Played) -> None:
        """Count one more schedule."""
        world = played.world
        self.schedules += 1
        self.calls += world.calls
        self.records += sum(len(put.numbers) for put in world.puts)
        self.units += sum(1 for how, key in world.writes if how == "create" and "/commits/" in key and not key.endswith("genesis.json"))
        self.workers += sum(1 for name in world.processes if "worker" in name)
        self.troubles.update(each.what.disturbance.trouble.value for each in world.happened if isinstance(each.what, Struck))
        self.troubles.update(world.changes)


def play(subject: Subject, schedule: Schedule, tools: Tools) -> Played:
    """Play one schedule, and judge it."""
    world = World(subject, schedule, tools)

    async def course() -> list[Failure]:
        try:
            await world.play(left)
        except TimeoutError:
            return [Failure("unfinished", "the workers did not come to an end, hours after anything went wrong last")]
        except (Deadlock, StreamError) as error:
            return [Failure("unfinished", str(error))]
        except Exception as error:  # noqa: BLE001 - whatever a worker raises is what is looked for
            return [Failure("unforeseen", unforeseen(_leaf(error)))]
        return await judge(world)

    try:
        failures = leaping(course)
    except Deadlock as error:
        failures = [Failure("unfinished", str(error))]
    return Played(schedule, world, failures)


def _leaf(error: BaseException) -> BaseException:
    return _leaf(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error


def campaign(
    subject: Subject, seeds: Iterable[int], tools: Tools, clock: Clock, seconds: float | None, on_played: Callable[[Played], None]
) -> Iterator[Played]:
    """The schedules of ``seeds`` that fail, as they are found; ends early after ``seconds``. ``on_played`` is called with each result."""
    begun = clock.monotonic()
    for seed in seeds:
        played = play(subject, draw(seed, subject.possible), tools)
        on_played(played)
        if played.failures:
            yield played
        if seconds is not None and clock.monotonic() - begun >= seconds:
            return


def minimized(subject: Subject, played: Played, tools: Tools) -> Played:
    """A schedule with fewer pieces than ``played`` that still breaks the same promise, or ``played`` itself.

    Larger parts are left out first, then smaller ones, until no single piece can be left out, or after ``MOST_ATTEMPTS``.
    """
    kind, best, attempts = played.failures[0].promise, played, 0
    size = max(1, best.schedule.size // 2)
    while size and attempts < MOST_ATTEMPTS:
        pieces = list(best.schedule.pieces())
        smaller = None
        for group in _groups(pieces, size):
            attempts += 1
            tried = play(subject, best.schedule.without(group), tools)
            if any(each.promise == kind for each in tried.failures):
                smaller = tried
                break
            if attempts >= MOST_ATTEMPTS:
                break
        if smaller is None:
            size //= 2
        else:
            best = smaller
            size = min(size, max(1, best.schedule.size))
    return best


def _groups(pieces: list[Piece], size: int) -> Iterator[frozenset[Piece]]:
    for at in range(0, len(pieces), size):
        yield frozenset(pieces[at : at + size])
