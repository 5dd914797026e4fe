"""What is simulated: one or two pipeline files, compiled, and the sample of records that they are given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from stream.batch import DATA, Batch
from stream.clock import SystemClock
from stream.errors import DefinitionError
from stream.pipeline.model import Pipeline
from stream.pipeline.resources.fetching import Fetched
from stream.pipeline.resources.secrets import SecretReader
from stream.pipeline.trials.trial import batch_of
from stream.simulation.schedule import Possible
from stream.sink.tables import TableSinkConfig
from stream.storage.memory import MemoryStore
from stream.worker.recipes.definitions import Definitions
from stream.worker.recipes.recipe import Recipe


@dataclass
class Known:
    """What all workers of all schedules share, because to make it takes longer than to run it.

    ``recipes``: compiled, by digest. ``written``: digest and text of a pipeline, by the place of its object in memory.
    """

    recipes: dict[str, Recipe] = field(default_factory=dict)
    written: dict[int, tuple[str, bytes]] = field(default_factory=dict)


class KnownDefinitions(Definitions):
    """The real definitions, but each is written out and compiled once, however many workers there are."""

    known: Known

    def _written(self, pipeline: Pipeline, fetched: Fetched) -> tuple[str, bytes]:
        if id(pipeline) not in self.known.written:
            self.known.written[id(pipeline)] = super()._written(pipeline, fetched)
        return self.known.written[id(pipeline)]

    def _compile(self, pipeline: Pipeline, fetched: Fetched, digest: str) -> Recipe:
        if digest not in self.known.recipes:
            self.known.recipes[digest] = super()._compile(pipeline, fetched, digest)
        return self.known.recipes[digest]


@dataclass(frozen=True)
class Subject:
    """A pipeline with what it needs. ``newer``: the file that takes its place in a rolling update; None if there is none.

    ``base``: the folder to which paths are relative. ``env`` and ``managed``: where secrets come from. ``records``: the sample.
    """

    pipeline: Pipeline
    fetched: Fetched
    base: Path
    env: Mapping[str, str]
    records: tuple[bytes, ...]
    newer: tuple[Pipeline, Fetched] | None = None
    managed: SecretReader | None = None
    known: Known = field(default_factory=Known)

    @property
    def streams(self) -> tuple[str, ...]:
        """The streams that the pipeline reads."""
        return self.pipeline.source.kinesis.names

    @property
    def possible(self) -> Possible:
        """What may happen to it."""
        files = [self.version(newer=newer)[0] for newer in (False, True)]
        tables = {None if each.leases is None else each.leases.tables(each.application).leases for each in files}
        return Possible(
            records=len(self.records),
            streams=len(self.streams),
            rolling=self.newer is not None,
            leased=len(tables) == 1 and None not in tables,
            rewinds=not any(isinstance(sink, TableSinkConfig) for each in files for sink in each.sinks),
        )

    @property
    def batch(self) -> Batch:
        """The sample as one batch."""
        return batch_of((), self.records)

    def version(self, *, newer: bool) -> tuple[Pipeline, Fetched]:
        """The file that a worker runs."""
        return self.newer if newer and self.newer is not None else (self.pipeline, self.fetched)

    def definitions(self, store: MemoryStore) -> KnownDefinitions:
        """Definitions over ``store``, for the recipes of the subject itself."""
        made = KnownDefinitions(store, self.base, self.env, SystemClock(), self.managed)
        made.known = self.known
        return made

    async def recipes(self) -> tuple[Recipe, ...]:
        """The compiled recipe of each file.

        Raises:
            SchemaMismatch: a stage cannot work on the columns before it.
            DefinitionError: a sensitive column would reach a sink unmasked.
        """
        definitions, files = self.definitions(MemoryStore()), [self.version(newer=False), *([self.newer] if self.newer else [])]
        return tuple([await definitions.record(pipeline, fetched) for pipeline, fetched in files])


def refuse_unrelated(pipeline: Pipeline, newer: Pipeline) -> None:
    """Make sure that ``newer`` can take the place of ``pipeline`` while workers of both run.

    Raises:
        DefinitionError: it has another log or reads another stream, so it is another pipeline.
    """
    pairs = {
        "application": (pipeline.application, newer.application),
        "state": (pipeline.state, newer.state),
        "source.kinesis.stream": (", ".join(pipeline.source.kinesis.names), ", ".join(newer.source.kinesis.names)),
    }
    for name, (old, new) in pairs.items():
        if old != new:
            msg = (
                f"--with: `{name}` is {new!r} there and {old!r} here; workers of both files share a stream and a log only if it is the "
                "same. See `stream diff`."
            )
            raise DefinitionError(msg)


def payloads(batch: Batch) -> tuple[bytes, ...]:
    """The bytes of each record of ``batch``."""
    return tuple(batch.frame[DATA].to_list())
