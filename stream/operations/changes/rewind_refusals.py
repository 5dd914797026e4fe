"""Why a rewind is refused: what was made of the units that it takes back would stay beside what is made of their records again."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Final

from stream.audit.objects import WITH_THE_LOG
from stream.batch import ORIGIN
from stream.clock import SystemClock
from stream.commit.claims import Claims
from stream.commit.log import CommitLog
from stream.commit.manifest import Manifest
from stream.commit.naming import manifest_key
from stream.commit.rewind import History
from stream.contracts import ObjectStore
from stream.errors import DefinitionError
from stream.operations.compaction.uncompacted import compacted_to
from stream.pipeline.model import Pipeline
from stream.sink import rejects
from stream.sink.tables import TableSinkConfig
from stream.worker.recipes.definitions import Definitions
from stream.worker.sources.dead_letters import Redrive, chain_name

_NO_REMOVAL: Final = (
    "from which a rewind cannot remove them, so they would be there twice; nothing was changed. To process records again, read them into "
    "a table of their own with `stream backfill --namespace`, or load another table under another application name"
)


async def refuse_doubles(log: CommitLog, known: History, link: Manifest, target: int, stores: Mapping[str, ObjectStore]) -> None:
    """Make sure that the rewind ``link`` to ``target`` leaves nothing behind. ``stores``: those of the pipeline's sinks, by name.

    Once this returns, no dead letter is redriven, and no file compacted, that the link would take back, unless a worker commits a unit in
    the place of the link.

    Raises:
        DefinitionError: it would.
    """
    taken = [each for each in known.links if int(each.after) >= target]
    await _refuse_staged(log, taken)
    await _refuse_elsewhere(taken, stores)
    await _refuse_compacted(log, known.shard.stream, taken)
    await _claim(log, known, link)
    # A compaction that was begun before the claim may not have seen it.
    await _refuse_compacted(log, known.shard.stream, taken)


def refuse_tables(pipeline: Pipeline) -> None:
    """Make sure that no sink of ``pipeline`` loads a table.

    Raises:
        DefinitionError: one does.
    """
    for config in pipeline.sinks:
        if isinstance(config, TableSinkConfig):
            msg = f"rows of the sink `{config.name}` are loaded into the table {config.table}, {_NO_REMOVAL}"
            raise DefinitionError(msg)


async def _refuse_staged(log: CommitLog, links: Sequence[Manifest]) -> None:
    """Make sure that no file of ``links`` was made for a table, whatever this pipeline has under the sink's name and in its place."""
    definitions, tables = Definitions(log.store, Path(), {}, SystemClock()), dict[str, dict[str, str]]()
    for link in reversed(links):
        if not link.files:
            continue
        if link.pipeline not in tables:
            sinks = (await definitions.pipeline(link.pipeline)).sinks
            tables[link.pipeline] = {each.name: each.table for each in sinks if isinstance(each, TableSinkConfig)}
        for sink in sorted({file.sink for file in link.files} & tables[link.pipeline].keys()):
            msg = (
                f"rows of units that would be taken back were sealed for the table {tables[link.pipeline][sink]} (sink `{sink}`), "
                f"{_NO_REMOVAL}. Or rewind to after {link.last}"
            )
            raise DefinitionError(msg)


async def _refuse_elsewhere(links: Sequence[Manifest], stores: Mapping[str, ObjectStore]) -> None:
    """Make sure that the files of ``links`` are where ``stores`` says that their sinks are: others would stay beside those made again."""
    for link in reversed(links):
        for file in link.files:
            written, store = link.targets.get(file.sink), stores.get(file.sink)
            if file.sink in WITH_THE_LOG or (store is not None and store.url == written):
                continue
            if store is not None and [info async for info in store.list(file.key)]:
                continue  # moved together with the pipeline
            where = "this pipeline does not have" if store is None else f"is at {store.url} now"
            msg = (
                f"units that would be taken back were written to the sink `{file.sink}` at {written}, which {where}: their files would "
                f"stay, and their records be there twice. Rewind to after {link.last}, or with a pipeline file that has that sink there, "
                "or process all of it again with another application name; nothing was changed"
            )
            raise DefinitionError(msg)


async def _claim(log: CommitLog, known: History, link: Manifest) -> None:
    """Claim what ``link`` takes back, in the list in which redrives claim their letters and where compactions look."""
    taken = {file.key for file in link.superseded if file.sink == rejects.NAME}
    place = manifest_key(link.stream, link.shard, int(link.after))

    async def choose(claims: list[Redrive]) -> Redrive:
        _refuse_redriven(known, taken, claims)
        return Redrive((), 0, "", log.worker, link.created_at, place, tuple(sorted(taken)), link.target or "")

    await Claims(log.store, chain_name(link.stream), Redrive).claim(choose)


def _refuse_redriven(known: History, taken: Collection[str], claims: Sequence[Redrive]) -> None:
    by_number = {file.key: number for number, claim in enumerate(claims, 1) for file in claim.files if file.key in taken}
    if not by_number:
        return
    redriven = [each for each in known.links if any(file.sink == rejects.NAME and file.key in by_number for file in each.files)]
    msg = (
        f"dead letters of {len(redriven)} unit(s) that would be taken back were redriven (the last one by redrive "
        f"{max(by_number.values())}): their results stay, and they would be processed twice. Rewind to after {redriven[-1].last}, or "
        "process all of it again with another application name; nothing was changed"
    )
    raise DefinitionError(msg)


async def _refuse_compacted(log: CommitLog, stream: str, links: Sequence[Manifest]) -> None:
    reached = await compacted_to(log.store, stream)
    compacted = [each for each in links if int(each.after) < reached.get(each.shard, ORIGIN)]
    if not compacted:
        return
    msg = (
        f"files of {len(compacted)} unit(s) that would be taken back were compacted: the compacted files stay, and the records would be "
        f"there twice. Rewind to after {compacted[-1].last}, or process all of it again with another application name; nothing was changed"
    )
    raise DefinitionError(msg)
