"""What one bad row in 10,000 costs: each decoder, some stages, and a whole unit from records to Parquet; CPU time, best of seven.

Prints a table and asserts nothing; arguments choose decoders, or ``stages``.
``STREAM_NATIVE=off`` measures the JSON decoder without the compiled kernel.
"""

from __future__ import annotations

import os

os.environ["POLARS_MAX_THREADS"] = "1"

import json
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import polars as pl

from benchmarks.stage_cases import columns
from stream.batch import ARRIVAL, DATA, OUTCOME, PARTITION_KEY, RAW_SCHEMA, SEQUENCE, SUBSEQUENCE, Batch
from stream.native import KERNEL
from stream.testing.stages import frame_of, step_of
from stream.transform.decoders import DECODERS
from stream.transform.engine import advance, compile_chain
from stream.transform.stage import Resources
from stream.transform.stages import STAGES
from stream.transform.types import RecordSchema, parse_schema
from tests.fuzz.corpus import CORPUS

RECORDS = 100_000
EVERY = 10_000
TIMES = 7

FLIGHT = parse_schema({"flight": "int64", "tailnum": "string?", "time_hour": "timestamp", "dep_delay": "float64?", "note": "string?"})
CHAIN = [
    ("filter", "flight >= 0"),
    ("derive", {"late": "dep_delay > 15"}),
    ("cast", {"dep_delay": "float32"}),
    ("mask", {"columns": "tailnum", "method": "truncate", "keep": 3}),
]


def batch(records: Sequence[bytes]) -> Batch:
    count = len(records)
    plain = {SEQUENCE: [f"496{at:053}" for at in range(count)], SUBSEQUENCE: [0] * count, ARRIVAL: [0] * count}
    rest = {PARTITION_KEY: ["k"] * count, DATA: records, OUTCOME: [0] * count}
    return Batch(pl.DataFrame({**plain, **rest}, schema=RAW_SCHEMA), sum(map(len, records)))


def alternating(clean: Callable[[], Any], bad: Callable[[], Any]) -> tuple[float, float]:
    """CPU seconds of the fastest run of each, taken in turn."""
    best = [float("inf")] * 2
    for _ in range(TIMES):
        for at, run in enumerate((clean, bad)):
            began = time.process_time()
            run()
            best[at] = min(best[at], time.process_time() - began)
    return best[0], best[1]


def reported(name: str, what: str, rows: int, seconds: tuple[float, float]) -> None:
    clean, bad = (each / rows * 1e9 for each in seconds)
    print(f"| {name} | {what} | {clean:.0f} | {bad:.0f} | {bad / clean:.2f} |", flush=True)


def spoilt(records: Sequence[bytes], change: Callable[[bytes], bytes]) -> list[bytes]:
    return [change(record) if at % EVERY == EVERY // 3 else record for at, record in enumerate(records)]


def flights() -> list[bytes]:
    made = (
        {"flight": at, "tailnum": f"N{at % 5000:05d}", "time_hour": "2013-01-01T05:00:00Z", "dep_delay": at / 7, "note": "on time " * 12}
        for at in range(RECORDS)
    )
    return [json.dumps(each).encode() for each in made]


def decoding(chosen: Sequence[str]) -> None:
    given: dict[str, tuple[dict[str, Any], RecordSchema | None, list[bytes]]] = {**CORPUS, "json": ({}, FLIGHT, flights())}
    for name, (options, schema, good) in given.items():
        if chosen and name not in chosen:
            continue
        records = (good * (RECORDS // len(good) + 1))[: RECORDS if name == "json" else RECORDS // 5]
        chain = compile_chain(DECODERS[name].model_validate(options), schema, [], Resources(), time.perf_counter)
        bad = spoilt(records, lambda record: record[: len(record) // 2])
        if name == "json":
            kinds = {
                "cut off": bad,
                "another type": spoilt(records, lambda record: record.replace(b'"flight": ', b'"flight": "x", "f": ')),
                "no text": spoilt(records, lambda _: b"\xff\xfe"),
                "missing": spoilt(records, lambda record: record.replace(b"flight", b"f")),
                "no time": spoilt(records, lambda record: record.replace(b"2013-01", b"2013-13")),
            }
        else:
            kinds = {"cut off": bad}
        clean = batch(records)
        for kind, spoiled in kinds.items():
            other = batch(spoiled)
            if chain.run(other, "s").settled.height > chain.run(clean, "s").settled.height:
                reported(f"decode {name}", kind, len(records), alternating(partial(chain.run, clean, "s"), partial(chain.run, other, "s")))


def staging() -> None:
    stages = {stage.name: stage for stage in STAGES}
    frame = frame_of([{"x": 0}], RECORDS).drop("x").hstack(columns(RECORDS))
    table = pl.DataFrame({"k": [f"N{key:05d}" for key in range(100_000)], "v": range(100_000)})
    resources = Resources(tables={"t": table}, functions={"it:f": _picky})
    cases: list[tuple[str, Any, str, str]] = [
        ("cast", {"num": "int64"}, "num", "x"),
        ("parse", {"column": "s0", "regex": "^(?P<a>.)(?P<b>[0-9]+)$"}, "s0", "x"),
        ("parse", {"column": "iso", "timestamp": "%Y-%m-%dT%H:%M:%SZ", "into": "x"}, "iso", "x"),
        ("validate", {"columns": {"s0": {"matches": "^N[0-9]{5}$"}, "i0": {"min": 0}}}, "s0", "x"),
        ("lookup", {"table": "t", "on": {"s0": "k"}, "take": ["v"], "missing": "reject"}, "s0", "x"),
        ("python", {"function": "it:f", "adds": {"d": "int64"}}, "s0", "boom"),
    ]
    for name, options, column, value in cases:
        step = step_of(stages[name].model_validate(options), frame.schema, resources)
        bad = frame.with_columns(pl.when(pl.col("_row") % EVERY == EVERY // 3).then(pl.lit(value)).otherwise(column).alias(column))
        reported(name, f"`{json.dumps(options)}`", RECORDS, alternating(partial(advance, step, frame), partial(advance, step, bad)))


def _picky(frame: pl.DataFrame) -> pl.DataFrame:
    """A user's function that raises for one value."""
    if (frame["s0"] == "boom").any():
        msg = "boom"
        raise ValueError(msg)
    return frame.with_columns((pl.col("s0").str.slice(1).str.to_integer(strict=False) * 2).alias("d"))


def whole() -> None:
    stages = {stage.name: stage for stage in STAGES}
    chain = compile_chain(
        DECODERS["json"](), FLIGHT, [stages[name].model_validate(options) for name, options in CHAIN], Resources(), time.perf_counter
    )
    records = flights()
    units = [batch(records), batch(spoilt(records, lambda record: record[:-1]))]

    def run(unit: Batch) -> None:
        chain.run(unit, "s").frame.write_parquet(os.devnull, compression="zstd", compression_level=1)

    reported("a unit", "decode, 4 stages, Parquet", RECORDS, alternating(lambda: run(units[0]), lambda: run(units[1])))


def main(chosen: Sequence[str]) -> None:
    kernel = "with" if KERNEL is not None else "without"
    print(f"Polars {pl.__version__}, Python {sys.version.split()[0]}, {kernel} the kernel, one row in {EVERY:,} bad\n")
    print("| what | how | clean, ns a record | with bad rows | ratio |\n|---|---|---|---|---|")
    decoding(chosen)
    if not chosen or "stages" in chosen:
        staging()
        whole()


if __name__ == "__main__":
    main(sys.argv[1:])
