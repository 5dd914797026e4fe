"""Deletes the files that were compacted, once their rows have been in the dataset for long enough."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from stream.commit.compaction import Compaction, CompactionError, seal_of
from stream.contracts import ObjectStore
from stream.operations.compaction.compactor import Compactor, run_some_at_a_time
from stream.sink.merge import digest


async def delete_sources(compactor: Compactor, grace: timedelta) -> tuple[int, int]:
    """Delete the sources of compactions that were published at least ``grace`` ago. Returns their number and their bytes.

    Before that, the outputs are read again. If a run is killed half-way, the next one deletes the rest.

    Raises:
        CompactionError: an output is not what was published; its sources are kept.
    """
    catalogue, source, target = compactor.catalogue, compactor.source, compactor.target
    before = compactor.clock.now() - grace
    files = size = 0
    for name in await catalogue.partitions():
        async for link in catalogue.all(name):
            compaction = link.compaction
            due = compaction.published and not compaction.removed_at and datetime.fromisoformat(compaction.published_at) <= before
            if not due or compaction.url != target.url or compaction.source != source.url:
                continue
            if seal_of(compaction) != compaction.seal:
                msg = f"the compaction {link.key} was edited after it was published; `stream audit verify` says more. Nothing is deleted"
                raise CompactionError(msg)
            await _require_outputs(compaction, target)
            await run_some_at_a_time(source.delete(each.key) for each in compaction.sources)
            await catalogue.replace(link, msgspec.structs.replace(compaction, removed_at=compactor.clock.now().isoformat()))
            files += len(compaction.sources)
            size += sum(each.size for each in compaction.sources)
            compactor.tell(f"{name or 'all rows'}: {len(compaction.sources):,} files deleted")
    return files, size


async def _require_outputs(compaction: Compaction, target: ObjectStore) -> None:
    for output in compaction.outputs:
        stored = await target.get(output.key)
        if stored is None or digest(stored.body) != output.sha256:
            how = "is missing" if stored is None else "has other content than was published"
            place = f"{target.url.removesuffix('/')}/{output.key}"
            msg = f"{place} {how}: restore it. The files that it was made of are kept, and nothing else is deleted"
            raise CompactionError(msg)
