"""Mutated records by the million: no crash, no hang, every record ends once, and with the same result as without the compiled kernel.

    python -m tests.fuzz.decoders --records 1000000 --seed 1

A crash inside a decoder would be caught by the engine and show as the reason ``stage_error``, so that counts as one; a reason that the
decoder's documentation does not name does too. What fails is printed with its seed and batch, which give the same records again.
"""

from __future__ import annotations

import argparse
import faulthandler
import gzip
import os
import random
import re
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import polars as pl
import pyarrow as pa
from polars.testing import assert_frame_equal

from stream.batch import Batch
from stream.transform.decode import DecoderConfig
from stream.transform.decoders import DECODERS
from stream.transform.engine import CompiledChain, compile_chain
from stream.transform.stage import Resources
from tests.frames import batch, ticks
from tests.fuzz.corpus import CORPUS, TOKENS
from tests.kernel import no_kernel

BATCH = 5_000
SPARSE, FEW = 5, 20
"""How many batches come to one of good records, of which so many are mutated."""
HUNG_SECONDS = 600
"""Longer than any batch takes on any machine; what takes as long has hung, and the process ends with a traceback."""

PACKED = {"gzip": lambda data: gzip.compress(data, 1, mtime=0), "zstd": lambda data: pa.compress(data, "zstd", asbytes=True),
          "snappy": lambda data: pa.compress(data, "snappy", asbytes=True)}  # fmt: skip
TARGETS = (*CORPUS, *(f"json.{codec}" for codec in PACKED))
"""Every decoder, and every compression in front of one."""

OF_COMPRESSION = {"bad_compression", "decompressed_too_large"}
OF_JSON = {"cloudwatch_logs", "dms", "dynamodb_stream", "json_lines"}

_LIKE = {
    byte: like for like in (b"0123456789", b"abcdefghijklmnopqrstuvwxyz", b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", bytes(range(8))) for byte in like
}


@dataclass(frozen=True)
class Target:
    name: str
    chain: CompiledChain
    ordinary: CompiledChain
    """The same without the compiled kernel."""
    records: list[bytes]
    reasons: frozenset[str]


def target(name: str) -> Target:
    decoder, _, codec = name.partition(".")
    options, schema, records = CORPUS[decoder]
    config = DECODERS[decoder].model_validate({**options, **({"compression": codec} if codec else {})})
    if codec:
        records = [PACKED[codec](record) for record in records]
    chain = compile_chain(config, schema, [], Resources(), ticks())
    with no_kernel():
        ordinary = compile_chain(config, schema, [], Resources(), ticks())
    return Target(name, chain, ordinary, records, frozenset(documented(config)))


def documented(config: DecoderConfig) -> set[str]:
    """Reasons that the documentation names."""
    texts = [type(config).__doc__ or ""] + [DECODERS["json"].__doc__ or ""] * (config.name in OF_JSON)
    return (
        {code for text in texts for code in re.findall(r"``([a-z0-9_]+)(?::<\w+>)?``", text)}
        | OF_COMPRESSION
        | {"filtered", "empty_record"}
    )


def mutated(record: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """``record`` after one to three changes."""
    data = bytearray(record)
    for _ in range(rng.choice((1, 1, 2, 3))):
        at, kind = rng.randrange(len(data) + 1), rng.randrange(12)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del data[at : at + rng.randint(1, 8)]
        elif kind == 2:
            data[at:at] = rng.randbytes(rng.randint(1, 4))
        elif kind == 3:
            data[at:at] = rng.choice(TOKENS)
        elif kind == 4:
            data[at : at + rng.randint(1, 12)] = rng.choice(TOKENS)
        elif kind == 5:
            data[at:at] = data[at : at + rng.randint(1, 64)] * rng.randint(1, 3)
        elif kind > 6:
            if at < len(data):
                # As like as can be: what looks good from outside is read further.
                data[at] = rng.choice(_LIKE.get(data[at], b"019azAZ"))
        else:
            other = rng.choice(others)
            start = rng.randrange(len(other) + 1)
            data[at:] = other[start : start + 400]
    return bytes(data)


def check(it: Target, given: list[bytes], alone: list[int]) -> Counter[str]:
    """Outcomes of one batch; the records at the places of ``alone`` are read once more, each by itself.

    Raises:
        AssertionError: a record did not end, ended twice, for a reason that nobody knows, or otherwise than alone or without the kernel.
    """
    whole = batch(given)
    got = it.chain.run(whole, "s")
    sure = it.ordinary.run(whole, "s")
    assert_frame_equal(got.frame, sure.frame)
    assert_frame_equal(got.settled, sure.settled)
    kept, ended = got.frame["_row"].unique(maintain_order=True), got.settled["_row"]
    assert pl.concat([kept, ended]).sort().equals(pl.int_range(len(given), dtype=pl.UInt32, eager=True).alias("_row"))
    assert got.frame["_row"].is_sorted()
    codes = Counter(reason.partition(":")[0] for reason in got.settled["reason"])
    assert set(codes) <= it.reasons, set(codes) - it.reasons
    for row in alone:
        single = it.chain.run(Batch(whole.frame[row : row + 1], 0), "s")
        assert single.settled["reason"].to_list() == got.settled.filter(pl.col("_row") == row)["reason"].to_list(), given[row]
        among = got.frame.filter(pl.col("_row") == row).drop("_row")
        assert single.frame.drop("_row").equals(among), given[row]
    codes["decoded"] = kept.len()
    return codes


def fuzz(name: str, records: int, seed: int) -> Counter[str]:
    """Outcomes of ``records`` records mutated by ``seed``; the same for the same arguments."""
    it, outcomes = target(name), Counter[str]()
    for number, start in enumerate(range(0, records, BATCH)):
        rng = random.Random(f"{name} {seed} {number}")
        given = [mutated(rng.choice(it.records), it.records, rng) for _ in range(min(BATCH, records - start))]
        faulthandler.dump_traceback_later(HUNG_SECONDS, exit=True)
        try:
            outcomes += check(it, given, rng.sample(range(len(given)), min(2, len(given))))
            if number % SPARSE == 0:
                # A few bad records among many good ones are looked for in another way than many.
                bad = sorted(rng.sample(range(len(given)), min(FEW, len(given))))
                check(it, [given[at] if at in bad else it.records[0] for at in range(len(given))], bad)
        except Exception as error:
            error.add_note(f"target {name}, seed {seed}, batch {number}")
            raise
        finally:
            faulthandler.cancel_dump_traceback_later()
    return outcomes


def timed(name: str, records: int, seed: int) -> tuple[str, Counter[str], float]:
    began = time.process_time()
    return name, fuzz(name, records, seed), time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--records", type=int, default=1_000_000, help="for each target")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("targets", nargs="*", default=TARGETS)
    given = parser.parse_args()
    sys.stdout.write(f"seed {given.seed}, {given.records:,} records each\n")
    with ProcessPoolExecutor(max_workers=os.cpu_count()) as pool:
        for name, outcomes, seconds in pool.map(
            timed, given.targets, [given.records] * len(given.targets), [given.seed] * len(given.targets)
        ):
            reported = ", ".join(f"{code} {count:,}" for code, count in outcomes.most_common())
            sys.stdout.write(f"{name:16s} {seconds:6.1f} s  {reported}\n")


if __name__ == "__main__":
    sys.exit(main())
