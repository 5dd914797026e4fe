"""Follows a record through its redrives: from a dead letter to the next attempt, and so on to the last."""

from __future__ import annotations

from collections.abc import Sequence

from stream.audit.chain import Link
from stream.audit.objects import Area
from stream.audit.trace import Fate, RecordQuery
from stream.sink import rejects
from stream.source.bounded import sequence_of
from stream.source.dead_letters import shard_name
from stream.worker.dead_letters import Redrive
from stream.worker.tracing import Tracer


def claimed_as(key: str, row: int, claims: Sequence[Redrive]) -> RecordQuery | None:
    """The record as which the dead letter in row ``row`` of the rejects file ``key`` was redriven; None if no redrive claimed it."""
    for number, claim in enumerate(claims, 1):
        for piece, chosen in enumerate(claim.files, 1):
            rows = chosen.rows if chosen.key == key else []
            if row in rows:
                return RecordQuery(sequence_of(piece, rows.index(row) + 1), 0, shard_name(number))
    return None


async def attempts(fate: Fate, rejected: Area, redrives: Tracer, claims: Sequence[Redrive]) -> list[tuple[Link, Fate]]:
    """The fates of the record in later attempts, in order, given its first ``fate``."""
    found: list[tuple[Link, Fate]] = []
    last: Fate | None = fate
    while last is not None:
        place = next((place for place in last.places if place.sink == rejects.NAME), None)
        wanted = None if place is None else claimed_as(place.url.removeprefix(rejected.url_of("")), place.row, claims)
        again = [] if wanted is None else await redrives.find(wanted)
        found += again
        last = again[0][1] if again else None
    return found
