"""In which table the rows of a unit certainly are, by what loaders note beside the log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from stream.audit.chain import Link
from stream.contracts import ObjectStore
from stream.pipeline.model import Pipeline
from stream.sink.tables import TableSinkConfig
from stream.worker.recipes.definitions import Definitions
from stream.worker.tables.loadlog import LoadState, is_same_table


@dataclass(frozen=True, slots=True)
class LoadedTables:
    """The tables that ``pipeline`` loads from one ``chain``; ``state``: the store of its log."""

    pipeline: Pipeline
    state: ObjectStore
    chain: str
    definitions: Definitions
    _removed: dict[str, Mapping[str, int]] = field(default_factory=dict)

    async def of(self, link: Link, sink: str) -> str:
        """The table that certainly has the rows of ``link`` for ``sink``, or empty; of two that the sink has had, one of them has.

        When the unit was sealed, the sink's name may have been that of a table of another kind, into which nobody loads any more.
        """
        config = next((each for each in self.pipeline.sinks if each.name == sink and isinstance(each, TableSinkConfig)), None)
        if not isinstance(config, TableSinkConfig) or not link.pipeline:
            return ""
        if sink not in self._removed:
            self._removed[sink] = await LoadState(self.state, sink, self.chain).removed()
        if not link.loaded_by(self._removed[sink]):
            return ""
        recorded = await self.definitions.pipeline(link.pipeline)
        own = next((each for each in recorded.sinks if each.name == sink), None)
        if not isinstance(own, TableSinkConfig) or own.kind != config.kind:
            return ""
        return config.table if is_same_table(own, config) else f"{own.table} or {config.table}"
