"""With which definitions units were made lately, and whether several are at work at once for longer than a rollout takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from stream.commit.manifest import Manifest
from stream.commit.naming import pipeline_key
from stream.contracts import ObjectStore
from stream.operations.status.finding import Finding, Harm, clock, lines_of
from stream.operations.status.snapshot import InUse, Snapshot

WINDOW: Final = timedelta(minutes=5)
WINDOWS: Final = 3
"""Definitions are at work at once if each has sealed something in each of the last three windows. A rollout is over sooner, and after a
rollback the newer definition seals no more."""

AGES: Final = 2
"""A window is this many times ``flush.age``, if that is longer: in a shorter one, a shard may seal nothing."""


MOST: Final = 16
"""Most definitions that are read, the newest: with reference tables that are refreshed often, an hour has many."""


async def read_definitions(store: ObjectStore, units: Sequence[Manifest]) -> tuple[InUse, ...]:
    """The definitions with which ``units`` were made, each text once: one that only has other reference tables is no other definition."""
    newest = sorted((unit for unit in units if unit.pipeline), key=lambda each: each.sealed_at, reverse=True)
    digests = list(dict.fromkeys(unit.pipeline for unit in newest))[:MOST]
    if len(digests) < 2:
        return ()
    texts: dict[str, bytes] = {}
    for digest in digests:
        stored = await store.get(pipeline_key(digest))
        texts[digest] = stored.body if stored is not None else digest.encode()
    return _by_text(units, texts)


def _by_text(units: Sequence[Manifest], texts: Mapping[str, bytes]) -> tuple[InUse, ...]:
    found: dict[bytes, list[Manifest]] = {}
    for unit in sorted(units, key=lambda each: each.sealed_at):
        if unit.pipeline in texts:
            found.setdefault(texts[unit.pipeline], []).append(unit)
    return tuple(
        InUse(made[-1].pipeline, made[-1].sealed_by, tuple(datetime.fromisoformat(unit.sealed_at) for unit in made))
        for made in found.values()
    )


@dataclass(frozen=True, slots=True)
class _Windows:
    """The last windows of a snapshot."""

    asked_at: datetime
    length: timedelta

    def all_have(self, moments: Sequence[datetime]) -> bool:
        """Whether one of ``moments`` is in each of them."""
        ages = {(self.asked_at - moment) // self.length for moment in moments}
        return ages.issuperset(range(WINDOWS))


def several_definitions(snapshot: Snapshot, _: set[str]) -> Iterator[Finding]:
    """Two deployments of one application: no record is lost or doubled, but chance decides which definition it goes through."""
    known = snapshot.dead_letters.definitions if snapshot.dead_letters is not None else ()
    windows = _Windows(snapshot.asked_at, max(WINDOW, AGES * snapshot.flush_age))
    at_work = [each for each in known if windows.all_have(each.sealed)]
    if len(at_work) > 1:
        yield Finding(
            "several_definitions",
            Harm.DEGRADED,
            f"units are sealed with {len(at_work)} definitions at once, for a quarter of an hour or longer",
            "when-two-definitions-are-at-work",
            since=max(min(each.sealed) for each in at_work),
            details=lines_of((each.digest, f"last at {clock(each.sealed[-1])} by {each.worker or 'a worker'}") for each in at_work),
            commands=("stream leases ls FILE",) if snapshot.failover is not None else ("stream status FILE",),
        )
