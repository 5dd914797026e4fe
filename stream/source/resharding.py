"""Whether and where to split or merge shards: decided from their rates and the load of each partition key. Pure.

Sources, all in the Kinesis API reference: a shard accepts 1 MiB and 1,000 records per second (``PutRecord``; partition keys count).
``SplitShard`` takes the hash key at which the upper child begins, ``MergeShards`` two shards with adjacent ranges; both need a stream that
is ACTIVE and in provisioned mode. ``UpdateShardCount`` at most doubles the number of open shards.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import Final

from stream.source.keys import KeyLoad, Sample
from stream.stream_ids import parse

SHARD_BYTES: Final = 2**20
SHARD_RECORDS: Final = 1000
"""Limits of one shard per second."""

HOT: Final = 0.8
"""Share of a limit from which a shard is hot. Records that Kinesis throttles are not seen here, so this leaves a margin."""

COLD: Final = 0.25
"""Share of a limit up to which two shards together are cold: the merged shard has room for four times as much."""

TARGET: Final = 0.5
"""Share of a limit that shards should use after the whole stream was scaled up."""

DOMINANT: Final = 0.5
"""Share of a shard's load from which one key dominates it: after any split, one half has at least this share."""

MOST_UNPLACED: Final = 0.2
"""Largest share of the load with unknown hash keys for which the rest still tells where to split."""

MOST_ERROR: Final = 0.1
"""Largest error (at 95 % confidence) of the estimated share of a half for which a split is advised."""


@dataclass(frozen=True, slots=True)
class Rate:
    """Bytes and records that arrived per second, on average and in the busiest second; the latter is None if not every second is known."""

    size: float
    records: float
    peak_size: float | None = None
    peak_records: float | None = None

    @property
    def use(self) -> float:
        """The average as a share of the limit that is closer to being reached."""
        return max(self.size / SHARD_BYTES, self.records / SHARD_RECORDS)

    @property
    def peak(self) -> float | None:
        """The busiest second as a share of the limit that is closer to being reached."""
        if self.peak_size is None or self.peak_records is None:
            return None
        return max(self.peak_size / SHARD_BYTES, self.peak_records / SHARD_RECORDS)

    @property
    def by_records(self) -> bool:
        """Whether the limit of records is closer to being reached than that of bytes."""
        return self.records / SHARD_RECORDS > self.size / SHARD_BYTES

    @property
    def hot(self) -> bool:
        """Whether the shard needs relief."""
        return self.use >= HOT


@dataclass(frozen=True, slots=True)
class OpenShard:
    """One open shard; its hash keys are inclusive on both ends. ``rate`` and ``sample`` are None if unknown."""

    shard: str
    first: int
    last: int
    rate: Rate | None = None
    sample: Sample | None = None


class Kind(StrEnum):
    """What to do.

    ``SPLIT``: at a hash key that halves the load. ``SALT``: one key dominates the load, so no split helps; the producer must spread it over
    several keys. ``GROW``: more shards for the whole stream. ``MERGE``: two adjacent shards have little load. ``SAMPLE``: read a sample of
    the keys, or a larger one. ``PLACES``: too much load has explicit hash keys, which GetRecords does not return.
    """

    SPLIT = "split"
    SALT = "salt"
    GROW = "grow"
    MERGE = "merge"
    SAMPLE = "sample"
    PLACES = "places"


@dataclass(frozen=True, slots=True)
class Advice:
    """One recommendation, and why. ``at``: where the upper child begins. ``lower``: the share of the load that the lower child gets.

    ``error``: of that share, at 95 % confidence. ``key`` has ``share`` of the shard's load. ``count``: the new number of shards.
    """

    kind: Kind
    shards: tuple[str, ...]
    why: str
    at: int | None = None
    lower: float | None = None
    error: float | None = None
    key: str | None = None
    share: float | None = None
    count: int | None = None


@dataclass(frozen=True, slots=True)
class Cut:
    """A split at hash key ``at``: the lower child ends before it, and gets the share ``lower`` of the load with known hash keys."""

    at: int
    lower: float

    @property
    def heavier(self) -> float:
        """The share of the heavier child."""
        return max(self.lower, 1.0 - self.lower)


def best_cut(keys: Sequence[KeyLoad], *, by_records: bool) -> Cut | None:
    """The split that divides the load most evenly; None if all of it has the same hash key.

    The halves differ by no more than the load of the heaviest hash key. The split is in the middle of the gap between two sampled hash
    keys, since unsampled load is assumed to be spread evenly.
    """
    loads: dict[int, float] = {}
    for each in keys:
        if each.place is not None:
            loads[each.place] = loads.get(each.place, 0.0) + (each.records if by_records else each.size)
    places = sorted(loads)
    total = math.fsum(loads.values())
    if len(places) < 2 or total <= 0.0:
        return None
    below, best, found = 0.0, math.inf, 1
    for index, place in enumerate(places[:-1], 1):
        below += loads[place]
        if abs(2.0 * below - total) < best:
            best, found = abs(2.0 * below - total), index
    under, over = places[found - 1], places[found]
    return Cut(under + (over - under + 1) // 2, math.fsum(loads[place] for place in places[:found]) / total)


def advise(shards: Sequence[OpenShard]) -> list[Advice]:
    """Recommendations for the open shards of a stream in provisioned mode; none for shards of which nothing is known."""
    ordered = sorted(shards, key=lambda each: each.first)
    hot = [(each, each.rate) for each in ordered if each.rate is not None and each.rate.hot]
    found = [relieve(shard, rate) for shard, rate in hot]
    salted = any(each.kind is Kind.SALT for each in found)
    if not salted and len(ordered) > 1 and 2 * len(hot) > len(ordered) and (grown := _grow(ordered)) is not None:
        return [grown]
    return [*found, *_merges(ordered)]


def relieve(shard: OpenShard, rate: Rate) -> Advice:
    """The recommendation for one hot shard."""
    sample, what = shard.sample, "records" if rate.by_records else "bytes"
    hot = f"it takes {_percent(rate.use)} of a shard's limit of {what}"
    if sample is None or not sample.keys:
        return Advice(Kind.SAMPLE, (shard.shard,), f"{hot}; look at its keys, since a split does not help where one key carries the load")
    error = 1.0 / math.sqrt(max(1.0, sample.worth_records if rate.by_records else sample.worth_bytes))
    placed, top, share = heaviest(sample, by_records=rate.by_records)
    cut = best_cut(sample.keys, by_records=rate.by_records)
    if placed < 1.0 - MOST_UNPLACED:
        why = f"{hot}, and {_percent(1.0 - placed)} of that was put with explicit hash keys, so a place that halves it is not known"
        return Advice(Kind.PLACES, (shard.shard,), why)
    if error > MOST_ERROR:
        why = f"{hot}; the sample of {sample.users:,} records is too small to say where to split; read more of it"
        return Advice(Kind.SAMPLE, (shard.shard,), why, error=error)
    if cut is None or (share >= DOMINANT and rate.use * cut.heavier >= HOT):
        why = f"{hot}, and one key brings {_percent(share)} of that: all records of a key lie in one shard, so no split helps"
        return Advice(Kind.SALT, (shard.shard,), why, key=top, share=share)
    why = f"{hot}; the halves get {_percent(cut.lower)} and {_percent(1.0 - cut.lower)} of that, give or take {_percent(error)}"
    if rate.use * cut.heavier >= HOT:
        why += "; the greater half has to be split again"
    elif share >= DOMINANT:
        why += "; one key remains that cannot be divided any further"
    return Advice(Kind.SPLIT, (shard.shard,), why, cut.at, cut.lower, error, top, share)


def heaviest(sample: Sample, *, by_records: bool) -> tuple[float, str, float]:
    """The share of the load with known hash keys; the partition key with most load on one hash key, and the share of that hash key.

    A partition key that was put with many explicit hash keys can be split like many keys.
    """
    places: dict[int, float] = {}
    names: dict[int, str] = {}
    for each in sorted(sample.keys, key=lambda each: -(each.records if by_records else each.size)):
        if each.place is not None:
            places[each.place] = places.get(each.place, 0.0) + (each.records if by_records else each.size)
            names.setdefault(each.place, each.key)
    load = sample.records if by_records else sample.size
    if not places or not load:
        return 0.0, "", 0.0
    top = max(places, key=lambda place: (places[place], place))
    return math.fsum(places.values()) / load, names[top], places[top] / load


def _grow(ordered: Sequence[OpenShard]) -> Advice | None:
    rates = [each.rate for each in ordered if each.rate is not None]
    if len(rates) < len(ordered):
        return None
    wanted = math.ceil(sum(rate.use for rate in rates) / TARGET)
    count = min(2 * len(ordered), max(len(ordered) + 1, wanted))
    hot = sum(rate.hot for rate in rates)
    why = f"{hot} of {len(ordered)} open shards are hot, so the stream as a whole is too small"
    return Advice(Kind.GROW, tuple(each.shard for each in ordered), why, count=count)


def _merges(ordered: Sequence[OpenShard]) -> Iterator[Advice]:
    """Pairs of adjacent cold shards, each shard in at most one of them.

    The busiest seconds of both must fit into one shard, even if they coincide.
    """
    last_merged = -1
    for at, (one, other) in enumerate(pairwise(ordered)):
        if at <= last_merged or one.last + 1 != other.first or one.rate is None or other.rate is None:
            continue
        both = Rate(one.rate.size + other.rate.size, one.rate.records + other.rate.records)
        if one.rate.peak is None or other.rate.peak is None:
            continue
        peak = one.rate.peak + other.rate.peak
        if both.use <= COLD and peak < HOT:
            last_merged = at + 1
            why = f"together they take {_percent(both.use)} of a shard's limit, and {_percent(peak)} in their busiest seconds"
            yield Advice(Kind.MERGE, (one.shard, other.shard), why)


@dataclass(frozen=True, slots=True)
class Place:
    """The stream, region and endpoint for the commands, as in the pipeline file."""

    stream: str
    region: str | None = None
    endpoint: str | None = None


def commands(advice: Advice, place: Place) -> list[str]:
    """AWS CLI commands that carry the advice out and then wait until the stream accepts the next change; empty if there are none."""
    upper = [] if advice.at is None else ["--new-starting-hash-key", str(advice.at)]
    call = {
        Kind.SPLIT: ["split-shard", "--shard-to-split", advice.shards[0], *upper],
        Kind.MERGE: ["merge-shards", "--shard-to-merge", advice.shards[0], "--adjacent-shard-to-merge", advice.shards[-1]],
        Kind.GROW: ["update-shard-count", "--target-shard-count", str(advice.count), "--scaling-type", "UNIFORM_SCALING"],
    }.get(advice.kind)
    if call is None:
        return []
    shared = parse(place.stream)
    named = {"--stream-name": place.stream} if shared is None else {"--stream-arn": shared.arn}
    options = {**named, "--region": place.region, "--endpoint-url": place.endpoint}
    rest = [word for name, value in options.items() if value is not None for word in (name, value)]
    return [shlex.join(["aws", "kinesis", *words, *rest]) for words in (call, ["wait", "stream-exists"])]


def _percent(share: float) -> str:
    return f"{share:.1%}" if 0.0 < share < 0.1 else f"{share:.0%}"
