"""A compiled pipeline definition, and how it renders one unit: records in, manifest and encoded files out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

import msgspec
import numpy as np
import polars as pl

from stream.audit import ledger
from stream.audit.context import DEFAULT_PATHS
from stream.batch import ARRIVAL, OUTCOME, ROW, SEQUENCE, SUBSEQUENCE, Batch, Outcome, SeqRange
from stream.commit.committer import RenderedUnit
from stream.commit.manifest import FileEntry, Kind, Manifest, StageRun, State
from stream.commit.naming import unit_name
from stream.contracts import Chain, Encoded, OutputFile, Shard, Sink, Transformed
from stream.sink import rejects
from stream.sink.refusals import accepted


@dataclass(frozen=True, slots=True)
class Recipe:
    """One compiled definition. ``digest`` names it in the log. Equal recipes make equal units from equal records.

    ``several``: rows of several streams share the sinks, so file names and the column ``_shard`` name the stream too.
    ``trace_paths``: where a record may carry its producer's trace context. ``places``: the URLs of the sinks, by name. ``reads``: the
    options that decide what the records of an object are; empty for a stream, which knows its records itself.
    """

    application: str
    digest: str
    build: str
    chain: Chain
    sinks: tuple[Sink, ...]
    several: bool = False
    trace_paths: tuple[str, ...] = DEFAULT_PATHS
    places: Mapping[str, str] = field(default_factory=dict)
    reads: str = ""

    def label(self, stream: str, shard_id: str) -> str:
        """The value of the column ``_shard`` in rows of that shard."""
        return f"{stream}/{shard_id}" if self.several else shard_id


@dataclass(frozen=True, slots=True)
class CutUnit:
    """The records of one range in stream order, not yet transformed.

    ``foreign_subsequence``: index of the last user record in the range's first Kinesis record that another application has processed; -1 if
    none.
    """

    shard: Shard
    span: SeqRange
    batches: Sequence[Batch]
    trigger: str
    foreign_subsequence: int = -1


@dataclass(frozen=True, slots=True)
class Rendered:
    """A rendered unit, and the figures about it that events report."""

    unit: RenderedUnit
    stage_rows: tuple[tuple[str, int, int, float], ...]
    rejected: tuple[tuple[str, str, int], ...]
    """Dead letters as (stage, reason, number of records)."""
    oldest: datetime | None
    newest: datetime | None
    segment: ledger.Segment | None = None
    """The content of the unit's last file, its ledger segment."""

    @property
    def dead_letters(self) -> int:
        """Records of this unit that became dead letters."""
        return self.unit.manifest.outcomes.get(Outcome.DEAD_LETTERED.label, 0)


def render(recipe: Recipe, cut: CutUnit) -> Rendered:
    """Run the chain over the unit and encode all its files, in memory.

    Pure: the same recipe and records give the same keys and bytes on any machine with the same build. Ledger and rejects go under
    ``<stream>/<shard>/``, data files where the sink puts them.
    """
    batch = without_foreign(Batch.concat(cut.batches), cut)
    stem, label = unit_name(cut.shard.chain, cut.span), recipe.label(cut.shard.stream, cut.shard.shard_id)
    folder = f"{cut.shard.stream}/{cut.shard.chain}/{stem}"
    data_stem = unit_name(cut.shard.chain, cut.span, cut.shard.stream) if recipe.several else stem
    transformed = accepted(recipe.chain.run(batch, label), recipe.sinks)
    encoded = {sink.name: sink.encode(transformed.rows_for(sink.name), data_stem) for sink in recipe.sinks}
    encoded[rejects.NAME] = rejects.encode(transformed.settled, batch, label, folder)
    facts = ledger.UnitFacts(recipe.application, cut.shard.stream, cut.shard.chain, cut.span.after, cut.span.last, recipe.digest)
    segment = ledger.make_segment(facts, batch, transformed, encoded, recipe.trace_paths)
    files = (*_files(encoded.values()), ledger.encode_segment(segment, folder))
    oldest, newest = _arrivals(batch)
    manifest = Manifest(
        kind=Kind.UNIT,
        state=State.INTENT,
        application=recipe.application,
        stream=cut.shard.stream,
        shard=cut.shard.chain,
        pipeline=recipe.digest,
        build=recipe.build,
        after=str(cut.span.after),
        last=str(cut.span.last),
        subsequence=_last_subsequence(batch, cut.span.last),
        records=batch.rows,
        payload_bytes=batch.payload_bytes,
        outcomes=_outcomes(transformed),
        files=tuple(FileEntry.of(file) for file in files),
        targets={file.sink: recipe.places[file.sink] for file in files if file.sink in recipe.places},
        trigger=cut.trigger,
        foreign_subsequence=cut.foreign_subsequence,
        first_arrival=oldest.isoformat() if oldest else "",
        last_arrival=newest.isoformat() if newest else "",
        stages=tuple(
            StageRun(name, rows_in, rows_out, round(seconds * 1e6)) for name, rows_in, rows_out, seconds in transformed.stage_rows
        ),
    )
    rejected = _rejected(transformed.settled)
    return Rendered(RenderedUnit(manifest, files), transformed.stage_rows, rejected, oldest, newest, segment)


def without_foreign(batch: Batch, cut: CutUnit) -> Batch:
    """``batch`` of ``cut`` with the user records that another application has processed marked as foreign, so that no stage sees them."""
    if cut.foreign_subsequence < 0:
        return batch
    done = (pl.col(SEQUENCE) == str(cut.span.after + 1)) & (pl.col(SUBSEQUENCE) <= cut.foreign_subsequence)
    settled = pl.when(done).then(pl.lit(int(Outcome.FOREIGN), pl.UInt8)).otherwise(pl.col(OUTCOME)).alias(OUTCOME)
    return replace(batch, frame=batch.frame.with_columns(settled))


def with_previous(unit: RenderedUnit, previous: str, worker: str, now: datetime) -> RenderedUnit:
    """The unit as the chain's next link after the manifest with digest ``previous``, stamped with who commits it and when."""
    manifest = msgspec.structs.replace(unit.manifest, previous=previous, worker=worker, created_at=now.isoformat())
    return replace(unit, manifest=manifest)


def _files(encoded: Iterable[Encoded]) -> list[OutputFile]:
    return [file for each in encoded for file in each.files]


def _outcomes(transformed: Transformed) -> dict[str, int]:
    rows = transformed.frame[ROW].to_numpy()
    # Rows of one record are adjacent.
    counts = Counter({Outcome.WRITTEN.label: int(np.count_nonzero(rows[1:] != rows[:-1])) + bool(len(rows))})
    for value, count in enumerate(np.bincount(transformed.settled["outcome"].to_numpy()).tolist()):
        counts[Outcome(value).label] += count
    return {label: count for label, count in sorted(counts.items()) if count}


def _rejected(settled: pl.DataFrame) -> tuple[tuple[str, str, int], ...]:
    dead = settled["outcome"] == Outcome.DEAD_LETTERED
    if not dead.any():
        return ()
    return tuple(sorted(settled.filter(dead).group_by("stage", "reason").len().iter_rows()))


def _last_subsequence(batch: Batch, last: int) -> int:
    if batch.rows == 0 or int(batch.frame[SEQUENCE][-1]) != last:
        return 0
    return int(batch.frame[SUBSEQUENCE][-1])


def _arrivals(batch: Batch) -> tuple[datetime | None, datetime | None]:
    return batch.frame[ARRIVAL].min(), batch.frame[ARRIVAL].max()  # type: ignore[return-value]
