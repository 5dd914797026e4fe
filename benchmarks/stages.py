"""Each stage over a million rows of ten columns on one thread, compared with a Polars expression that does the same.

CPU time, best of five. Prints a table and asserts nothing. A stage without a counterpart in one Polars expression has no ratio.
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

from benchmarks.stage_cases import KEYS, columns, every, wide
from stream.testing.stages import frame_of
from stream.transform.stage import Resources
from stream.transform.stages import STAGES

ROWS = 1_000_000


def best(run: Callable[[], Any], times: int = 5) -> float:
    """CPU seconds of the fastest of ``times`` runs."""
    seconds = []
    for _ in range(times):
        began = time.process_time()
        run()
        seconds.append(time.process_time() - began)
    return min(seconds)


def main(chosen: list[str]) -> None:
    ten = frame_of([{"x": 0}], ROWS).drop("x").hstack(columns(ROWS))
    others = wide(ROWS)
    tables = {"t": pl.DataFrame({"k": [f"N{key:05d}" for key in range(KEYS)], "v": range(KEYS)})}
    tables["n"] = pl.DataFrame({"i0": range(KEYS), "v": range(KEYS)})
    functions = {"it:f": lambda frame: frame.with_columns(d=pl.col("i0") - pl.col("i1"))}
    resources = Resources(tables=tables, secrets={"env:K": hashlib.sha256(b"k").digest()}, functions=functions)
    stages = {stage.name: stage for stage in STAGES}
    print(f"Polars {pl.__version__}, Python {sys.version.split()[0]}, {ROWS:,} rows, {ten.width - 5} columns\n")
    print("| stage | options | M rows/s | Polars alone | ratio of times |\n|---|---|---|---|---|")
    for case in every(tables["t"]):
        if chosen and not any(f"{case.stage} {json.dumps(case.options)}".startswith(word) or word in case.wide for word in chosen):
            continue
        frame = ten.with_columns(others[name].alias(name) for name in case.wide).drop([f"i{5 - n}" for n in range(len(case.wide))])
        bound = stages[case.stage].model_validate(case.options).bind(frame.schema, resources)
        took = best(lambda bound=bound, frame=frame: bound(frame))
        beside = best(lambda case=case, frame=frame: case.alone(frame)) if case.alone else None
        reported = f"{ROWS / beside / 1e6:.1f} | {took / beside:.2f}" if beside else " | "
        options = json.dumps(case.options).replace("|", "\\|")
        print(f"| {case.stage} | `{options}` | {ROWS / took / 1e6:.1f} | {reported} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
