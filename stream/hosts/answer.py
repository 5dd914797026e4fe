"""What a function answers Amazon Data Firehose: each record once, in the order of the event. Pure.

https://docs.aws.amazon.com/firehose/latest/dev/data-transformation-status-model.html. Lambda limits an answer to 6 MB, and an answer that
is larger fails as a whole. Records whose rows do not fit are therefore given back as failed; Firehose keeps what it sent.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

import polars as pl

from stream.batch import ROW, Outcome
from stream.contracts import Transformed
from stream.sink.record_lines import RecordLines
from stream.source.transformation import Transformation
from stream.worker.recipes.recipe import Recipe

LIMIT: Final = 6_000_000
"""Most bytes of an answer. Lambda's own limit is 6 MB; this holds whether a megabyte is 1,000,000 bytes or 2**20."""

TOO_LARGE: Final = "answer_too_large"
SEVERAL_PARTITIONS: Final = "several_partitions"

OK: Final = "Ok"
DROPPED: Final = "Dropped"
FAILED: Final = "ProcessingFailed"

_AROUND: Final = len('{"records": []}')
_BETWEEN: Final = len(", ")


@dataclass(frozen=True, slots=True)
class Answer:
    """``body`` is what the function returns, ``size`` its bytes at most.

    ``rejected``: dead letters as (stage, reason, records). ``stages``: as in ``Transformed.stage_rows``.
    """

    body: dict[str, Any]
    size: int
    outcomes: tuple[tuple[str, int], ...]
    rejected: tuple[tuple[str, str, int], ...]
    stages: tuple[tuple[str, int, int, float], ...]


def answer(recipe: Recipe, lines: RecordLines, asked: Transformation, limit: int = LIMIT) -> Answer:
    """Run the chain over the records of one event, all at once, and answer each.

    `Ok`: the record has become rows, which are its ``data``. `Dropped`: a stage left it out. `ProcessingFailed`: it is a dead letter, its
    rows belong to several partitions, or they do not fit into ``limit`` bytes behind those of the records before it. The last two have
    no data, as in AWS's own examples.

    Raises:
        Halted: a stage broke its contract.
    """
    transformed = recipe.chain.run(asked.batch, "")
    made, partitions = lines.encode(transformed.frame)
    settled = dict(transformed.settled.select(ROW, "outcome").iter_rows())
    results: list[dict[str, Any]] = [
        {"recordId": name, "result": FAILED if settled.get(row) == Outcome.DEAD_LETTERED else DROPPED} for row, name in enumerate(asked.ids)
    ]
    failing: dict[int, str] = dict.fromkeys(made.filter(~pl.col("one_partition"))[ROW], SEVERAL_PARTITIONS)
    metadata = [{"metadata": {"partitionKeys": values}} if values else {} for values in partitions]
    more = [_size({"recordId": "", "result": OK, "data": "", **each}) - _size({"recordId": "", "result": FAILED}) for each in metadata]
    # Room is kept for the longest answer without data to every record.
    size = _AROUND + sum(_size({"recordId": name, "result": FAILED}) for name in asked.ids)
    for row, text, partition in made.filter("one_partition").select(ROW, "lines", "partition").iter_rows():
        if size + more[partition] + len(text) > limit:
            failing[row] = TOO_LARGE
            continue
        size += more[partition] + len(text)
        results[row] = {"recordId": asked.ids[row], "result": OK, "data": text, **metadata[partition]}
    for row in failing:
        results[row]["result"] = FAILED
    rejected = _rejected(transformed, failing, recipe.sinks[0].name)
    return Answer({"records": results}, size, _outcomes(transformed, len(failing)), rejected, transformed.stage_rows)


def _size(result: dict[str, Any]) -> int:
    """Bytes in the answer, as AWS's runtime client writes it."""
    return len(json.dumps(result)) + _BETWEEN


def _outcomes(transformed: Transformed, failing: int) -> tuple[tuple[str, int], ...]:
    counts = Counter(Outcome(value).label for value in transformed.settled["outcome"].to_list())
    counts[Outcome.WRITTEN.label] += transformed.records - transformed.settled.height - failing
    counts[Outcome.DEAD_LETTERED.label] += failing
    return tuple((label, count) for label, count in sorted(counts.items()) if count)


def _rejected(transformed: Transformed, failing: dict[int, str], sink: str) -> tuple[tuple[str, str, int], ...]:
    dead = transformed.settled.filter(pl.col("outcome") == Outcome.DEAD_LETTERED).group_by("stage", "reason").len()
    found = [*dead.iter_rows(), *((sink, reason, count) for reason, count in Counter(failing.values()).items())]
    return tuple(sorted(found))
