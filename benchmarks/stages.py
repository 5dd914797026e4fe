"""Each stage over a million rows of ten columns on one thread, beside a Polars expression that does the same; CPU time, best of five.

Prints a table and asserts nothing. What has no counterpart in one Polars expression has no ratio. The last lines compare a clean
batch with one in which one row of 10,000 is bad.
"""

from __future__ import annotations

import os

os.environ["POLARS_MAX_THREADS"] = "1"

import hashlib
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import polars as pl

from stream.batch import ARRIVAL, DATA, OUTCOME, PARTITION_KEY, RAW_SCHEMA, SEQUENCE, SUBSEQUENCE, Batch
from stream.testing.stages import frame_of
from stream.transform.decoders.json import Json
from stream.transform.engine import compile_chain
from stream.transform.stage import Resources
from stream.transform.stages import STAGES
from stream.transform.types import parse_schema

ROWS = 1_000_000
RECORDS = 100_000
KEYS = 100_000


def columns() -> pl.DataFrame:
    """Ten columns behind the system's, and texts to parse; the same in each run."""
    at = pl.int_range(ROWS, eager=True)
    mixed = at.hash(seed=1) // 256
    text = "N" + (mixed % KEYS).cast(pl.String).str.zfill(5)
    texts = {"s0": text, "s1": text.str.reverse(), "iso": at.cast(pl.Datetime("us")).dt.strftime("%Y-%m-%dT%H:%M:%SZ")}
    numbers = {f"i{n}": (mixed // 2**n) % 1000 for n in range(6)}
    return pl.DataFrame(
        {**{name: value.cast(pl.Int64) for name, value in numbers.items()}, **texts, "num": (mixed % 100_000).cast(pl.String)}
    )


def best(run: Callable[[], Any]) -> float:
    seconds = []
    for _ in range(5):
        began = time.process_time()
        run()
        seconds.append(time.process_time() - began)
    return min(seconds)


def cases(frame: pl.DataFrame, table: pl.DataFrame) -> list[tuple[str, Any, Callable[[], Any] | None]]:
    """Stage, options, and the Polars expression that does the same."""
    groups, code, moment = "^(?P<a>.)(?P<b>[0-9]+)$", "^N[0-9]{5}$", "%Y-%m-%dT%H:%M:%SZ"
    fits = pl.col("i0").is_between(0, 2000) & pl.col("s0").str.contains(code)
    short = table.rename({"k": "s0"})
    return [
        ("cast", {"num": "int64"}, lambda: frame.with_columns(pl.col("num").cast(pl.Int64, strict=False))),
        ("dedupe", ["s0", "i0"], lambda: frame.unique(["s0", "i0"], keep="first", maintain_order=True)),
        (
            "derive",
            {"d": "i0 - i1", "late": "i0 > 500"},
            lambda: frame.with_columns(d=pl.col("i0") - pl.col("i1"), late=pl.col("i0") > 500),
        ),
        ("filter", "i0 > 100", lambda: frame.filter(pl.col("i0") > 100)),
        ("lookup", {"table": "t", "on": {"s0": "k"}, "take": ["v"]}, lambda: frame.join(short, on="s0", how="left", maintain_order="left")),
        ("mask", {"columns": "s0", "method": "redact"}, lambda: frame.with_columns(pl.lit("***").alias("s0"))),
        ("mask", {"columns": "s0", "method": "truncate", "keep": 2}, lambda: frame.with_columns(pl.col("s0").str.head(2))),
        ("mask", {"columns": "s0", "method": "keyed_hash", "key": {"env": "K"}}, None),
        ("parse", {"column": "s0", "regex": groups}, lambda: frame.with_columns(frame["s0"].str.extract_groups(groups).struct.unnest())),
        (
            "parse",
            {"column": "iso", "timestamp": moment, "into": "x"},
            lambda: frame.with_columns(x=pl.col("iso").str.to_datetime(moment, strict=False)),
        ),
        ("rename", {"i0": "z"}, lambda: frame.rename({"i0": "z"})),
        ("select", ["i0", "s0"], lambda: frame.select("_row", "i0", "s0")),
        ("sql", "SELECT * FROM batch WHERE i0 > 100", lambda: frame.filter(pl.col("i0") > 100)),
        ("validate", {"columns": {"i0": {"min": 0, "max": 2000}, "s0": {"matches": code}}}, lambda: frame.filter(fits)),
    ]


def with_bad_rows(share: int) -> Batch:
    """Records of which one in ``share`` is no JSON; none if 0."""
    records = [json.dumps({"a": at, "s": f"N{at % 5000:05d}", "t": "2013-01-01T05:00:00Z", "f": at / 7}).encode() for at in range(RECORDS)]
    if share:
        records[::share] = [record[:-1] for record in records[::share]]
    plain = {
        SEQUENCE: [str(at) for at in range(RECORDS)],
        SUBSEQUENCE: [0] * RECORDS,
        ARRIVAL: [0] * RECORDS,
        PARTITION_KEY: ["k"] * RECORDS,
    }
    return Batch(pl.DataFrame({**plain, DATA: records, OUTCOME: [0] * RECORDS}, schema=RAW_SCHEMA), sum(map(len, records)))


def main() -> None:
    frame = frame_of([{"x": 0}], ROWS).drop("x").hstack(columns())
    table = pl.DataFrame({"k": [f"N{key:05d}" for key in range(KEYS)], "v": range(KEYS)})
    resources = Resources(tables={"t": table}, secrets={"env:K": hashlib.sha256(b"k").digest()})
    stages = {stage.name: stage for stage in STAGES}
    print(f"Polars {pl.__version__}, Python {sys.version.split()[0]}, {ROWS:,} rows, {frame.width - 5} columns\n")
    print("| stage | M rows/s | Polars alone | time by that of Polars |\n|---|---|---|---|")
    for name, options, alone in cases(frame, table):
        bound = stages[name].model_validate(options).bind(frame.schema, resources)
        took = best(lambda bound=bound: bound(frame))
        beside = best(alone) if alone else None
        told = f"{ROWS / beside / 1e6:.1f} | {took / beside:.2f}" if beside else " | "
        print(f"| {name} `{json.dumps(options)}` | {ROWS / took / 1e6:.1f} | {told} |", flush=True)
    schema = parse_schema({"a": "int64", "s": "string", "t": "timestamp", "f": "float64"})
    chain = compile_chain(Json(), schema, [stages["filter"].model_validate("a >= 0")], Resources(), time.perf_counter)
    pure, dirty = with_bad_rows(0), with_bad_rows(10_000)
    clean, bad = best(lambda: chain.run(pure, "s")), best(lambda: chain.run(dirty, "s"))
    print(f"\ndecode and filter {RECORDS:,} records: clean {clean:.3f} s, one of 10,000 bad {bad:.3f} s, {bad / clean:.2f} times")
    reject = stages["cast"].model_validate({"num": "int64"}).bind(frame.schema, resources)
    spoilt = frame.with_columns(pl.when(pl.col("_row") % 10_000 == 7).then(pl.lit("x")).otherwise("num").alias("num"))
    clean, bad = best(lambda: reject(frame)), best(lambda: reject(spoilt))
    print(f"cast {ROWS:,} rows: clean {clean:.3f} s, one of 10,000 bad {bad:.3f} s, {bad / clean:.2f} times")


if __name__ == "__main__":
    main()
