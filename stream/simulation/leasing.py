"""Checks what the leases and the pauses of a schedule have promised: one worker for a shard, nobody idle, nothing read that is paused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Final

from stream import events
from stream.lease.rows import decode
from stream.simulation.places import EPOCH_MS
from stream.simulation.promises import Failure
from stream.simulation.schedule import Struck, Trouble
from stream.simulation.world import World

TWICE: Final = 1.5
"""Failover times for which two workers may hold the same lease: one that was taken away is noticed at the next successful call, and without
one, when the lease has not been renewed for a failover time. The rest is for calls under way."""


STILL: Final = 20.0
"""Seconds within which a worker whose calls succeed stops reading what is paused: it looks every 5 s, and seals what it has read."""


@dataclass(frozen=True, slots=True)
class _Held:
    """A time in which a worker believed that it had a shard's lease."""

    who: str
    begin: float
    end: float


def lease_failures(world: World) -> Iterator[Failure]:
    """Whatever is wrong with the lease table, or with what workers made of it."""
    if not world.schedule.leased:
        return
    if world.unsettled:
        yield Failure("P7", f"although nothing has gone wrong for minutes and workers are there, {world.unsettled}")
    yield from _held_twice(world)
    for key, item in sorted(each for rows in world.tables.contents.values() for each in rows.items()):
        lease = decode(item)
        if lease.owner is not None and not lease.ended:
            yield Failure("P7", f"the lease {key} still has the owner {lease.owner}, although every worker has ended or died")


def _held_twice(world: World) -> Iterator[Failure]:
    pipeline, _ = world.subject.version(newer=False)
    if pipeline.leases is None:
        return
    most = TWICE * pipeline.leases.failover.total_seconds()
    for (stream, shard), held in sorted(_times(world).items()):
        for one, other in combinations(held, 2):
            begin, end = max(one.begin, other.begin), min(one.end, other.end)
            if one.who == other.who or end - begin <= most:
                continue
            awake = end - begin - _frozen(world, {one.who, other.who}, begin, end)
            if awake > most:
                what = f"both held the lease of {world.named(stream, shard)} for {awake:.1f} s"
                yield Failure("P7", f"{one.who} and {other.who} {what}, from {begin:.3f} s")


def _times(world: World) -> dict[tuple[str, str], list[_Held]]:
    """Who believed when to have which lease."""
    begun: dict[tuple[str, str, str], float] = {}
    found: dict[tuple[str, str], list[_Held]] = {}

    def over(who: str, stream: str, shard: str, at: float) -> None:
        since = begun.pop((who, stream, shard), None)
        if since is not None:
            found.setdefault((stream, shard), []).append(_Held(who, since, at))

    for each in world.happened:
        what, who = each.what, each.who
        if isinstance(what, events.LeaseTaken):
            begun.setdefault((who, what.stream, what.shard), each.at)
        elif isinstance(what, events.LeaseDropped):
            over(who, what.stream, what.shard, each.at)
        elif what == "ends" or (isinstance(what, Struck) and what.disturbance.trouble in {Trouble.KILLED_BEFORE, Trouble.KILLED_AFTER}):
            for name, stream, shard in list(begun):
                if name == who:
                    over(who, stream, shard, each.at)
    return found


def _frozen(world: World, who: set[str], begin: float, end: float) -> float:
    """Seconds between ``begin`` and ``end`` during which one of ``who`` stood still."""
    total = 0.0
    for each in world.happened:
        if each.who in who and isinstance(each.what, Struck) and each.what.disturbance.trouble is Trouble.FROZEN:
            total += max(0.0, min(end, each.at + each.what.disturbance.seconds) - max(begin, each.at))
    return total


def pause_failures(world: World) -> Iterator[Failure]:
    """Records that arrived while their shard was paused, and that a worker with which nothing was wrong has read nevertheless."""
    for each in world.happened:
        begun = each.what
        if not isinstance(begun, events.IntentCreated) or begun.last is None:
            continue
        arrivals = [
            (put.arrival_ms - EPOCH_MS) / 1000
            for put in world.puts
            if (put.stream, put.shard) == (begun.stream, begun.shard) and begun.after < put.sequence <= begun.last
        ]
        for period in world.pauses if arrivals else ():
            same = period.target.stream == begun.stream and period.target.part in {"", begun.shard}
            late = same and max(arrivals) > period.begin + STILL and each.at < period.end
            if late and not _troubled(world, each.who, period.begin, each.at):
                where, when = world.named(begun.stream, begun.shard), f"since {period.begin:.3f} s"
                yield Failure("pause", f"{each.who} began a unit of {where} at {each.at:.3f} s, which was paused {when}")


def _troubled(world: World, who: str, begin: float, end: float) -> bool:
    """Whether something went wrong with a call of ``who`` between ``begin`` and ``end``."""
    struck = [(each.at, each.what.disturbance.seconds) for each in world.happened if each.who == who and isinstance(each.what, Struck)]
    return any(at + seconds > begin and at < end for at, seconds in struck)
