"""The independent witness: checks that the stream, read again, has exactly the records that the ledger names."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import polars as pl

from stream.audit.chain import Followed, Link
from stream.audit.report import Check, Finding, Verdict
from stream.audit.set_hash import SetHash
from stream.batch import ORIGIN, SEQUENCE, SUBSEQUENCE
from stream.errors import Halted

_DIGITS: Final = 60


@dataclass(frozen=True, slots=True)
class Reread:
    """Records of one shard in stream order: ``frame`` has ``_sequence`` and ``_subsequence``; ``position`` is the last one read."""

    frame: pl.DataFrame
    position: int


async def check_source(
    shard: str,
    units: Sequence[Link],
    chain: Followed,
    hashes: Mapping[int, SetHash],
    records: AsyncIterator[Reread] | None,
    horizon: datetime | None,
    read: Callable[[int], None],
) -> list[Finding]:
    """Compare the number of records and the set hash of each of ``units`` of the ``chain`` called ``shard`` with the stream.

    Records of the stream that no link of the chain has are looked for too.

    ``hashes``: the set hashes of units whose ledger could be read, by start. ``read``: called with the number of records read so far. A
    unit that began before ``horizon`` and lacks records in the stream is ``unknown``: they may have expired there. More records than the
    log says cannot be explained like that.
    """
    if records is None:
        return _unknown_findings(units, "the stream no longer has this shard")
    links = chain.units
    counts, sums = [0] * len(links), [SetHash()] * len(links)
    starts = [link.after for link in links]
    strays = _Strays(shard, chain)
    problem = ""
    seen = 0
    try:
        async with aclosing(records) as pages:  # type: ignore[type-var]
            async for page in pages:
                seen += page.frame.height
                known = 0
                for index, rows in _by_unit(page.frame, links, starts):
                    known += rows.height
                    counts[index] += rows.height
                    sums[index] += SetHash.of(rows[SEQUENCE], rows[SUBSEQUENCE])
                if known < page.frame.height:
                    strays.look(page.frame)
                read(seen)
    except Halted as error:
        problem = f": {error}"
    findings, expired = strays.findings(), []
    for unit in units:
        index = bisect_left(starts, unit.after)
        if counts[index] == unit.records and sums[index] == hashes.get(unit.after, sums[index]):
            continue
        if counts[index] <= unit.records and (problem or _may_have_expired(unit, horizon)):
            expired.append(unit)
            continue
        why = f"the stream holds {counts[index]} records in this range, but the log says {unit.records}"
        if counts[index] == unit.records:
            why = f"the stream holds {counts[index]} records in this range, as many as the log says, but different ones"
        findings.append(_finding(unit, why, Verdict.FAILED))
    return findings + _unknown_findings(expired, f"the stream no longer holds all of these records, so they cannot be compared{problem}")


class _Strays:
    """The records of the stream that no link of a chain has."""

    def __init__(self, shard: str, chain: Followed) -> None:
        self._shard = shard
        self._chain = chain
        self._starts = [link.after for link in chain.units]
        self._first: dict[int, int] = {}
        self._counts: Counter[int] = Counter()

    def look(self, frame: pl.DataFrame) -> None:
        """Count those of ``frame``, by the position after which the link before them ends."""
        for sequence in map(int, frame[SEQUENCE]):
            at = bisect_right(self._starts, sequence - 1) - 1
            end = self._chain.start if at < 0 else self._chain.units[at].last or ORIGIN
            # What comes before the chain belongs to an earlier generation.
            if sequence > max(end, self._chain.start):
                self._first.setdefault(end, sequence)
                self._counts[end] += 1

    def findings(self) -> list[Finding]:
        """One for each place between links."""
        return [
            Finding(
                self._shard,
                Check.SOURCE,
                Verdict.FAILED,
                f"the stream holds {count} records here, the first {self._first[end]}, of which the log says nothing",
                str(end),
            )
            for end, count in sorted(self._counts.items())
        ]


def _by_unit(frame: pl.DataFrame, units: Sequence[Link], starts: Sequence[int]) -> list[tuple[int, pl.DataFrame]]:
    """The indices of the units that have rows of ``frame``, with these rows."""
    if frame.is_empty():
        return []
    padded = frame[SEQUENCE].str.pad_start(_DIGITS, "0")
    first, last = int(frame[SEQUENCE][0]), int(frame[SEQUENCE][-1])
    found = []
    for index in range(max(0, bisect_right(starts, first - 1) - 1), bisect_right(starts, last - 1)):
        low, high = (str(bound).zfill(_DIGITS) for bound in (units[index].after, units[index].last))
        rows = frame.filter(padded.is_between(pl.lit(low), pl.lit(high), closed="right"))
        if not rows.is_empty():
            found.append((index, rows))
    return found


def _may_have_expired(unit: Link, horizon: datetime | None) -> bool:
    return horizon is None or (bool(unit.first_arrival) and datetime.fromisoformat(unit.first_arrival) < horizon)


def _unknown_findings(units: Sequence[Link], why: str) -> list[Finding]:
    """One finding per run of consecutive ``units``: of a long log, all but the last few units have expired in the stream."""
    runs: list[tuple[Link, Link, int]] = []
    for unit in units:
        if runs and runs[-1][1].last == unit.after:
            runs[-1] = runs[-1][0], unit, runs[-1][2] + 1
        else:
            runs.append((unit, unit, 1))
    return [
        Finding(
            first.shard, Check.SOURCE, Verdict.UNKNOWN, f"{why} ({count:,} units)" if count > 1 else why, str(first.after), str(last.last)
        )
        for first, last, count in runs
    ]


def _finding(unit: Link, why: str, verdict: Verdict) -> Finding:
    return Finding(unit.shard, Check.SOURCE, verdict, why, *unit.bounds)
