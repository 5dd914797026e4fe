"""How the files of a unit were written, its separated values and its folders: as the definition says with which the unit was made."""

from __future__ import annotations

from typing import Final

from stream.audit.chain import Link
from stream.audit.outputs import DEFAULT, Separation
from stream.commit.naming import pipeline_key
from stream.contracts import ObjectStore
from stream.errors import DefinitionError
from stream.pipeline.digest import read_canonical
from stream.pipeline.model import Pipeline
from stream.sink.encode import Format
from stream.sink.objects import ObjectsSinkConfig
from stream.sink.partition import Folders, Partitioning

_KEPT: Final = 64
"""Definitions kept in memory; the units of one log were made with few."""


class Separations:
    """Looks them up in the log's recorded definitions; ``store`` is that of the log."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._definitions: dict[str, Pipeline | None] = {}

    async def of(self, unit: Link, sink: str, key: str) -> Separation | None:
        """How the file ``key`` of ``sink`` in ``unit`` is written; None if the log does not hold a definition that tells."""
        if not key.endswith((".csv", ".csv.gz", ".csv.zst")):
            return DEFAULT
        config = await self._sink(unit, sink)
        return separation(config) if config is not None and config.format is Format.CSV else None

    async def folders(self, unit: Link, sink: str) -> tuple[str, ...]:
        """The columns whose values are the names of the folders of ``sink`` in ``unit``, in their order; none if the folders name them."""
        config = await self._sink(unit, sink)
        return () if config is None or config.folders is not Folders.PLAIN else Partitioning(config.partition_by).names

    async def _sink(self, unit: Link, sink: str) -> ObjectsSinkConfig | None:
        pipeline = await self._definition(unit.pipeline)
        config = next((each for each in pipeline.sinks if each.name == sink), None) if pipeline is not None else None
        return config if isinstance(config, ObjectsSinkConfig) else None

    async def _definition(self, digest: str) -> Pipeline | None:
        if digest not in self._definitions:
            stored = await self._store.get(pipeline_key(digest))
            try:
                found = None if stored is None else read_canonical(stored.body.decode())
            except DefinitionError:
                found = None
            while len(self._definitions) >= _KEPT:
                del self._definitions[next(iter(self._definitions))]
            self._definitions[digest] = found
        return self._definitions[digest]


def separation(config: ObjectsSinkConfig) -> Separation:
    """How ``config`` writes separated values."""
    form = config.encoder.csv
    return Separation(form.delimiter, form.quote, form.escape, form.null_text, form.header, config.lineage)
