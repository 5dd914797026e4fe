"""The result of an audit, for people and for programs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Final

import msgspec


class Check(StrEnum):
    """The checks that make up the proof, with the question that each answers."""

    CHAIN = "chain"
    """Does every unit begin where the previous one ended, from the pinned start on, and do children come after parents?"""
    CONSERVATION = "conservation"
    """Does every record read have exactly one outcome, and do manifest, ledger and files agree on the numbers?"""
    CHECKPOINT = "checkpoint"
    """Is the checkpoint where the sealed chain ends?"""
    OBJECTS = "objects"
    """Is every file of every unit in place, with its bytes, rows and records, and are there no other files?"""
    SOURCE = "source"
    """Does the stream, read again, contain exactly the records that the ledger names?"""
    SEAL = "seal"
    """Is every manifest as it was when it was sealed, and every definition that manifests name as it was recorded?"""
    TABLES = "tables"
    """Does every table hold as many rows of each shard as were loaded into it?"""


class Verdict(StrEnum):
    """``failed`` is certain; ``unknown`` means that the question could not be answered."""

    OK = "ok"
    UNKNOWN = "unknown"
    FAILED = "failed"


EXIT: Final = {Verdict.OK: 0, Verdict.FAILED: 1, Verdict.UNKNOWN: 2}
"""Exit codes of ``stream audit verify``."""


class Finding(msgspec.Struct, frozen=True, order=True, omit_defaults=True):
    """One thing that is wrong, unknown, or worth noting.

    ``after`` and ``last`` bound the range concerned, as decimal text, or are empty; ``object`` is a URL or a key.
    """

    shard: str
    check: Check
    verdict: Verdict
    message: str
    after: str = ""
    last: str = ""
    object: str = ""


class ShardSummary(msgspec.Struct, frozen=True):
    """One shard's sealed chain: its bounds, its size, and the set hash of all its records (None if not every ledger was read).

    ``ended``: the shard was read to its end. ``open_unit``: a unit was begun after the last sealed one.
    """

    shard: str
    units: int
    records: int
    outcomes: dict[str, int]
    last: str
    ended: bool
    open_unit: bool
    set_hash: str | None


class Report(msgspec.Struct, frozen=True):
    """The result of one verification. ``checked`` counts what each check examined; a check that is missing was not requested."""

    application: str
    stream: str
    started_at: str
    finished_at: str
    shards: tuple[ShardSummary, ...]
    checked: dict[Check, int]
    findings: tuple[Finding, ...]
    leftovers: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    verdict: Verdict = Verdict.OK
    in_scope: int = 0
    """Records of the units whose files and records were checked; for all others, only the chain was."""

    def with_tables(self, findings: Sequence[Finding], rows: int) -> Report:
        """The report with what was found by counting ``rows`` rows of tables."""
        every = (*self.findings, *findings)
        checked = self.checked | ({Check.TABLES: rows} if findings or rows else {})
        return msgspec.structs.replace(self, findings=every, checked=checked, verdict=verdict(every))

    @property
    def records(self) -> int:
        """Records in sealed units."""
        return sum(shard.records for shard in self.shards)

    @property
    def outcomes(self) -> dict[str, int]:
        """Records in sealed units by outcome label."""
        total: dict[str, int] = {}
        for shard in self.shards:
            for label, count in shard.outcomes.items():
                total[label] = total.get(label, 0) + count
        return dict(sorted(total.items()))


def verdict(findings: Iterable[Finding]) -> Verdict:
    """The worst of ``findings``; ``ok`` if there are none."""
    return worst(finding.verdict for finding in findings)


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The worst of ``verdicts``; ``ok`` if there are none."""
    found = set(verdicts)
    return next((each for each in (Verdict.FAILED, Verdict.UNKNOWN) if each in found), Verdict.OK)
