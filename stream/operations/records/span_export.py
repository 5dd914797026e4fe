"""Exports the spans of units again, for a range of records that somebody names."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from pydantic import ValidationError

from stream.audit.export import Exporter
from stream.audit.ledger import NAME as LEDGER
from stream.aws.secrets import read_secret
from stream.clock import SystemClock
from stream.commit.log import CommitLog
from stream.commit.lookup import shards_of
from stream.contracts import Emit
from stream.errors import DefinitionError
from stream.pipeline.audit import Otlp
from stream.pipeline.model import Pipeline
from stream.worker.opening.places import located, session_of
from stream.worker.opening.stores import Stores
from stream.worker.receivers.collector import open_sender, shape_of
from stream.worker.receivers.log_units import LogUnits


async def open_export(
    pipeline: Pipeline, chain: str, endpoint: str | None, base: Path, env: Mapping[str, str], stack: AsyncExitStack, emit: Emit
) -> tuple[Exporter, LogUnits, list[str]]:
    """An exporter to ``endpoint`` or else the pipeline's own collector, its units, and the shards in the log of ``chain``.

    ``emit`` gets events about refused spans and retries.

    Raises:
        DefinitionError: no endpoint is named, or it is not a URL.
    """
    clock = SystemClock()
    try:
        from_option = Otlp(endpoint=endpoint) if endpoint else None
    except ValidationError as error:
        msg = f"--endpoint {endpoint}: name the collector by its base URL, such as http://127.0.0.1:4318"
        raise DefinitionError(msg) from error
    otlp = pipeline.audit.otlp or from_option
    if otlp is None:
        msg = "the pipeline names no collector; write audit: {otlp: {endpoint: ...}}, or use --endpoint"
        raise DefinitionError(msg)
    if from_option is not None:
        otlp = otlp.model_copy(update={"endpoint": from_option.endpoint})
    session = session_of(pipeline)
    stores = Stores.open(pipeline, base, session)
    log = CommitLog(stores.state, pipeline.application, clock, "export")
    areas = stores.areas(located(pipeline.state, base), chain)
    units = LogUnits(log, chain, areas, stores.targets[LEDGER], otlp.destinations)
    sender = await open_sender(otlp, env, base, clock, emit, stack, functools.partial(read_secret, session))
    shards = [shard async for shard in shards_of(stores.state, chain)]
    return Exporter(units, stores.state, sender, shape_of(otlp), clock, emit, chain), units, shards


async def export_range(exporter: Exporter, units: LogUnits, shards: Sequence[str], after: int, last: int | None) -> tuple[int, int]:
    """Re-export every sealed unit that overlaps ``(after, last]``, without moving cursors. Returns how many units, and items accepted."""
    count = accepted = 0
    for shard in shards:
        position = await units.begins(shard, after)
        while (found := await units.read(shard, position)) is not None:
            link, segment, urls = found
            if link.last is None or (last is not None and link.after >= last):
                break
            if link.last > after:
                accepted += (await exporter.export(link, segment, urls)).accepted
                count += 1
            position = link.last
    return count, accepted
