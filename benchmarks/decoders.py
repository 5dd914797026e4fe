"""The cost per record of each decoder, with and without the compiled kernel, compared with a loop that makes Python objects.

CPU time, best of five, one thread. Prints a table and asserts nothing; arguments choose decoders. The figures without the kernel come from
a process of its own.
"""

from __future__ import annotations

import os

os.environ["POLARS_MAX_THREADS"] = "1"

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from benchmarks.bad_rows import batch
from benchmarks.decoder_cases import Case, cases
from benchmarks.envelope_cases import envelope_cases
from stream.native import KERNEL, SWITCH
from stream.transform.decoders import DECODERS
from stream.transform.engine import compile_chain
from stream.transform.stage import Resources

ROWS: Final = 50_000
TIMES: Final = 5


def best(run: Callable[[], Any], records: int) -> float:
    """Nanoseconds of CPU time for each of ``records``, of the fastest run."""
    took = []
    for _ in range(TIMES):
        began = time.process_time()
        run()
        took.append(time.process_time() - began)
    return min(took) / records * 1e9


def measured(case: Case) -> tuple[list[bytes], float]:
    """The records, and the cost of one in the decoder."""
    records = [case.made(at) for at in range(ROWS // case.rows)]
    chain = compile_chain(DECODERS[case.decoder].model_validate(case.options), case.schema, [], Resources(), time.perf_counter)
    given = batch(records)
    assert chain.run(given, "s").settled.is_empty(), f"{case.name}: the records are not clean"
    return records, best(lambda: chain.run(given, "s"), len(records))


def without_kernel(chosen: Sequence[str]) -> dict[str, float]:
    """The same from a process without the kernel."""
    command = [sys.executable, "-m", "benchmarks.decoders", "--json", *chosen]
    done = subprocess.run(command, env={**os.environ, SWITCH: "off"}, stdout=subprocess.PIPE, check=True)
    reported: dict[str, float] = json.loads(done.stdout)
    return reported


def main(given: list[str]) -> None:
    chosen = [each for each in given if each != "--json"]
    wanted = [case for case in (*cases(), *envelope_cases()) if not chosen or case.decoder in chosen]
    if "--json" in given:
        print(json.dumps({case.name: measured(case)[1] for case in wanted}))
        return
    slow = without_kernel(chosen) if KERNEL is not None else {}
    print("| records | bytes | with the kernel, ns | without | a loop over | ns | ratio of times |\n|---|---|---|---|---|---|---|")
    for case in wanted:
        records, took = measured(case)
        beside = best(lambda case=case, records=records: case.alone(records), len(records)) if case.alone else None
        reported = f"{case.by} | {beside:,.0f} | {took / beside:.2f}" if beside else " |  | "
        size = sum(map(len, records)) / len(records)
        print(f"| {case.name} | {size:.0f} | {took:,.0f} | {slow.get(case.name, took):,.0f} | {reported} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
