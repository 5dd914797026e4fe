"""Encodes a span or log record for each record of a unit.

Records with the same outcome, reason and destination differ only in a few fields of fixed width. Each such group is one block of messages;
the fields of all groups are in the same arrays, with one row per record.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import cached_property
from typing import Any, Final, TypeAlias

import numpy as np
import polars as pl

from stream.audit import ids, wire
from stream.audit.buffers import lengths, numbers, validity
from stream.audit.chain import Link
from stream.audit.export_options import Shape, Trust
from stream.audit.fates import COLUMNS, distinct_rows
from stream.audit.ledger import Header, Segment
from stream.audit.packing import Block
from stream.audit.wire import Piece
from stream.batch import Outcome

SYSTEM: Final = "aws.kinesis"
"""The semantic conventions have no value for Kinesis; this one follows their ``aws.sns``."""

SAMPLED: Final = 1

AT_ONCE: Final = 65_536
"""Records whose fields are encoded together: enough that the cost per call is small. A record's fields take about 150 bytes."""

LARGE_GROUPS: Final = 4
"""Groups that are found one at a time, which is fast for those with most of the records and slow for many small ones."""

SMALL: Final = 2**32
MANY: Final = 2**40
"""Limits for products of counts: what fits into four bytes, and what fits into eight even after one more multiplication."""

CodedFates: TypeAlias = tuple[list[tuple[Any, ...]], Any]
"""The distinct combinations of outcome, stage and reason, and each record's index among them."""

_CONSUMER: Final = 5
_ERROR: Final = 2
_INFO, _WARN = 9, 13
_BAD: Final = {Outcome.DEAD_LETTERED.label, Outcome.EXPIRED_GAP.label}


def record_blocks(
    frame: pl.DataFrame, unit: Link, segment: Segment, urls: Mapping[tuple[str, str], str], shape: Shape, *, logs: bool
) -> Iterator[Block]:
    """The records of ``frame``, as blocks of ``Span`` or ``LogRecord`` messages, each with field number 2.

    ``frame`` is ``segment.rows``, or some rows of ``segment.frame``.
    """
    fates = segment.fates if frame is segment.rows else None
    kinds = fates.kinds.rows() if fates is not None else []
    for number, part in enumerate(frame.iter_slices(AT_ONCE)):
        start = number * AT_ONCE
        part_fates = (kinds, fates.codes[start : start + part.height]) if fates is not None else None
        columns = _Columns(part, unit, segment.header, shape, part_fates)
        for first, rows in columns.groups():
            group = _Group(first, columns, urls)
            chosen = None if len(rows) == part.height else rows
            yield Block(wire.message(2, group.log() if logs else group.span()), len(rows), 0, chosen)


class _Columns:
    """The fields of some records of a unit, one row per record, encoded on first use."""

    def __init__(self, frame: pl.DataFrame, unit: Link, header: Header, shape: Shape, fates: CodedFates | None) -> None:
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
        """The groups in a deterministic order: the values that a group's records share, and their rows (uint32)."""
        frame = self.frame
        kinds, codes = self.fates or distinct_rows([frame[name] for name in COLUMNS])
        produced = validity(frame["trace_id"]) if self.trust is not Trust.IGNORE and frame["trace_id"].null_count() < frame.height else None
        derived = {
            "_width": self.widths,
            "_rows": numbers(frame["rows"]) > 0,
            "_produced": np.full(frame.height, self._all_produced) if produced is None else produced,
        }
        keys = [codes, *(_with_zero_for_null(frame[name]) for name in self.destinations), *derived.values()]
        groups = []
        for rows in group_rows(keys):
            row = int(rows[0])
            first = dict(zip(COLUMNS, kinds[codes[row]], strict=True)) | {name: frame[name][row] for name in self.destinations}
            first |= {name: values[row].item() for name, values in derived.items()}
            groups.append((first, rows))
        return sorted(groups, key=lambda group: repr(tuple(group[0].values())))

    @property
    def _all_produced(self) -> bool:
        return self.trust is not Trust.IGNORE and not self.frame["trace_id"].null_count()

    @property
    def destinations(self) -> list[str]:
        """The names of the columns that say in which file a record is."""
        return [f"dest_{index}" for index in range(len(self.header.targets))]

    @cached_property
    def widths(self) -> Any:
        """The length of each message id."""
        return lengths(self.names)

    @cached_property
    def ids(self) -> tuple[Any, Any]:
        """Trace ids and span ids."""
        return ids.record_ids(self.frame, self.unit.stream, self.unit.shard, self.unit.application)

    @cached_property
    def message_ids(self) -> Any:
        """Sequence numbers, with the sub-sequence number if there is one, padded to the length of the longest."""
        return ids.characters(self.names, int(self.widths.max()))

    @cached_property
    def times(self) -> tuple[Any, Any]:
        """The records' arrival times and seal times, where a seal time is never before the arrival."""
        start = self.frame["arrival_ms"].to_numpy().astype(np.uint64) * np.uint64(1_000_000)
        end = self.sealed if start.max() <= self.sealed else wire.eight_bytes(np.maximum(start, np.uint64(self.sealed)))
        return wire.eight_bytes(start), end

    @cached_property
    def producers(self) -> tuple[Any, Any]:
        """The producers' trace ids and span ids; zeros if there are none."""
        valid = self.frame["trace_id"].is_not_null()
        return tuple(_unhex(self.frame[name], valid, width) for name, width in (("trace_id", 16), ("parent_id", 8)))

    @cached_property
    def rows(self) -> Any:
        """The number of rows of each record that has rows, as varints; a single one for all records if none has more than one row."""
        return self.digits("rows") if int(self.frame["rows"].max() or 0) > 1 else wire.digits([1]).tobytes()  # type: ignore[arg-type]

    def digits(self, name: str) -> Any:
        """A column of integers as varints."""
        if name not in self._digits:
            self._digits[name] = wire.digits(numbers(self.frame[name]))
        return self._digits[name]


def _unhex(texts: pl.Series, valid: pl.Series, width: int) -> Any:
    found = np.zeros((texts.len(), width), np.uint8)
    digits = "".join(texts.filter(valid).to_list())
    found[valid.to_numpy()] = np.frombuffer(bytes.fromhex(digits), np.uint8).reshape(-1, width)
    return found


def _with_zero_for_null(column: pl.Series) -> Any:
    """The values of a column plus 1, and 0 for null."""
    valid = validity(column)
    values = numbers(column) + np.uint32(1)
    return values if valid is None else np.multiply(values, valid, out=values)


def group_rows(parts: list[Any]) -> list[Any]:
    """Groups of rows that agree in all of ``parts`` (arrays of small non-negative numbers); row numbers ascend in each group (uint32)."""
    keys = _combined_keys(parts)
    remaining: Any = None
    groups = []
    for _ in range(LARGE_GROUPS):
        same = keys == keys[0]
        rows, others = np.flatnonzero(same), np.flatnonzero(~same)
        groups.append((rows if remaining is None else remaining[rows]).astype(np.uint32))
        if not len(others):
            return groups
        remaining, keys = others if remaining is None else remaining[others], keys[others]
    order = np.argsort(keys, kind="stable")
    rows = remaining[order].astype(np.uint32)
    return [*groups, *np.split(rows, np.flatnonzero(np.diff(keys[order])) + 1)]


def _combined_keys(parts: list[Any]) -> Any:
    """A number for each row; two rows have the same one if and only if they agree in all of ``parts``."""
    keys, kinds = np.zeros(len(parts[0]), np.uint32), 1
    for values in parts:
        size = int(values.max()) + 1
        if kinds * size > MANY:
            distinct, numbered = np.unique(keys, return_inverse=True)
            keys, kinds = numbered.astype(np.uint32), len(distinct)
        if size > 1:
            keys = keys * np.uint64(size) if kinds * size > SMALL else keys * np.uint32(size)
            keys, kinds = keys + values.astype(keys.dtype, copy=False), kinds * size
    return keys


class _Group:
    """Records that differ only in numbers and ids. ``first`` has the values that they share."""

    def __init__(self, first: Mapping[str, Any], columns: _Columns, urls: Mapping[tuple[str, str], str]) -> None:
        self.first = first
        self.columns = columns
        self.urls = urls
        self.outcome: str = first["outcome"]
        self.produced: bool = first["_produced"]

    def span(self) -> list[Piece]:
        """The pieces of a ``Span``."""
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
        """The pieces of a ``LogRecord``."""
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
        written = 0
        for index in range(len(self.columns.header.targets)):
            number = self.first[f"dest_{index}"]
            if number is None:
                continue
            written += 1
            item = self.columns.header.objects[number]
            name = "kst.dest" if written == 1 else f"kst.dest.{written}"
            pieces.append(wire.attribute(field, f"{name}.uri", self.urls.get((item.sink, item.key), item.key)))
            pieces += wire.attribute_of_numbers(field, f"{name}.row", self.columns.digits(f"row_{index}"))
        return pieces

    def _trace(self, field: int) -> list[Piece]:
        if self.produced and self.columns.trust is Trust.PARENT:
            return nested(field, self.columns.producers[0])
        return nested(field, self.columns.ids[0])


def failed() -> bytes:
    """The ``Span.status`` of a failure."""
    return b"".join(wire.message(15, [wire.number(3, _ERROR)]))


def nested(field: int, value: Any) -> list[Piece]:
    """``value``, bytes or a uint8 array with one row per message, as field number ``field``."""
    return wire.message(field, [value])


def unit_trace(unit: Link) -> bytes:
    """The id of the trace that contains the unit's own spans."""
    return ids.unit_trace(unit.application, unit.stream, unit.shard, unit.after, unit.last)


def nanos(text: str) -> int:
    """``text`` (ISO 8601) as nanoseconds since 1970; float arithmetic would lose microseconds."""
    moment = datetime.fromisoformat(text)
    whole = moment.replace(microsecond=0)
    return int(whole.timestamp()) * 1_000_000_000 + moment.microsecond * 1000
