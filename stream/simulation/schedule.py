"""Schedules: which records arrive when, which workers start when, and what goes wrong at which of their calls. Drawn from a seed.

A schedule is a value, so that a part of it can be left out to see whether it still fails. What is not part of it, such as how long a call
takes, depends on the seed and on the number of the call, never on what was left out before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from random import Random
from typing import Final


class Trouble(StrEnum):
    """What may happen to one call of a worker to the stream or to a store.

    ``KILLED_BEFORE``, ``KILLED_AFTER``: SIGKILL before the call, or after its effect and before its reply. ``UNDONE``: no reply, and
    nothing happened. ``UNANSWERED``: it happened, and no reply came. ``LATE``: no reply came, and it happens later. ``FROZEN``: the whole
    process stands still before the call, and goes on as if nothing had happened. ``THROTTLED``: refused because of too many calls.
    ``EXPIRED``: a shard iterator has expired; other calls are throttled instead. ``LEASE_LOST``: right before a checkpoint, another worker
    takes the lease, which then does nothing with it; without a lease table, the checkpoint is refused. ``DENIED``: from then on, access
    to the stream and to the stores is refused for a while, to this worker alone; the lease table answers.
    """

    KILLED_BEFORE = "killed_before"
    KILLED_AFTER = "killed_after"
    UNDONE = "undone"
    UNANSWERED = "unanswered"
    LATE = "late"
    FROZEN = "frozen"
    THROTTLED = "throttled"
    EXPIRED = "expired"
    LEASE_LOST = "lease_lost"
    DENIED = "denied"


class Among(StrEnum):
    """Calls that are counted together: all, those that change an object, and checkpoints.

    Most calls only ask whether there is something new. What matters happens at a few others, so these are counted by themselves.
    """

    CALLS = "calls"
    WRITES = "writes"
    CHECKPOINTS = "checkpoints"


_WEIGHTS: Final = {
    Trouble.KILLED_BEFORE: 2,
    Trouble.KILLED_AFTER: 3,
    Trouble.UNDONE: 2,
    Trouble.UNANSWERED: 4,
    Trouble.LATE: 3,
    Trouble.FROZEN: 3,
    Trouble.THROTTLED: 2,
    Trouble.EXPIRED: 2,
    Trouble.LEASE_LOST: 2,
}
"""How often each is drawn: more often what leaves something half-done."""

LONGEST_FREEZE: Final = 400.0
"""Seconds; a shard iterator lives for 300."""


@dataclass(frozen=True, slots=True)
class Disturbance:
    """``trouble`` at the ``call``-th call of worker ``worker``, which counts from 0.

    ``among``: the calls that are counted. ``seconds``: how long a process stands still or has no access, or how much later a call happens.
    """

    worker: int
    call: int
    trouble: Trouble
    among: Among
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Struck:
    """A disturbance that happened, to the call described by ``call``."""

    disturbance: Disturbance
    call: str


@dataclass(frozen=True, slots=True)
class Arrival:
    """Records that are put at the time ``at`` under the partition key ``key``: as a KPL aggregate if there is more than one.

    ``records``: their places among the sample's records. ``damaged``: their bytes are cut short at random, as a producer's defect would.
    ``stream``: the number of the stream among those that the pipeline reads.
    """

    at: float
    key: str
    records: tuple[int, ...]
    damaged: bool = False
    stream: int = 0


@dataclass(frozen=True, slots=True)
class Start:
    """A worker that starts at the time ``at``. ``newer``: with the new pipeline file of a rolling update.

    ``skew``: seconds by which its wall clock is ahead. ``drains``: it is told to stop at the end, instead of working beside the last one.
    """

    number: int
    at: float
    newer: bool = False
    skew: float = 0.0
    drains: bool = True


@dataclass(frozen=True, slots=True)
class Reshard:
    """A split or a merge at the time ``at``; ``where`` in [0, 1) chooses the shard."""

    at: float
    merges: bool
    where: float
    stream: int = 0


@dataclass(frozen=True, slots=True)
class Pausing:
    """An operator who pauses reading at the time ``at``, and resumes it ``seconds`` later.

    Of a shard chosen by ``where`` in [0, 1), or if that is None, of the whole stream. ``number`` counts operators, as workers are counted.
    """

    number: int
    at: float
    seconds: float
    where: float | None
    stream: int = 0


@dataclass(frozen=True, slots=True)
class Rewinding:
    """An operator who, at the time ``at``, rewinds a shard chosen by ``where`` to one of its records, chosen by ``share``, both in [0, 1).

    ``number`` counts operators, as workers are counted.
    """

    number: int
    at: float
    where: float
    share: float
    stream: int = 0


Operation = Pausing | Rewinding
Piece = Disturbance | Arrival | Start | Reshard | Pausing | Rewinding


@dataclass(frozen=True, slots=True)
class Schedule:
    """One course of events. ``rows`` and ``age``: when workers cut a unit. ``until``: from then on, nothing goes wrong any more.

    ``leased``: workers share the shards through the lease table; otherwise each of them reads all.
    """

    seed: int
    leased: bool
    shards: int
    rows: int
    age: float
    until: float
    arrivals: tuple[Arrival, ...]
    starts: tuple[Start, ...]
    reshards: tuple[Reshard, ...]
    operations: tuple[Operation, ...]
    disturbances: tuple[Disturbance, ...]

    @property
    def size(self) -> int:
        """The number of pieces."""
        return sum(1 for _ in self.pieces())

    def pieces(self) -> Iterator[Piece]:
        """What can be left out, beginning with that whose absence simplifies most."""
        yield from self.operations
        yield from self.reshards
        yield from reversed(self.starts)
        yield from reversed(self.disturbances)
        yield from reversed(self.arrivals)

    def without(self, pieces: frozenset[Piece]) -> Schedule:
        """The schedule without ``pieces``, and without what happens to workers that do not start."""
        starts = tuple(each for each in self.starts if each not in pieces)
        operations = tuple(each for each in self.operations if each not in pieces)
        known = {each.number for each in (*starts, *operations)}
        return replace(
            self,
            arrivals=tuple(each for each in self.arrivals if each not in pieces),
            starts=starts,
            reshards=tuple(each for each in self.reshards if each not in pieces),
            operations=operations,
            disturbances=tuple(each for each in self.disturbances if each not in pieces and each.worker in known),
        )


@dataclass(frozen=True, slots=True)
class Possible:
    """What the pipeline allows to happen. ``records``: the size of its sample. ``streams``: how many it reads.

    ``rolling``: some workers have the new pipeline file. ``leased``: it has a lease table. ``rewinds``: its sinks can be rewound.
    """

    records: int
    streams: int = 1
    rolling: bool = False
    leased: bool = False
    rewinds: bool = True


OPERATORS: Final = 50
"""The number of the first operator; workers have smaller ones."""


def draw(seed: int, possible: Possible) -> Schedule:
    """The schedule of ``seed``.

    A fifth of all schedules are without trouble, so that what fails there is known not to need any. Of a pipeline with leases, a quarter
    are played as if everybody had every lease: exactly-once must not depend on leases.
    """
    rng = Random(seed)  # noqa: S311 - a schedule, not a secret
    until = rng.choice((15.0, 40.0, 120.0))
    age = rng.choice((1.0, 4.0, 15.0))
    starts = tuple(_starts(rng, until, rolling=possible.rolling))
    calm = rng.random() < 0.2
    leased = possible.leased and rng.random() < 0.75
    operations = tuple(_operations(rng, until, possible))
    drawn = Schedule(
        seed=seed,
        leased=leased,
        shards=rng.choice((1, 1, 2, 3)),
        rows=rng.choice((1, 3, 8, 30)),
        age=age,
        until=until,
        arrivals=tuple(_arrivals(rng, until, possible)),
        starts=starts,
        reshards=tuple(sorted(_reshards(rng, until, possible.streams), key=lambda each: each.at)),
        operations=operations,
        disturbances=() if calm else tuple(_disturbances(rng, [each.number for each in (*starts, *operations)], leased=leased)),
    )
    denials = () if calm or not leased else tuple(_denials(rng, [each.number for each in starts], until))
    return replace(drawn, disturbances=drawn.disturbances + denials)


def _denials(rng: Random, numbers: Sequence[int], until: float) -> Iterator[Disturbance]:
    """Workers to which access is refused for a while; only where others may have their shards."""
    for number in numbers:
        if rng.random() < 0.3:
            yield Disturbance(number, rng.randrange(150), Trouble.DENIED, Among.CALLS, round((0.3 + 0.7 * rng.random()) * until, 3))


def _arrivals(rng: Random, until: float, possible: Possible) -> Iterator[Arrival]:
    records = possible.records
    burst, first = rng.random() < 0.3, rng.randrange(records)
    at, number = 0.0, first
    for _ in range(rng.randrange(2, 17)):
        at = at if burst else min(until, at + rng.expovariate(10 / until))
        count = rng.choice((1, 1, 1, 2, 3))
        places = tuple((number + step) % records for step in range(count))
        number += count
        key, stream = f"key-{rng.randrange(1000)}", rng.randrange(possible.streams)
        yield Arrival(round(at, 3), key, places, damaged=rng.random() < 0.08, stream=stream)


def _starts(rng: Random, until: float, *, rolling: bool) -> Iterator[Start]:
    count = rng.randrange(1, 5)
    for number in range(count):
        at = 0.0 if number == 0 else round(rng.random() ** 2 * until * 0.8, 3)
        skew = rng.choice((0.0, 0.0, 2.0, -45.0, 200.0))
        yield Start(number, at, newer=rolling and rng.random() < 0.5, skew=skew, drains=rng.random() < 0.5)


def _reshards(rng: Random, until: float, streams: int) -> Iterator[Reshard]:
    for _ in range(rng.choice((0, 0, 0, 1, 2))):
        yield Reshard(round(rng.random() * until, 3), rng.random() < 0.5, rng.random(), rng.randrange(streams))


def _operations(rng: Random, until: float, possible: Possible) -> Iterator[Operation]:
    for number in range(OPERATORS, OPERATORS + rng.choice((0, 0, 0, 1, 2))):
        at, stream = round(rng.random() * until * 0.9, 3), rng.randrange(possible.streams)
        rewinds, where = rng.random() < 0.5, rng.random()
        if rewinds and possible.rewinds:
            yield Rewinding(number, at, where, rng.random(), stream)
        else:
            yield Pausing(number, at, round(rng.random() * (until - at), 3), where if rng.random() < 0.5 else None, stream)


def _disturbances(rng: Random, numbers: Sequence[int], *, leased: bool) -> Iterator[Disturbance]:
    """Whatever a worker does comes early in its life; with leases, it makes several calls a second."""
    troubles, weights, most = list(_WEIGHTS), list(_WEIGHTS.values()), 250 if leased else 120
    for number in numbers:
        taken: set[tuple[Among, int]] = set()
        for _ in range(rng.choice((0, 1, 2, 4, 8) if number < OPERATORS else (0, 1, 2))):
            trouble = rng.choices(troubles, weights)[0]
            among = Among.CHECKPOINTS if trouble is Trouble.LEASE_LOST else rng.choice((Among.CALLS, Among.WRITES))
            limit = {Among.CALLS: most if number < OPERATORS else 60, Among.WRITES: 24, Among.CHECKPOINTS: 4}[among]
            call = int(limit * rng.random() ** 1.5)
            if (among, call) in taken:
                continue
            taken.add((among, call))
            seconds = round(LONGEST_FREEZE * rng.random() ** 3, 3) if trouble in {Trouble.FROZEN, Trouble.LATE} else 0.0
            yield Disturbance(number, call, trouble, among, seconds)
