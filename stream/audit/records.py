"""A span or log record for each record of a unit.

Records of one outcome, reason and destination differ in a few fields of fixed width only; each such group is one block of messages, and
the fields of all groups lie in the same arrays, a row for each record.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import cached_property
from typing import Any, Final

import numpy as np
import polars as pl

from stream.audit import ids, wire
from stream.audit.chain import Link
from stream.audit.fates import COLUMNS, told_apart
from stream.audit.inside import known, lengths, numbers
from stream.audit.ledger import Header, Segment
from stream.audit.packing import Block
from stream.audit.shape import Shape, Trust
from stream.audit.wire import Piece
from stream.batch import Outcome

SYSTEM: Final = "aws.kinesis"
"""The semantic conventions know no value for Kinesis; this follows their ``aws.sns``."""

SAMPLED: Final = 1

AT_ONCE: Final = 65_536
"""Records whose fields are encoded together: enough to make the cost of each call small; a record's fields take about 150 bytes."""

LARGE_GROUPS: Final = 4
"""Groups that are looked for one by one, which is quick for those that hold most records and slow for many little ones."""

SMALL: Final = 2**32
MANY: Final = 2**40
"""Products of counts: those that fit into four bytes, and those that still fit into eight when they are multiplied by another one."""

_CONSUMER: Final = 5
_ERROR: Final = 2
_INFO, _WARN = 9, 13
_BAD: Final = {Outcome.DEAD_LETTERED.label, Outcome.EXPIRED_GAP.label}


def record_blocks(
    frame: pl.DataFrame, unit: Link, segment: Segment, urls: Mapping[tuple[str, str], str], shape: Shape, *, logs: bool
) -> Iterator[Block]:
    """The records of ``frame``, rows of ``segment``, as blocks of ``Span`` or ``LogRecord`` messages, each as field number 2."""
    codes = segment.fates.codes if segment.fates is not None and frame is segment.frame else None
    for number, part in enumerate(frame.iter_slices(AT_ONCE)):
        start = number * AT_ONCE
        columns = _Columns(part, unit, segment.header, shape, None if codes is None else codes[start : start + part.height])
        for first, places in columns.groups():
            group = _Group(first, columns, urls)
            chosen = None if len(places) == part.height else places
            yield Block(wire.message(2, group.log() if logs else group.span()), len(places), 0, chosen)


class _Columns:
    """The fields of some records of a unit, a row for each record; made when they are first asked for."""

    def __init__(self, frame: pl.DataFrame, unit: Link, header: Header, shape: Shape, fates: Any) -> None:
        self.frame = frame
        self.fates = fates
        self.unit = unit
        self.header = header
        self.trust = shape.trust
        self.names = frame["seq"]
        if frame["sub"].max():
            with_sub = pl.concat_str("seq", pl.lit(":"), pl.col("sub").cast(pl.String))
            self.names = frame.select(pl.when(pl.col("sub") > 0).then(with_sub).otherwise("seq")).to_series()
        self.sealed = nanos(unit.sealed_at)
        self.root = unit_trace(unit)
        self._digits: dict[str, Any] = {}

    def groups(self) -> list[tuple[dict[str, Any], Any]]:
        """What records of a group have in common, and where they stand, in an order that is the same every time."""
        frame, fates = self.frame, self.fates if self.fates is not None else told_apart([self.frame[name] for name in COLUMNS])[1]
        produced = known(frame["trace_id"]) if self.trust is not Trust.IGNORE and frame["trace_id"].null_count() < frame.height else None
        own = {
            "_width": self.widths,
            "_rows": numbers(frame["rows"]) > 0,
            "_produced": np.full(frame.height, self._all_produced) if produced is None else produced,
        }
        parts = [fates, *(_places(frame[name]) for name in self.destinations), *own.values()]
        found = []
        for at in alike(parts):
            row = int(at[0])
            first = {name: frame[name][row] for name in (*COLUMNS, *self.destinations)}
            first |= {name: values[row].item() for name, values in own.items()}
            found.append((first, at))
        return sorted(found, key=lambda group: repr(tuple(group[0].values())))

    @property
    def _all_produced(self) -> bool:
        return self.trust is not Trust.IGNORE and not self.frame["trace_id"].null_count()

    @property
    def destinations(self) -> list[str]:
        """The columns that say in which file a record lies."""
        return [f"dest_{index}" for index in range(len(self.header.targets))]

    @cached_property
    def widths(self) -> Any:
        """Characters of each message id."""
        return lengths(self.names)

    @cached_property
    def ids(self) -> tuple[Any, Any]:
        """Trace ids and span ids."""
        return ids.record_ids(self.frame, self.unit.stream, self.unit.shard, self.unit.application)

    @cached_property
    def message_ids(self) -> Any:
        """Sequence numbers, with the sub-sequence number where there is one, filled up to the length of the longest."""
        return ids.characters(self.names, int(self.widths.max()))

    @cached_property
    def times(self) -> tuple[Any, Any]:
        """When records arrived, and when they were sealed, which is no earlier."""
        start = self.frame["arrival_ms"].to_numpy().astype(np.uint64) * np.uint64(1_000_000)
        end = self.sealed if start.max() <= self.sealed else wire.eight_bytes(np.maximum(start, np.uint64(self.sealed)))
        return wire.eight_bytes(start), end

    @cached_property
    def producers(self) -> tuple[Any, Any]:
        """The producers' trace ids and span ids, zeros where there are none."""
        have = self.frame["trace_id"].is_not_null()
        return tuple(_unhex(self.frame[name], have, width) for name, width in (("trace_id", 16), ("parent_id", 8)))

    @cached_property
    def rows(self) -> Any:
        """How many rows were made of a record of which some were: one as a rule, which all have in common then."""
        return self.digits("rows") if int(self.frame["rows"].max() or 0) > 1 else wire.digits([1]).tobytes()  # type: ignore[arg-type]

    def digits(self, name: str) -> Any:
        """A column of integers."""
        if name not in self._digits:
            self._digits[name] = wire.digits(numbers(self.frame[name]))
        return self._digits[name]


def _unhex(texts: pl.Series, have: pl.Series, width: int) -> Any:
    found = np.zeros((texts.len(), width), np.uint8)
    digits = "".join(texts.filter(have).to_list())
    found[have.to_numpy()] = np.frombuffer(bytes.fromhex(digits), np.uint8).reshape(-1, width)
    return found


def _places(column: pl.Series) -> Any:
    """Small numbers, 0 where there is none."""
    there = known(column)
    values = numbers(column) + np.uint32(1)
    return values if there is None else np.multiply(values, there, out=values)


def alike(parts: list[Any]) -> list[Any]:
    """Where rows stand that agree in all of ``parts``, which are small numbers that are not negative; each in ascending order (uint32)."""
    keys, kinds = np.zeros(len(parts[0]), np.uint32), 1
    for values in parts:
        most = int(values.max()) + 1
        if kinds * most > MANY:
            different, numbered = np.unique(keys, return_inverse=True)
            keys, kinds = numbered.astype(np.uint32), len(different)
        if most > 1:
            keys = keys * np.uint64(most) if kinds * most > SMALL else keys * np.uint32(most)
            keys, kinds = keys + values.astype(keys.dtype, copy=False), kinds * most
    left: Any = None
    found = []
    for _ in range(LARGE_GROUPS):
        same = keys == keys[0]
        at, others = np.flatnonzero(same), np.flatnonzero(~same)
        found.append((at if left is None else left[at]).astype(np.uint32))
        if not len(others):
            return found
        left, keys = others if left is None else left[others], keys[others]
    order = np.argsort(keys, kind="stable")
    at = left[order].astype(np.uint32)
    return [*found, *np.split(at, np.flatnonzero(np.diff(keys[order])) + 1)]


class _Group:
    """Records that differ in numbers and ids only."""

    def __init__(self, first: Mapping[str, Any], columns: _Columns, urls: Mapping[tuple[str, str], str]) -> None:
        self.first = first
        self.columns = columns
        self.urls = urls
        self.outcome: str = first["outcome"]
        self.produced: bool = first["_produced"]

    def span(self) -> list[Piece]:
        """Pieces of a ``Span``."""
        columns, root = self.columns, self.columns.root
        pieces = [*self._trace(1), *nested(2, columns.ids[1])]
        if self.produced and columns.trust is Trust.PARENT:
            pieces += nested(4, columns.producers[1])
        start, end = columns.times
        pieces += [wire.text(5, f"process {columns.unit.stream}"), wire.number(6, _CONSUMER)]
        pieces += [*wire.fixed64(7, start), *wire.fixed64(8, end), *self._attributes(9)]
        if self.produced:
            trace, parent = columns.producers
            pieces += wire.message(13, [*nested(1, trace), *nested(2, parent)])
        pieces += wire.message(13, [*nested(1, root), *nested(2, ids.unit_span(root, "unit"))])
        if self.outcome in _BAD:
            pieces.append(failed())
        return [*pieces, wire.fixed32(16, SAMPLED)]

    def log(self) -> list[Piece]:
        """Pieces of a ``LogRecord``."""
        bad, sealed = self.outcome in _BAD, self.columns.sealed
        pieces = [*wire.fixed64(1, sealed), wire.number(2, _WARN if bad else _INFO)]
        pieces += [wire.text(3, "WARN" if bad else "INFO"), *self._attributes(6), wire.fixed32(8, SAMPLED), *self._trace(9)]
        return [*pieces, *nested(10, self.columns.ids[1]), *wire.fixed64(11, sealed), wire.text(12, "kst.record.settled")]

    def _attributes(self, field: int) -> list[Piece]:
        first, columns = self.first, self.columns
        pieces: list[Piece] = [
            wire.attribute(field, "messaging.system", SYSTEM),
            wire.attribute(field, "messaging.operation.name", "process"),
            wire.attribute(field, "messaging.operation.type", "process"),
            *wire.attribute_of_texts(field, "messaging.message.id", columns.message_ids[:, : first["_width"]]),
            *wire.attribute_of_numbers(field, "messaging.message.body.size", columns.digits("bytes")),
            wire.attribute(field, "kst.outcome", self.outcome),
        ]
        if first["stage"] is not None:
            pieces.append(wire.attribute(field, "kst.stage", first["stage"]))
        if first["reason"] is not None:
            pieces.append(wire.attribute(field, "kst.reason", first["reason"]))
            if self.outcome in _BAD:
                pieces.append(wire.attribute(field, "error.type", first["reason"].partition(":")[0]))
        if first["_rows"]:
            pieces += wire.attribute_of_numbers(field, "kst.dest.rows", columns.rows)
        return pieces + self._destinations(field)

    def _destinations(self, field: int) -> list[Piece]:
        pieces: list[Piece] = []
        places = 0
        for index in range(len(self.columns.header.targets)):
            place = self.first[f"dest_{index}"]
            if place is None:
                continue
            places += 1
            item = self.columns.header.objects[place]
            name = "kst.dest" if places == 1 else f"kst.dest.{places}"
            pieces.append(wire.attribute(field, f"{name}.uri", self.urls.get((item.sink, item.key), item.key)))
            pieces += wire.attribute_of_numbers(field, f"{name}.row", self.columns.digits(f"row_{index}"))
        return pieces

    def _trace(self, field: int) -> list[Piece]:
        if self.produced and self.columns.trust is Trust.PARENT:
            return nested(field, self.columns.producers[0])
        return nested(field, self.columns.ids[0])


def failed() -> bytes:
    """``Span.status`` of what went wrong."""
    return b"".join(wire.message(15, [wire.number(3, _ERROR)]))


def nested(field: int, value: Any) -> list[Piece]:
    """Bytes as field number ``field``."""
    return wire.message(field, [value])


def unit_trace(unit: Link) -> bytes:
    """The id of the trace in which the unit's own spans stand."""
    return ids.unit_trace(unit.application, unit.stream, unit.shard, unit.after, unit.last)


def nanos(text: str) -> int:
    """Nanoseconds since 1970; float arithmetic would lose microseconds."""
    moment = datetime.fromisoformat(text)
    whole = moment.replace(microsecond=0)
    return int(whole.timestamp()) * 1_000_000_000 + moment.microsecond * 1000
