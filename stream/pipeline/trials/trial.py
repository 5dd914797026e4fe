"""Runs test cases through a pipeline as a worker would, but without a stream, and compares the results with the expected ones."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import takewhile
from pathlib import Path
from typing import Any, Final

import polars as pl

from stream.batch import ARRIVAL, DATA, OUTCOME, PARTITION_KEY, RAW_SCHEMA, ROW, SEQUENCE, SUBSEQUENCE, Batch, Outcome
from stream.contracts import Sink, Transformed
from stream.errors import StreamError
from stream.pipeline.components import make_sink
from stream.pipeline.model import Pipeline
from stream.pipeline.trials.cases import Case, Expect, Record
from stream.pipeline.trials.random_records import random_records
from stream.sink.refusals import accepted
from stream.transform.engine import STAGE_ERROR
from stream.transform.stage import Resources
from stream.transform.types import SYSTEM

SHARD_ID: Final = "shardId-000000000000"
_FIRST_ARRIVAL: Final = datetime(2000, 1, 1, tzinfo=UTC)
_FIRST_SEQUENCE: Final = 49_000_000_000_000_000_000_000_000_000_000_000_000_000_000_000_000_000_000
MAX_DIFFERENCES: Final = 20


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of a test case: the differences, none if it passes. ``golden`` is what its golden file should contain."""

    case: Case
    differences: tuple[str, ...]
    golden: str | None = None


class Trial:
    """A compiled pipeline to run cases on; ``base`` is where golden files are kept."""

    def __init__(self, pipeline: Pipeline, resources: Resources, base: Path) -> None:
        self._chain = pipeline.compiled(resources, lambda: 0.0)
        self._pipeline = pipeline
        self._sinks = [make_sink(config, self._chain.output_schema) for config in pipeline.sinks]
        self._base = base

    def judge(self, case: Case) -> Verdict:
        """Run one case. Only what the case expects can differ; a pipeline that stops is a difference too."""
        try:
            if case.given is None or case.expect is None:
                return Verdict(case, tuple(self._properties(case)))
            done = accepted(self._chain.run(batch_of(case.given), SHARD_ID), self._sinks)
            found = list(self._differences(case.expect, done))
            found += self._raised(case.given, done) if found else ()
        except StreamError as error:
            return Verdict(case, (f"the shard would halt: {error}",))
        if len(found) > MAX_DIFFERENCES:
            found[MAX_DIFFERENCES:] = [f"and {len(found) - MAX_DIFFERENCES} more"]
        return Verdict(case, tuple(found), golden_text(done) if case.expect.golden else None)

    def _differences(self, expect: Expect, done: Transformed) -> Iterator[str]:
        if expect.golden is not None:
            yield from _compare_golden(self._base / expect.golden, golden_text(done))
        else:
            yield from _compare_rejects(expect, done)
        if isinstance(expect.rows, Mapping):
            yield from self._compare_sinks(expect.rows, done)
        elif expect.rows is not None:
            yield from _compare_rows(expect.rows, user_rows(done.frame), list(done.frame.columns))
        if expect.outcomes is not None:
            counts = {label: count for label, count in expect.outcomes.items() if count}
            if counts != (got := outcomes(done)):
                yield f"outcomes: expected {_shown(counts)}, got {_shown(got)}"
        if expect.partitions is not None:
            yield from self._compare_partitions(expect.partitions, done)

    def _raised(self, records: Sequence[Record], done: Transformed) -> Iterator[str]:
        """What the steps raised of which rejects say no more than that they did: on the first records of each step and reason."""
        seen: set[tuple[str, str]] = set()
        for record, stage, reason in rejects(done):
            if reason.partition(":")[0] != STAGE_ERROR or (stage, reason) in seen:
                continue
            seen.add((stage, reason))
            steps = self._chain.walk(batch_of(records), SHARD_ID)
            *_, before = takewhile(lambda step: step.name != stage, steps)  # noqa: B023 - used at once
            given = before.frame.filter(pl.col(ROW) == record - 1)
            if (said := self._chain.failure(stage, given)) is not None:
                [row, *_] = user_rows(given.drop(*SYSTEM[:-1], PARTITION_KEY, strict=False))
                yield f"record {record}: {stage!r} raised {said}; the row was {_shown(row)}"

    def _compare_sinks(self, wanted: Mapping[str, Sequence[Mapping[str, Any]]], done: Transformed) -> Iterator[str]:
        names = [sink.name for sink in self._sinks]
        for name, rows in wanted.items():
            if name not in names:
                yield f"rows: there is no sink {name!r}; there are: {', '.join(names)}"
                continue
            for each in _compare_rows(rows, user_rows(done.rows_for(name)), list(done.frame.columns)):
                yield f"sink {name}: {each}"

    def _compare_partitions(self, wanted: tuple[str, ...] | Mapping[str, tuple[str, ...]], done: Transformed) -> Iterator[str]:
        found = {sink.name: self._partitions(sink, done.rows_for(sink.name)) for sink in self._sinks}
        named = wanted if isinstance(wanted, Mapping) else {self._sinks[0].name: wanted}
        for name, paths in named.items():
            if name not in found:
                yield f"partitions: there is no sink {name!r}; there are: {', '.join(found)}"
            elif sorted(paths) != found[name]:
                missing, extra = sorted(set(paths) - set(found[name])), sorted(set(found[name]) - set(paths))
                yield f"partitions of {name}: expected but not there: {missing or 'none'}; not expected: {extra or 'none'}"

    @staticmethod
    def _partitions(sink: Sink, frame: pl.DataFrame) -> list[str]:
        return sorted({file.key.rpartition("/")[0] for file in sink.encode(frame, "case").files})

    def _properties(self, case: Case) -> Iterator[str]:
        """Check the invariants that hold for any records; report the first violation."""
        source = self._pipeline.source
        batch = batch_of((), random_records(source.decode, source.record_schema(), case.count, case.seed))
        first, second = (accepted(self._chain.run(batch, SHARD_ID), self._sinks) for _ in range(2))
        ended = Counter([*first.frame[ROW].unique().to_list(), *first.settled[ROW].to_list()])
        for row in range(batch.rows):
            if ended[row] != 1:
                yield f"record {row + 1} of seed {case.seed} ended {ended[row]} times, but must end once: {batch.frame[DATA][row]!r}"
                return
        if not (first.frame.equals(second.frame) and first.settled.equals(second.settled)):
            row = _first_difference(first, second)
            yield f"the same records gave different rows when run again, first record {row + 1} of seed {case.seed}: a stage is not pure"
            return
        for sink in self._sinks:
            once, again = (sink.encode(each.rows_for(sink.name), "case") for each in (first, second))
            if [(file.key, file.sha256) for file in once.files] != [(file.key, file.sha256) for file in again.files]:
                yield f"the same rows gave different files in sink {sink.name!r}"
        yield from self._parts(case, batch, first)

    def _parts(self, case: Case, batch: Batch, whole: Transformed) -> Iterator[str]:
        """If every stage is row-wise, results must not depend on where units are cut."""
        if not all(stage.divisible() for stage in self._pipeline.stages):
            return
        half = (batch.rows + 1) // 2
        parts = [self._chain.run(Batch(batch.frame[start : start + half], 0), SHARD_ID) for start in (0, half)]
        rows = pl.concat([part.frame.drop(ROW) for part in parts])
        if not rows.equals(whole.frame.drop(ROW)):
            yield f"cut into two units the records of seed {case.seed} gave different rows: a stage looks at more than one row"


def batch_of(records: Sequence[Record], more: Sequence[bytes] = ()) -> Batch:
    """The records as a source would deliver them, one sequence number and one second each."""
    contents = [*(record.content for record in records), *more]
    count, known = len(contents), len(records)
    keys = [record.partition_key or f"key-{at + 1}" for at, record in enumerate(records)]
    times = [record.arrival or _FIRST_ARRIVAL + timedelta(seconds=at) for at, record in enumerate(records)]
    columns: dict[str, Any] = {
        SEQUENCE: [str(_FIRST_SEQUENCE + at) for at in range(count)],
        SUBSEQUENCE: [0] * count,
        ARRIVAL: times + [_FIRST_ARRIVAL + timedelta(seconds=at) for at in range(known, count)],
        PARTITION_KEY: keys + [f"key-{at + 1}" for at in range(known, count)],
        DATA: contents,
        OUTCOME: [int(Outcome.PENDING)] * count,
    }
    return Batch(pl.DataFrame(columns, schema=RAW_SCHEMA), sum(map(len, contents)))


def user_rows(frame: pl.DataFrame) -> list[dict[str, Any]]:
    """The rows in the form of a file of cases: times and decimals as text, bytes in base64."""
    return [{name: plain(value) for name, value in row.items()} for row in frame.drop(ROW).to_dicts()]


def plain(value: Any) -> Any:
    """``value`` as JSON and YAML can express it."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, list | tuple) else _text(value)


def _text(value: Any) -> str:
    match value:
        case datetime():
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z") if value.tzinfo else value.isoformat()
        case date():
            return value.isoformat()
        case bytes():
            return base64.b64encode(value).decode()
        case Decimal():
            return format(value, "f")
    return str(value)


def rejects(done: Transformed) -> list[tuple[int, str, str]]:
    """Record (from 1), stage and reason of each dead letter, in order."""
    dead = done.settled.filter(pl.col("outcome") == Outcome.DEAD_LETTERED).select(ROW, "stage", "reason")
    return [(row + 1, stage, reason) for row, stage, reason in dead.iter_rows()]


def outcomes(done: Transformed) -> dict[str, int]:
    """Records by outcome."""
    counts = Counter({Outcome.WRITTEN.label: done.frame[ROW].n_unique()})
    counts.update(Outcome(value).label for value in done.settled["outcome"])
    return {label: count for label, count in sorted(counts.items()) if count}


def golden_text(done: Transformed) -> str:
    """All rows without lineage and all rejects, one JSON object per line. If sinks have conditions, rows say which of these take them."""
    rows: list[dict[str, Any]] = [{"row": row} for row in user_rows(done.frame.drop(SYSTEM[:-1]))]
    if done.taken:
        for at, row in enumerate(rows):
            row["sinks"] = [name for name, taken in done.taken.items() if taken[at]]
    dead = [{"reject": {"record": record, "stage": stage, "reason": reason}} for record, stage, reason in rejects(done)]
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in (*rows, *dead))


def _compare_golden(path: Path, text: str) -> Iterator[str]:
    try:
        wanted = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        yield f"there is no golden file {path}; write it with --update, then read it"
        return
    except (OSError, UnicodeDecodeError) as error:
        yield f"the golden file {path} cannot be read: {error}"
        return
    if wanted == text:
        return
    try:
        lines = [[json.loads(line) for line in each.splitlines()] for each in (wanted, text)]
        pairs = [[[line[kind] for line in each if kind in line] for each in lines] for kind in ("row", "reject")]
    except (ValueError, TypeError) as error:
        yield f"the golden file {path} is not one: {error}; rewrite it with --update"
        return
    columns = list(dict.fromkeys(name for row in pairs[0][1] for name in row))
    yield from _compare_rows(pairs[0][0], pairs[0][1], columns, whole=True)
    for at, (expected, found) in enumerate(
        zip(*([line.get("sinks") for line in each if "row" in line] for each in lines), strict=False), 1
    ):
        if expected != found:
            yield f"row {at}: sinks: expected {_shown(expected)}, got {_shown(found)}"
    if pairs[1][0] != pairs[1][1]:
        yield f"rejects: expected {_shown(pairs[1][0])}, got {_shown(pairs[1][1])}"


def _compare_rows(
    wanted: Sequence[Mapping[str, Any]], got: list[dict[str, Any]], columns: list[str], *, whole: bool = False
) -> Iterator[str]:
    if len(wanted) != len(got):
        yield f"rows: expected {len(wanted)}, got {len(got)}"
    for at, (expected, found) in enumerate(zip(wanted, got, strict=False), 1):
        names = dict.fromkeys([*expected, *(found if whole else ())])
        for name in names:
            if name not in found:
                yield f"row {at}: there is no column {name!r}; there are: {', '.join(columns)}"
            elif name not in expected:
                yield f"row {at}: column {name!r} is new: {_shown(found[name])}"
            elif not same(expected[name], found[name]):
                yield f"row {at}: column {name!r}: expected {_shown(expected[name])}, got {_shown(found[name])}"
    for at in range(len(wanted) + 1, len(got) + 1):
        yield f"row {at} was not expected: {_shown(got[at - 1])}"
    for at in range(len(got) + 1, len(wanted) + 1):
        yield f"row {at} is not there: {_shown(dict(wanted[at - 1]))}"


def same(wanted: Any, got: Any) -> bool:
    """Whether a value is the expected one; times are compared as times, and a number never equals a boolean or a text."""
    if isinstance(wanted, bool) or isinstance(got, bool) or wanted is None or got is None:
        return wanted is got
    if isinstance(wanted, int | float) and isinstance(got, int | float):
        return wanted == got or (wanted != wanted and got != got)  # noqa: PLR0124 - NaN
    if isinstance(wanted, Mapping) and isinstance(got, Mapping):
        return wanted.keys() == got.keys() and all(same(wanted[name], got[name]) for name in wanted)
    if isinstance(wanted, list | tuple) and isinstance(got, list | tuple):
        return len(wanted) == len(got) and all(same(*pair) for pair in zip(wanted, got, strict=True))
    if isinstance(wanted, str) and isinstance(got, str):
        return wanted == got or (got.endswith("Z") and "T" in got and _moment(wanted) == _moment(got) is not None)
    return False


def _moment(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _compare_rejects(expect: Expect, done: Transformed) -> Iterator[str]:
    got = {record: (stage, reason) for record, stage, reason in rejects(done)}
    for reject in expect.rejects:
        if reject.record not in got:
            yield f"record {reject.record} should be rejected, but is not"
            continue
        stage, reason = got.pop(reject.record)
        if reject.reason is not None and reject.reason != reason:
            yield f"record {reject.record}: expected the reason {reject.reason!r}, got {reason!r}"
        if reject.stage is not None and reject.stage != stage:
            yield f"record {reject.record}: expected to be rejected by {reject.stage!r}, was by {stage!r}"
    for record, (stage, reason) in got.items():
        yield f"record {record} was rejected by {stage!r} with the reason {reason!r}"


def _first_difference(first: Transformed, second: Transformed) -> int:
    texts = []
    for done in (first, second):
        rows: dict[int, list[str]] = {}
        for frame in (done.frame, done.settled):
            for row in frame.to_dicts():
                rows.setdefault(row[ROW], []).append(repr(row))
        texts.append(rows)
    return min((row for row in texts[0].keys() | texts[1].keys() if texts[0].get(row) != texts[1].get(row)), default=0)


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 200 else text[:197] + "..."
