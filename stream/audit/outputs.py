"""Reads the data files of sinks, whatever format they have; the rows are in file order."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
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


def damage(error: BaseException) -> str:
    """What is wrong with a file, by one of ``DAMAGE``; the messages of Polars may contain values of records."""
    return "its rows are not as its format has them" if isinstance(error, _OF_POLARS) else str(error)


class DamagedFileError(StreamError):
    """A data file cannot be read."""


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
