"""Reads damaged copies of an object, each in a process of its own: ``python -m tests.mutants FORMAT FILE FROM TO``.

Prints one JSON line for each seed: how the process ended, how many rows it gave, and whether it said what is wrong. Processes are forked
from one that has loaded the libraries, so that thousands take seconds, and have the limits of ``reader_child``.
"""

from __future__ import annotations

import io
import json
import os
import random
import resource
import signal
import sys
from pathlib import Path

from stream.source.reader_child import HEADROOM

SECONDS = 60.0


def damaged(body: bytes, rng: random.Random) -> bytes:
    """``body`` with some bytes changed, cut, doubled or set to extremes."""
    changed = bytearray(body)
    for _ in range(rng.choice((1, 1, 2, 5, 20))):
        if not changed:
            break
        at = rng.randrange(len(changed))
        # Half of the damage is where formats keep what they say about the rest.
        at = rng.choice((at, rng.randrange(max(0, len(changed) - 600), len(changed)), rng.randrange(min(600, len(changed)))))
        match rng.randrange(6):
            case 0:
                changed[at] ^= 1 << rng.randrange(8)
            case 1:
                changed[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
            case 2:
                extremes = (b"\xff" * 8, b"\0" * 8, b"\xff" * 7 + b"\x7f", b"\0\0\0\x7f\0\0\0\0")
                changed[at : at + 8] = rng.choice(extremes)[: len(changed) - at]
            case 3:
                del changed[at : at + rng.choice((1, 8, 200))]
            case 4:
                changed[at:at] = changed[at : at + rng.choice((1, 8, 200))]
            case 5:
                del changed[at:]
    return bytes(changed)


def numbers_and_problem(kind: str, body: bytes, after: int) -> tuple[list[int], str | None]:
    """The numbers of the rows that are given, and what is said then."""
    from stream.source.typed_rows import typed_rows

    found: list[int] = []
    try:
        for first, bodies in typed_rows(kind, None, io.BytesIO(body), after):
            found += range(first, first + len(bodies))
    except MemoryError:
        return found, "memory"
    except Exception as error:  # noqa: BLE001 - as the reader does
        return found, str(error) or type(error).__name__
    return found, None


def main() -> None:
    kind, body, first, last = sys.argv[1], Path(sys.argv[2]).read_bytes(), int(sys.argv[3]), int(sys.argv[4])
    import fastavro  # noqa: F401 - loaded before the processes part
    import polars  # noqa: F401, ICN001
    import pyarrow as pa

    from stream.source.typed_rows import read_logical_types_exactly

    pa.set_cpu_count(1)
    read_logical_types_exactly()
    held = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
    for seed in range(first, last):
        reading, writing = os.pipe()
        process = os.fork()
        if not process:
            os.close(reading)
            resource.setrlimit(resource.RLIMIT_DATA, (held + HEADROOM, held + HEADROOM))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            rng = random.Random(seed)
            changed = damaged(body, rng)
            found, said = numbers_and_problem(kind, changed, 0)
            behind = rng.randrange(len(found)) if found else 0
            again, still = numbers_and_problem(kind, changed, behind)
            sound = found == [*range(1, len(found) + 1)] and again == found[behind:] and (said is None) == (still is None)
            os.write(writing, json.dumps({"rows": len(found), "said": said and said[:200], "sound": sound}).encode())
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            answer = pipe.read()
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        print(json.dumps({"seed": seed, "code": code} | (json.loads(answer) if answer else {})))  # noqa: T201


if __name__ == "__main__":
    main()
