"""Reads the data files of sinks, whatever format they have; the rows are in file order."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

import polars as pl
import pyarrow as pa
from pyarrow import ipc

from stream import avro_file
from stream.avro_file import Container
from stream.batch import LINEAGE
from stream.errors import StreamError

_OF_POLARS: Final = (pl.exceptions.PolarsError, pl.exceptions.PanicException)
DAMAGE: Final = (ValueError, OSError, *_OF_POLARS)
"""What is raised for files that are not what their names say."""

_COMPRESSIONS: Final = {".gz": "gzip", ".zst": "zstd"}
TEXTUAL: Final = tuple(f".{kind}{packed}" for kind in ("csv", "ndjson") for packed in ("", *_COMPRESSIONS))
"""The endings of files that have most values as text."""

_BOM: Final = "\ufeff"


@dataclass(frozen=True, slots=True)
class Separation:
    """How files of separated values are written. ``escape``: the character before special characters; None: quotes are doubled instead.

    ``header``: whether the first line has the names of the columns. Without it, columns are called ``column_1`` and so on, except that with
    ``lineage`` the last four are the lineage columns.
    """

    delimiter: str = ","
    quote: str | None = '"'
    escape: str | None = None
    null: str = ""
    header: bool = True
    lineage: bool = True


DEFAULT: Final = Separation()


def rows_of(key: str, body: bytes, separation: Separation = DEFAULT) -> pl.LazyFrame:
    """The rows of the data file ``key``. Columns of separated values are text; ``separation`` says how these are written.

    Raises:
        one of DAMAGE: the file is damaged, or no format of this service. Some damage shows only once the rows are collected.
    """
    stem, _, ending = key.rpartition(".")
    compression = _COMPRESSIONS.get(f".{ending}")
    kind = stem.rpartition(".")[2] if compression else ending
    if kind == "parquet":
        return pl.scan_parquet(io.BytesIO(body))
    if kind == "arrow":
        return _arrow(body).lazy()
    if kind == "avro":
        return pl.concat(_avro(avro_file.read(body)), rechunk=False).lazy()
    plain = pa.input_stream(pa.BufferReader(body), compression=compression).read() if compression else body
    if kind == "csv":
        return _separated(plain, separation)
    if kind == "ndjson":
        return pl.scan_ndjson(io.BytesIO(plain), infer_schema_length=None)
    msg = f"the ending .{kind} is none of parquet, ndjson, csv, avro and arrow"
    raise ValueError(msg)


def typed(key: str, rows: pl.LazyFrame, kinds: Mapping[str, pl.DataType]) -> pl.LazyFrame:
    """The ``rows`` of the data file ``key`` with the names and types of ``kinds``, the columns in file order, as far as text can have them.

    Files of separated values and NDJSON have most types as text only; files of other formats stay as they are.

    Raises:
        one of DAMAGE: a value is not as the sink writes it.
    """
    if not key.endswith(TEXTUAL):
        return rows
    found = rows.collect_schema()
    if list(kinds) != list(found) and all(name in LINEAGE or name == f"column_{at}" for at, name in enumerate(found, 1)):
        rows = rows.rename(dict(zip(found, kinds, strict=True)))  # there is no line of names
        found = rows.collect_schema()
    given = rows.collect()
    frame = given.with_columns(_as_kind(name, found[name], kind) for name, kind in kinds.items() if name in found)
    wrong = next((name for name in kinds if name in found and frame[name].null_count() != given[name].null_count()), None)
    if wrong is not None:
        msg = f"a value of the column {wrong} is no {kinds[wrong]}"
        raise ValueError(msg)
    return frame.lazy()


def _as_kind(name: str, found: pl.DataType, kind: pl.DataType) -> pl.Expr:
    """The column ``name`` as ``kind``, or as it is if there is no rule for that."""
    column = pl.col(name)
    if found == pl.Null or kind.is_numeric():
        return column.cast(kind) if not found.is_nested() else column
    if found != pl.String:
        return column
    if isinstance(kind, pl.Datetime):
        zone = "UTC" if kind.time_zone else None
        iso = "%Y-%m-%dT%H:%M:%S%.f" + "%:z" * (zone is not None)
        read = partial(column.str.to_datetime, time_unit=kind.time_unit, time_zone=zone)
        return pl.coalesce(read(iso, strict=False), read("%Y-%m-%d %H:%M:%S%.f", strict=False))
    rules = {
        pl.Boolean: column == "true",
        pl.Date: column.str.to_date("%Y-%m-%d"),
        pl.Time: column.str.to_time("%H:%M:%S%.f"),
        pl.Binary: column.str.decode("base64"),
    }
    return rules.get(kind.base_type(), column)


def damage(error: BaseException) -> str:
    """What is wrong with a file, by one of ``DAMAGE``; the messages of Polars may contain values of records."""
    return "its rows are not as its format has them" if isinstance(error, _OF_POLARS) else str(error)


class DamagedFileError(StreamError):
    """A data file cannot be read."""


def genuine(key: str, body: bytes, sha256: str) -> bytes:
    """``body``, which is that of the file ``key`` as it was written.

    Readers of binary formats trust what they read; a few wrong bytes can end the process.

    Raises:
        DamagedFileError: it has another SHA-256 than the file had.
    """
    if hashlib.sha256(body).hexdigest() != sha256:
        msg = f"the file {key} was changed after it was written; `stream audit verify` says what else is wrong"
        raise DamagedFileError(msg)
    return body


def unreadable(key: str, error: BaseException) -> DamagedFileError:
    """What to raise for the file ``key`` that raised ``error``, one of ``DAMAGE``."""
    return DamagedFileError(f"the file {key} cannot be read: {damage(error)}; `stream audit verify` says what else is wrong")


def _arrow(body: bytes) -> pl.DataFrame:
    """The frame of an IPC file. Polars' own reader trusts the offsets in a file, and a wrong one ends the process."""
    try:
        table = ipc.open_file(pa.BufferReader(body)).read_all()
        table.validate(full=True)
    except pa.ArrowException as error:
        raise ValueError(str(error)) from error
    return pl.DataFrame(table)


def _avro(container: Container) -> Iterator[pl.DataFrame]:
    """One frame per block. Polars reads only some of Avro's codecs, so each block is given to it without compression."""
    for block in container.blocks:
        yield pl.read_avro(io.BytesIO(avro_file.written(container.schema, "null", None, [block])))


def _separated(plain: bytes, form: Separation) -> pl.LazyFrame:
    if form.quote is not None and form.escape is None and not form.null:
        rows = pl.scan_csv(io.BytesIO(plain), has_header=form.header, separator=form.delimiter, quote_char=form.quote, infer_schema=False)
        if form.header:
            return rows
        found = rows.collect_schema().names()
        return rows.rename(dict(zip(found, _names(len(found), form), strict=True)))
    lines = list(_lines(plain.decode().removeprefix(_BOM), form))
    if len({len(line) for line in lines}) != 1:
        msg = "it has no lines, or lines with different numbers of values"
        raise ValueError(msg)
    head = [name or "" for name in lines.pop(0)] if form.header else _names(len(lines[0]), form)
    return pl.LazyFrame(lines, schema=dict.fromkeys(head, pl.String), orient="row")


def _names(width: int, form: Separation) -> list[str]:
    lineage = LINEAGE if form.lineage else ()
    return [*(f"column_{at}" for at in range(1, width - len(lineage) + 1)), *lineage]


def _lines(text: str, form: Separation) -> Iterator[list[str | None]]:
    """The values of each line. Text that is written like null has quotes or an escape, by which the two are told apart."""
    delimiter, quote, escape = re.escape(form.delimiter), re.escape(form.quote or ""), re.escape(form.escape or "")
    within = rf"{escape}.|[^{quote}{escape}]" if form.escape else rf"{quote}{quote}|[^{quote}]"
    quoted = rf"{quote}(?P<quoted>(?:{within})*){quote}|" if form.quote else ""
    bare = rf"(?:{escape}.|[^{delimiter}\r\n{escape}])*" if form.escape else rf"[^{delimiter}\r\n]*"
    value = re.compile(rf"(?:{quoted}(?P<bare>{bare}))(?P<end>{delimiter}|\r?\n|\Z)", re.DOTALL)
    escaped = re.compile(rf"{escape}(.)", re.DOTALL)
    line: list[str | None] = []
    at = 0
    while at < len(text):
        found = value.match(text, at)
        if found is None:
            msg = f"at character {at} there is no value as the sink's options write it"
            raise ValueError(msg)
        inside, at = (found["quoted"] if form.quote else None), found.end()
        written = found["bare"] if inside is None else inside
        plain = escaped.sub(r"\1", written) if form.escape else written.replace(form.quote * 2, form.quote) if form.quote else written
        line.append(None if inside is None and written == form.null else plain)
        if found["end"] != form.delimiter:
            yield line
            line = []
    if line:
        yield [*line, None]
