"""Estimates of what a pipeline writes at a given rate, and what AWS charges for it, with their assumptions. Pure.

Counted is what one worker does on the main path: requests to S3 for the commit log, ledger and data files, what they keep, and the rows
of a lease table where there is one. Not counted: the stream itself, networks, computers, and readers of the result.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Final

from stream.errors import DefinitionError
from stream.pipeline.limits import READING_SHARE, SMALL_UNIT_SHARE, unit_bytes
from stream.pipeline.model import Pipeline
from stream.pipeline.resources.fetching import is_remote

DAY: Final = 86_400.0
MONTH_DAYS: Final = 30.4
GB: Final = 2**30
"""S3 bills gigabytes of 2**30 bytes."""

MANIFEST_BYTES: Final = 1_700
FILE_ENTRY_BYTES: Final = 250
LEDGER_UNIT_BYTES: Final = 3_000
LEDGER_RECORD_BYTES: Final = 11
"""Measured with the flights of the example in units of 1,000 to 100,000 records, without reject reasons."""

LOG_PUTS: Final = 2
"""Manifest writes per unit: intent and seal. Its checkpoint is one more without a lease table (counted: ``benchmarks/cost.py``)."""

LEASE_RENEWALS_PER_FAILOVER: Final = 3
FAILOVER_SECONDS: Final = 10.0
"""KCL 2.x renews each lease three times within its fail-over time, which is 10 s unless configured."""


@dataclass(frozen=True, slots=True)
class Rate:
    """What arrives: records a second and their bytes over the whole stream, and its shards."""

    records_per_second: float
    record_bytes: float
    shards: int

    def __post_init__(self) -> None:
        for name in ("records_per_second", "record_bytes", "shards"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                msg = f"{name} is {value}; it must be larger than 0"
                raise DefinitionError(msg)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the pipeline writes. ``output_ratio``: bytes of data files per byte received; ``partitions``: number per unit and sink.

    ``reject_share``: of units that hold at least one dead letter.
    """

    output_ratio: float = 1.0
    partitions: float = 1.0
    reject_share: float = 0.0


@dataclass(frozen=True, slots=True)
class Prices:
    """US dollars: list prices of us-east-1, S3 Standard and DynamoDB on demand, first tier, without free tiers or taxes.

    As known since DynamoDB's change of 2024-11; nothing is fetched. Compare with https://aws.amazon.com/s3/pricing/ and
    https://aws.amazon.com/dynamodb/pricing/on-demand/. Other regions differ: give your own.
    """

    s3_put_per_1000: float = 0.005
    s3_gb_month: float = 0.023
    dynamodb_write_per_million: float = 0.625

    @staticmethod
    def of(given: Mapping[str, object]) -> Prices:
        """The standard prices with those of ``given`` in their place.

        Raises:
            DefinitionError: an unknown name, or a price that is no number of at least 0.
        """
        known = [field.name for field in fields(Prices)]
        for name, value in given.items():
            if name not in known:
                msg = f"there is no price {name!r}; known: {', '.join(known)}"
                raise DefinitionError(msg)
            if isinstance(value, bool) or not isinstance(value, int | float) or not (math.isfinite(value) and value >= 0):
                msg = f"the price {name} is {value!r}; it must be a number of at least 0, in US dollars"
                raise DefinitionError(msg)
        return Prices(**{name: float(value) for name, value in given.items() if isinstance(value, int | float)})


@dataclass(frozen=True, slots=True)
class Cuts:
    """How often one shard's unit ends, and which limit ends it: ``age``, ``bytes``, ``rows`` or ``pressure``."""

    seconds: float
    trigger: str
    records: float
    payload_bytes: float


@dataclass(frozen=True, slots=True)
class Item:
    """One line of the bill: ``quantity`` of ``unit`` a day (for storage, that each day adds) and dollars a month."""

    what: str
    quantity: float
    unit: str
    dollars: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """A day of the pipeline. ``items``: what it costs, by month; storage as after the first month of keeping everything."""

    cuts: Cuts
    units: float
    data_objects: float
    log_objects: float
    data_bytes: float
    log_bytes: float
    object_bytes: float
    items: tuple[Item, ...]

    @property
    def dollars(self) -> float:
        """A month, in US dollars."""
        return sum(item.dollars for item in self.items)


def cuts(pipeline: Pipeline, rate: Rate) -> Cuts:
    """When a unit of one shard ends, all shards being equally busy and read by one worker."""
    records, payload = rate.records_per_second / rate.shards, rate.records_per_second * rate.record_bytes / rate.shards
    largest = unit_bytes(pipeline)
    share = max(pipeline.memory.budget * READING_SHARE / rate.shards, largest * SMALL_UNIT_SHARE)
    limits = {
        "age": pipeline.flush.age.total_seconds(),
        "bytes": largest / payload,
        "rows": pipeline.flush.rows / records,
        "pressure": share / payload,
    }
    # A unit holds one record at least.
    trigger, seconds = min(limits.items(), key=lambda each: each[1])
    seconds = max(seconds, 1 / records)
    return Cuts(seconds, trigger, records * seconds, payload * seconds)


def estimate(pipeline: Pipeline, rate: Rate, outcome: Outcome | None = None, prices: Prices | None = None) -> Estimate:
    """The estimate for a day at ``rate``."""
    became, price = outcome or Outcome(), prices or Prices()
    cut = cuts(pipeline, rate)
    units = rate.shards * DAY / cut.seconds
    files = sum(_files(pipeline, index, cut, became) for index in range(len(pipeline.sinks)))
    records, received = rate.records_per_second * DAY, rate.records_per_second * rate.record_bytes * DAY
    own_files = 1 + became.reject_share
    data_bytes = received * became.output_ratio * len(pipeline.sinks)
    log_bytes = units * (MANIFEST_BYTES + (files + own_files) * FILE_ENTRY_BYTES + LEDGER_UNIT_BYTES) + records * LEDGER_RECORD_BYTES
    return Estimate(
        cuts=cut,
        units=units,
        data_objects=units * files,
        log_objects=units * (1 + own_files),
        data_bytes=data_bytes,
        log_bytes=log_bytes,
        object_bytes=data_bytes / (units * files),
        items=tuple(_bill(pipeline, rate, price, _Day(units, files, own_files, data_bytes, log_bytes))),
    )


@dataclass(frozen=True, slots=True)
class _Day:
    units: float
    files: float
    own_files: float
    data_bytes: float
    log_bytes: float


def _bill(pipeline: Pipeline, rate: Rate, price: Prices, day: _Day) -> list[Item]:
    items = []
    remote = [sink for sink in pipeline.sinks if is_remote(sink.url)]
    share = len(remote) / len(pipeline.sinks)
    if remote:
        puts = day.units * day.files * share
        items.append(Item("S3 PUT of data files", puts, "requests", _requests(puts, price.s3_put_per_1000)))
        kept = day.data_bytes * share
        items.append(Item("S3 storage of data files", kept, "bytes", _storage(kept, price)))
    if is_remote(pipeline.state):
        checkpoint = 1 if pipeline.leases is None else 0
        puts = day.units * (LOG_PUTS + checkpoint + day.own_files)
        items.append(Item("S3 PUT of commit log and ledger", puts, "requests", _requests(puts, price.s3_put_per_1000)))
        items.append(Item("S3 storage of commit log and ledger", day.log_bytes, "bytes", _storage(day.log_bytes, price)))
    if (native := pipeline.leases) is not None:
        writes = lease_writes(rate.shards, native.failover.total_seconds()) + day.units
        items.append(Item("DynamoDB writes of leases", writes, "requests", writes * MONTH_DAYS * price.dynamodb_write_per_million / 1e6))
    return items


def lease_writes(shards: int, failover: float = FAILOVER_SECONDS) -> float:
    """Renewals a day of one lease per shard; each is a write of less than 1 KB."""
    return shards * DAY * LEASE_RENEWALS_PER_FAILOVER / failover


def _files(pipeline: Pipeline, index: int, cut: Cuts, became: Outcome) -> float:
    """Data files of one unit in one sink."""
    # A unit cannot touch more partitions than it has records.
    partitions = min(became.partitions, max(1.0, cut.records))
    return pipeline.sinks[index].most_files(partitions, cut.payload_bytes * became.output_ratio)


def _requests(a_day: float, per_1000: float) -> float:
    return a_day * MONTH_DAYS / 1000 * per_1000


def _storage(a_day: float, price: Prices) -> float:
    """Of the month's last day, when everything of the month lies there."""
    return a_day * MONTH_DAYS / GB * price.s3_gb_month
