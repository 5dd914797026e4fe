"""Records that expired in the stream before they were committed: the log records the gap, and reading continues after it."""

from __future__ import annotations

from contextlib import aclosing
from typing import Final

import msgspec

from stream import events
from stream.batch import ARRIVAL, ORIGIN, SEQUENCE, Batch, Outcome
from stream.commit.committer import Head, RenderedUnit, Renderer, head_after
from stream.commit.manifest import Kind, Manifest, State
from stream.contracts import Page, Shard, Start, StartKind
from stream.errors import Expired, Halted
from stream.lease.shards import children_of
from stream.worker.parts import Parts

EXPIRED: Final = "expired"


def gap_instead_of(intent: Manifest) -> Manifest:
    """The manifest that records the records of ``intent`` as lost; it lists no files."""
    return msgspec.structs.replace(
        intent, kind=Kind.GAP, state=State.INTENT, files=(), superseded=(), outcomes={Outcome.EXPIRED_GAP.label: intent.records}
    )


async def record_gap(shard: Shard, head: Head, parts: Parts, render: Renderer, reason: Expired) -> Head:
    """Commit a gap from ``head`` to just before the oldest record that the shard still holds. Returns the head after the gap.

    If ``reason`` says where reading can continue, the gap ends there; otherwise the oldest record shows it. How many records were lost is
    unknown, since sequence numbers are not consecutive. A closed shard that holds no records ends here. For an open one that holds none,
    this waits for the record that shows where the gap ends; if the worker drains meanwhile, it returns ``head``.

    Raises:
        Halted: the oldest record is before ``head``, so nothing after it can have expired.
    """
    if reason.resume is not None:
        return await _commit(shard, head, parts, render, reason, reason.resume, "")
    page = await _oldest(shard, parts)
    if page is None:
        return head
    if not page.batch.rows:
        parts.emit(events.RecordsExpired(shard.stream, shard.shard_id, head.position, head.position, str(reason)))
        return await parts.committer.end(shard, head, page.children, trigger=EXPIRED)
    oldest = int(page.batch.frame[SEQUENCE][0])
    if oldest - 1 <= head.position:
        msg = (
            f"{shard.stream}/{shard.shard_id} is committed up to {head.position}, but the oldest record that the stream gives is {oldest}: "
            "this is another stream of that name, or an emulator that was restarted. Use another application name for it; nothing is read "
            "until then"
        )
        raise Halted(msg)
    return await _commit(shard, head, parts, render, reason, oldest - 1, page.batch.frame[ARRIVAL][0].isoformat())


async def _commit(shard: Shard, head: Head, parts: Parts, render: Renderer, reason: Expired, last: int, last_arrival: str) -> Head:
    """Commit a gap from ``head`` to ``last``. Returns the head after the gap."""
    manifest = Manifest(
        kind=Kind.GAP,
        state=State.INTENT,
        application=parts.log.application,
        stream=shard.stream,
        shard=shard.chain,
        after=str(head.position),
        last=str(last),
        outcomes={Outcome.EXPIRED_GAP.label: 0},
        previous=head.previous,
        trigger=EXPIRED,
        last_arrival=last_arrival,
        worker=parts.worker,
        created_at=parts.clock.now().isoformat(),
    )
    entry = await parts.committer.commit(shard, RenderedUnit(manifest, ()), render)
    if entry.manifest.kind is Kind.GAP:  # another worker, or an operator, may have been faster, with something else
        parts.emit(events.RecordsExpired(shard.stream, shard.shard_id, head.position, entry.manifest.reach, str(reason)))
    return head_after(entry)


async def _oldest(shard: Shard, parts: Parts) -> Page | None:
    """The first page with a record, or the last page of a closed shard that has none; None if the worker drains."""
    try:
        async with aclosing(parts.source.read(shard, ORIGIN, Start(StartKind.TRIM_HORIZON))) as pages:  # type: ignore[type-var]
            async for page in pages:
                parts.budget.release(page.held)
                if page.batch.rows or page.ended:
                    return page
                if parts.stops(shard):
                    break
    except Expired:
        # When reading from the oldest record, only the shard itself can have expired.
        listed = await parts.repeat("list shards", shard, parts.source.shards)
        children = tuple(child.shard_id for child in children_of(listed, shard.shard_id))
        return Page(Batch.empty(), ORIGIN, 0, 0, ended=True, children=children)
    return None
