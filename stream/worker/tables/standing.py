"""How far each shard is loaded into a table, for commands that load nothing."""

from __future__ import annotations

from dataclasses import dataclass

from stream.worker.tables.parts import LoaderParts


@dataclass(frozen=True, slots=True)
class Standing:
    """How far one shard is loaded. ``since``: when the first waiting unit was sealed; ``parked``: the reason, or empty."""

    shard: str
    loaded: int
    units: int
    rows: int
    since: str
    parked: str


async def standing(parts: LoaderParts) -> list[Standing]:
    """How far every shard is loaded, ascending, without loading anything; raises as ``Loader.step`` does."""
    positions, parked = await parts.warehouse.positions(), await parts.state.parked()
    waiting = await parts.log.read_on(dict.fromkeys(await parts.log.shards(), ()), positions, set())
    rows = []
    for shard, links in sorted(waiting.items()):
        full = [link for link in links if link.files]
        since = full[0].sealed_at if full else ""
        why = parked[shard].reason if shard in parked else ""
        rows.append(Standing(shard, positions.get(shard, 0), len(full), sum(link.rows for link in full), since, why))
    return rows
