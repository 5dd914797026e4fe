"""The arithmetic of docs/scale.md: 1,000 workers on 10,000 shards, from the constants of the code and the estimate of ``explain``."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks import scale
from stream.lease.settings import READ_UNITS, LeaseSettings
from stream.pipeline.cost import DAY, MONTH_DAYS, Outcome, Prices, Rate, estimate, lease_writes
from stream.pipeline.model import Pipeline
from stream.source.pace import ReadSettings, tip_seconds
from stream.worker.coordination.pausing import LOOK_SECONDS as PAUSE_LOOK_SECONDS
from tests.docs.tables import table

SHARDS, WORKERS = 10_000, 1_000
RECORDS, BYTES = 250.0, 1024.0
"""Per shard and second: a quarter of a shard's limit."""
OUTPUT_RATIO = 0.25
SPAN_BYTES, SPANS_A_CPU_SECOND = 64, 1.14e6
"""Measured: docs/audit.md."""
EMPTY_CALL_SECONDS = 0.00013
"""CPU time of a call that returns nothing: docs/performance.md."""
LOAD_UNITS = 200
"""The most units in one load into Redshift, by default."""
GET_PER_MILLION = 0.4
"""US dollars for a million GET requests to S3 in us-east-1."""
READ_PER_MILLION = 0.125
"""US dollars for a million read units of DynamoDB on demand in us-east-1."""

WORKER = "10.0.0.1-1-00000000"


def pipeline() -> Pipeline:
    """Defaults, on S3 and with leases."""
    return Pipeline.model_validate(
        {
            "application": "large",
            "source": {"kinesis": {"stream": "large"}, "schema": {"id": "int64"}},
            "sinks": [{"s3": {"url": "s3://lake/large/"}}],
            "state": "s3://lake/_stream/",
            "coordination": "native",
        }
    )


@dataclass(frozen=True)
class Paper:
    """Figures of the whole fleet, per second unless said otherwise; dollars a month."""

    calls: float
    most_calls: float
    renewals: float
    look_units: float
    table_bytes: int
    look_seconds: float
    unit_seconds: float
    units: float
    puts: float
    loads_a_minute: float
    spans: float
    dollars: dict[str, float]


def paper(failover: float = 10.0) -> Paper:
    """All figures, with the shards spread evenly over the workers."""
    each = SHARDS / WORKERS
    one = estimate(pipeline(), Rate(RECORDS * each, BYTES, round(each)), Outcome(OUTPUT_RATIO))
    size = scale.table_bytes(SHARDS, WORKER)
    units = one.units * WORKERS / DAY
    bill = {item.what: item for item in one.items}
    puts = sum(bill[name].quantity for name in ("S3 PUT of data files", "S3 PUT of commit log and ledger")) * WORKERS / DAY
    dollars = {name: item.dollars * WORKERS for name, item in bill.items() if "leases" not in name}
    price = Prices().dynamodb_write_per_million / 1e6
    dollars["renewals"] = lease_writes(SHARDS, failover) * MONTH_DAYS * price
    dollars["checkpoints"] = units * DAY * MONTH_DAYS * price
    looks = WORKERS * READ_UNITS
    dollars["looks"] = looks * DAY * MONTH_DAYS * READ_PER_MILLION / 1e6
    return Paper(
        calls=SHARDS / tip_seconds(pipeline().flush.age.total_seconds()),
        most_calls=SHARDS * ReadSettings().calls_per_second,
        renewals=lease_writes(SHARDS, failover) / DAY,
        look_units=looks,
        table_bytes=size,
        look_seconds=LeaseSettings(failover=failover).look_after(size),
        unit_seconds=one.cuts.seconds,
        units=units,
        puts=puts,
        loads_a_minute=units * 60 / LOAD_UNITS,
        spans=SHARDS * RECORDS,
        dollars=dollars,
    )


def large_fleet() -> str:
    """The table of docs/scale.md."""
    quick, slow = paper(), paper(30.0)
    money = quick.dollars
    gigabytes, kept = SHARDS * RECORDS * BYTES / 1e9, SHARDS * RECORDS * BYTES * OUTPUT_RATIO * DAY * MONTH_DAYS
    requests = money["S3 PUT of data files"] + money["S3 PUT of commit log and ledger"]
    storage = money["S3 storage of data files"] + money["S3 storage of commit log and ledger"]
    look = f"each worker reads {quick.table_bytes / 2**20:.1f} MiB every {quick.look_seconds:.0f} s"
    cores = quick.calls * EMPTY_CALL_SECONDS
    rows = [
        ("records", f"{SHARDS * RECORDS:,.0f} a second, {gigabytes:.2f} GB/s", "a quarter of the shards' limit", ""),
        (
            "GetRecords",
            f"{quick.calls:,.0f} a second",
            f"{quick.most_calls:,.0f} while all are behind; {cores:.1f} cores if all return nothing",
            "",
        ),
        ("renewals, failover 10 s", f"{quick.renewals:,.0f} writes a second", "a new table allows 4,000", _usd(money["renewals"])),
        ("renewals, failover 30 s", f"{slow.renewals:,.0f} writes a second", "", _usd(slow.dollars["renewals"])),
        ("checkpoints", f"{quick.units:,.0f} writes a second", "each is also a renewal", _usd(money["checkpoints"])),
        ("looks at the lease table", f"{quick.look_units:,.0f} read units a second", look, _usd(money["looks"])),
        ("units", f"{quick.units:,.0f} a second", f"one per shard every {quick.unit_seconds:.0f} s", ""),
        ("S3 requests", f"{quick.puts:,.0f} PUT a second", "a prefix allows 3,500; each shard has its own", _usd(requests)),
        ("S3 storage, after a month", f"{kept / 1e15:.2f} PB", f"{OUTPUT_RATIO:.0%} of the input", _usd(storage)),
        (
            "looks for pauses",
            f"{WORKERS / PAUSE_LOOK_SECONDS:,.0f} GET a second",
            f"one per worker every {PAUSE_LOOK_SECONDS:.0f} s",
            _usd(WORKERS / PAUSE_LOOK_SECONDS * DAY * MONTH_DAYS * GET_PER_MILLION / 1e6),
        ),
        ("loads into Redshift", f"{quick.loads_a_minute:,.0f} a minute", f"{LOAD_UNITS} units each, one loader", ""),
        (
            "spans, if exported",
            f"{quick.spans * SPAN_BYTES / 1e6:,.0f} MB/s",
            f"{quick.spans / SPANS_A_CPU_SECOND:.1f} cores to encode",
            "",
        ),
    ]
    return table(("what", "whole fleet", "remarks", "US dollars a month"), rows)


def small_fleet() -> str:
    """The simulation at a size that takes a second."""
    return scale.formatted(scale.simulate(200, 20, LeaseSettings()))


def _usd(amount: float) -> str:
    return f"{amount:,.0f}"
