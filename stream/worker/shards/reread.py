"""Re-reads a range and runs the recorded definition over it, to finish a unit that another worker began."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Final

import msgspec

from stream import events
from stream.batch import SEQUENCE, Batch
from stream.commit.committer import RenderedUnit
from stream.commit.manifest import Manifest
from stream.commit.retry import Repeater
from stream.contracts import Emit, LendingSource, Shard, Start
from stream.errors import Expired, Halted
from stream.worker.recipes.definitions import Definitions
from stream.worker.recipes.recipe import CutUnit, Recipe, Rendered
from stream.worker.shards.gap import gap_instead_of

AT_ONCE: Final = 4
"""Ranges re-read at a time: each is in memory as a whole, and a worker that takes over may find one in every shard."""


class Rereader:
    """Renders recorded ranges. Its source has a byte budget of its own, because the regular readers may be waiting for it.

    ``reads``: how its source takes records out of objects, see ``Recipe.reads``.
    """

    def __init__(
        self,
        source: LendingSource,
        definitions: Definitions,
        render: Callable[[Recipe, CutUnit], Awaitable[Rendered]],
        repeat: Repeater,
        emit: Emit,
        *,
        admit_gaps: bool,
        reads: str = "",
    ) -> None:
        self._source = source
        self._definitions = definitions
        self._render = render
        self._repeat = repeat
        self._emit = emit
        self._admit_gaps = admit_gaps
        self._reads = reads
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def render(self, shard: Shard, start: Start, manifest: Manifest) -> RenderedUnit:
        """The unit that ``manifest`` describes, as this build makes it; the same bytes if this build can reproduce them.

        If the stream no longer holds the range and gaps are admitted, a gap in its place: files of the intent that already exist
        are removed, so that the log never lists half a unit.

        Raises:
            Halted: the stream no longer holds the range, the log no longer holds the definition, or objects were read with other options.
        """
        async with self._slots:
            return await self._reread(shard, start, manifest)

    async def _reread(self, shard: Shard, start: Start, manifest: Manifest) -> RenderedUnit:
        if self._reads:
            await self._refuse_other_records(shard, manifest)
        try:
            batch = await self._read(shard, start, manifest)
        except Expired as error:
            if not self._admit_gaps:
                raise
            self._emit(events.RecordsExpired(shard.stream, shard.shard_id, manifest.span.after, manifest.span.last, str(error)))
            return RenderedUnit(gap_instead_of(manifest), ())
        recipe = await self._recorded(shard, manifest)
        rendered = await self._render(recipe, CutUnit(shard, manifest.span, (batch,), manifest.trigger, manifest.foreign_subsequence))
        again = msgspec.structs.replace(
            rendered.unit.manifest,
            previous=manifest.previous,
            worker=manifest.worker,
            created_at=manifest.created_at,
        )
        return RenderedUnit(again, rendered.unit.files)

    async def _recorded(self, shard: Shard, manifest: Manifest) -> Recipe:
        return await self._repeat("read definition", shard, lambda: self._definitions.recorded(manifest.pipeline))

    async def _refuse_other_records(self, shard: Shard, manifest: Manifest) -> None:
        """The recorded definition would be given other records than it was, of the same number, so that nobody would notice."""
        then = (await self._recorded(shard, manifest)).reads
        if then != self._reads:
            msg = (
                f"{shard.stream}/{shard.shard_id}: an unfinished unit of {manifest.records} records up to {manifest.last} was begun when "
                f"the objects were read as {then}; they are read as {self._reads} now, which may give other records. Go back to those "
                "options of source.s3 and of the decoder until that unit is sealed; nothing more is read until then."
            )
            raise Halted(msg)

    async def _read(self, shard: Shard, start: Start, manifest: Manifest) -> Batch:
        batches, position = [], manifest.span.after
        async with aclosing(self._source.read(shard, manifest.span.after, start, manifest.span.last)) as pages:  # type: ignore[type-var]
            async for page in pages:
                batches.append(page.batch)
                position = page.position
                self._source.budget.release(page.held)
        batch = Batch.concat(batches)
        if batch.rows < manifest.records and (batch.rows == 0 or int(batch.frame[SEQUENCE][-1]) == manifest.span.last):
            # The oldest records expire first, and no response says how many did.
            msg = (
                f"{shard.stream}/{shard.shard_id}: an unfinished unit covers {manifest.records} records up to {manifest.last}, of which "
                f"the stream gives {batch.rows} when they are read again: the others have expired, or the stream was recreated under the "
                "same name. Nothing more is read; with source.kinesis.on_expired: gap, the worker records the gap and continues."
            )
            raise Expired(msg)
        if position != manifest.span.last or batch.rows != manifest.records:
            msg = (
                f"{shard.stream}/{shard.shard_id}: an unfinished unit covers {manifest.records} records up to {manifest.last}, but reading "
                f"the range again gave {batch.rows} records up to {position}; the stream has lost records, or is another one of that name. "
                "Compare the stream's creation time with the log; nothing more is read until then."
            )
            raise Halted(msg)
        return batch
