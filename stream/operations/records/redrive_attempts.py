"""Follows a record through its redrives: from a dead letter to the next attempt, and so on to the last."""

from __future__ import annotations

from collections.abc import Sequence

from stream.audit.chain import Link
from stream.audit.objects import Area
from stream.audit.trace import Fate, RecordQuery
from stream.operations.records.tracing import Tracer
from stream.sink import rejects
from stream.source.bounded import sequence_of
from stream.source.dead_letters import shard_name
from stream.source.unreadable import UNREADABLE
from stream.worker.sources.dead_letters import Redrive


def claimed_as(key: str, row: int, claims: Sequence[Redrive], number_in_object: int = UNREADABLE) -> RecordQuery | None:
    """The record as which the dead letter in row ``row`` of the rejects file ``key`` was redriven; None if no redrive claimed it.

    ``number_in_object``: which record is meant, if the letter stands for the rest of an object; by default, what still cannot be read.
    """
    for number, claim in enumerate(claims, 1):
        for piece, chosen in enumerate(claim.files, 1):
            rows = chosen.rows if chosen.key == key else []
            if row in rows:
                at = number_in_object if chosen.is_object else rows.index(row) + 1
                return RecordQuery(sequence_of(piece, at), 0, shard_name(number))
    return None


async def attempts(
    fate: Fate, rejected: Area, redrives: Tracer, claims: Sequence[Redrive], number: int = UNREADABLE
) -> list[tuple[Link, Fate]]:
    """The fates of the record in later attempts, in order, given its first ``fate``; ``number``: as ``number_in_object``."""
    found: list[tuple[Link, Fate]] = []
    last: Fate | None = fate
    while last is not None:
        place = next((place for place in last.places if place.sink == rejects.NAME), None)
        again: list[tuple[Link, Fate]] = []
        # A record of an object that still could not be read is in what is left of it again.
        for each in dict.fromkeys((number, UNREADABLE)) if place is not None else ():
            wanted = claimed_as(place.url.removeprefix(rejected.url_of("")), place.row, claims, each) if place is not None else None
            again = again or ([] if wanted is None else await redrives.find(wanted))
        found += again
        last = again[0][1] if again else None
    return found
