"""Which partition each row belongs to, and what its directory is called.

The path is evaluated per row, never per batch, and its text is an injective image of the row's values: two different values never
share a directory, and no value can leave the sink's prefix. The encoding of one value:

    null                        ``__HIVE_DEFAULT_PARTITION__``
    empty text                  ``__EMPTY__``
    letters, digits, ``.``, ``_``, ``-``  themselves
    any other UTF-8 byte        ``%XX``
    text beginning with ``__``  its first byte as ``%5F``, so that it never equals a token of this module
    ``.`` and ``..``            ``%2E`` and ``%2E.``
    longer than 120 bytes       the beginning, ``__sha256-`` and 40 hex digits: longer than any other encoding, so it equals none
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias
from urllib.parse import quote

import numpy as np
import polars as pl

from stream.arithmetic import TOO_DEEP, TOO_DEEP_CURE, angles_of_objects, exact, too_deep
from stream.errors import DefinitionError
from stream.specimen import impossible, words_of

NULL: Final = "__HIVE_DEFAULT_PARTITION__"
"""Hive's own name for null; Spark, Trino, Athena and DuckDB read it back as null."""
EMPTY: Final = "__EMPTY__"
OVERFLOW: Final = "__overflow__"
"""Rows of partitions beyond the bound."""
INVALID: Final = "__invalid__"
"""Rows for which the expression has no value, such as text that a CAST cannot read."""

MAX_VALUE_BYTES: Final = 120
MAX_PATH_BYTES: Final = 500
"""Leaves room for the sink's prefix and the file name inside the 1,024 bytes of an S3 key."""
_KEPT_BYTES: Final = 88
_MAX_FAILURES: Final = 1024

_QUOTED: Final = re.compile(r"'(?:[^']|'')*'|\"[^\"]*\"")
_WORD: Final = re.compile(r"[a-z_]+")
_CLOCK_WORDS: Final = {"now", "current_timestamp", "current_date", "current_time", "localtimestamp", "localtime"}
"""Polars puts the time of parsing in their place, as a constant."""

Entry: TypeAlias = str | dict[str, str]


class SinkMismatch(DefinitionError, ValueError):
    """The sink cannot write the columns it is given; ``path`` leads to the offending option inside the sink's config."""

    def __init__(self, path: tuple[str | int, ...], message: str, hint: str = "") -> None:
        super().__init__(f"{message} - {hint}" if hint else message)
        self.path = path
        self.message = message
        self.hint = hint


def encode_value(value: str | None) -> str:
    """The directory name for one value, different for different values: 1 to 137 characters of [A-Za-z0-9._%-]."""
    if value is None:
        return NULL
    if not value:
        return EMPTY
    text = quote(value, safe="").replace("~", "%7E")
    if text.startswith("__"):
        text = "%5F" + text[1:]
    if text in {".", ".."}:
        text = "%2E" + text[1:]
    if len(text) <= MAX_VALUE_BYTES:
        return text
    head = text[:_KEPT_BYTES]
    cut = head.rfind("%", _KEPT_BYTES - 2)
    digest = hashlib.sha256(value.encode()).hexdigest()[:40]
    return f"{head if cut < 0 else head[:cut]}__sha256-{digest}"


@dataclass(frozen=True, slots=True)
class Assignment:
    """Where the rows of one frame go: row i belongs to ``paths[codes[i]]``.

    ``codes`` is UInt32 of the frame's height; ``paths`` are distinct directories without a leading or trailing slash, numbered in
    order of first appearance.
    """

    codes: pl.Series
    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Column:
    name: str
    source: pl.Expr
    path: tuple[str | int, ...]


class Partitioning:
    """Partition columns, ready to evaluate. ``entries`` are column names or one-key mappings of a name to an SQL expression.

    Raises:
        SinkMismatch: an expression does not parse, does not work row by row, or two entries have one name.
    """

    def __init__(self, entries: Sequence[Entry], limit: int = 512) -> None:
        self.limit = limit
        self._columns = tuple(_column(index, entry) for index, entry in enumerate(entries))
        names = [column.name for column in self._columns]
        for index, name in enumerate(names):
            if name in names[:index]:
                raise SinkMismatch((index,), f"partition column '{name}' is listed twice", "remove one of them")

    def check(self, schema: pl.Schema) -> None:
        """Make sure that every partition column can be computed from columns of ``schema``.

        Raises:
            SinkMismatch: a column is missing, an expression fails to type, or its type has no unambiguous text.
        """
        rows = pl.LazyFrame(schema=schema)
        for column in self._columns:
            try:
                if angles_of_objects(column.source, schema):
                    message = f"partition column '{column.name}' cannot be computed: atan2 takes numbers, no objects"
                    raise SinkMismatch(column.path, message, "name fields of the object, as in `atan2(o.y, o.x)`")
                dtype = rows.select(column.source.alias(column.name)).collect_schema()[column.name]
            except pl.exceptions.ColumnNotFoundError as error:
                lacks = next((name for name in column.source.meta.root_names() if name not in schema), column.name)
                message = f"partition column '{column.name}': no column '{lacks}'; there are: {', '.join(schema.names())}"
                raise SinkMismatch(column.path, message) from error
            except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
                message = f"partition column '{column.name}' cannot be computed: {words_of(error)}"
                raise SinkMismatch(column.path, message) from error
            if dtype.is_nested() or dtype.base_type() in {pl.Binary, pl.Duration, pl.Object, pl.Null}:
                message = f"partition column '{column.name}' has type {dtype}, which has no unambiguous text"
                raise SinkMismatch(column.path, message, "allowed: text, numbers, booleans, dates, times")
            problem = impossible(self._with_value(column), {name: schema[name] for name in column.source.meta.root_names()})
            if problem:
                message = f"partition column '{column.name}' cannot be computed: {problem}"
                raise SinkMismatch(column.path, message, "compute it in a stage before, such as `cast` or `parse`")

    @staticmethod
    def _with_value(column: _Column) -> Callable[[pl.DataFrame], pl.DataFrame]:
        return lambda row: row.with_columns(column.source.cast(pl.String).alias(column.name))

    def assign(self, frame: pl.DataFrame) -> Assignment:
        """The partition of every row.

        Never raises for data: rows whose expression fails go to ``__invalid__``. They are found by halving the frame; once
        1,024 pieces have failed, the pieces that still fail go there as they are.
        """
        if not self._columns:
            return Assignment(pl.Series(np.zeros(frame.height, np.uint32)), ("",) if frame.height else ())
        values = self._evaluate(frame)
        distinct = values.unique(maintain_order=True).with_row_index("code")
        codes = values.join(distinct, on=values.columns, how="left", nulls_equal=True, maintain_order="left")["code"]
        return self._bounded(codes, distinct.head(self.limit).drop("code"), distinct.height)

    def _bounded(self, codes: pl.Series, distinct: pl.DataFrame, total: int) -> Assignment:
        numbers: dict[str, int] = {}
        index = [numbers.setdefault(self._path(row), len(numbers)) for row in distinct.iter_rows()]
        if total > len(index):
            beyond = numbers.setdefault(self._everywhere(OVERFLOW), len(numbers))
            index.extend([beyond] * (total - len(index)))
        if len(numbers) == total:
            return Assignment(codes, tuple(numbers))
        return Assignment(pl.Series(index, dtype=pl.UInt32).gather(codes), tuple(numbers))

    def _path(self, row: tuple[object, ...]) -> str:
        *values, valid = row
        if not valid:
            return self._everywhere(INVALID)
        texts = [value if isinstance(value, str) else None for value in values]
        parts = [f"{encode_value(c.name)}={encode_value(text)}" for c, text in zip(self._columns, texts, strict=True)]
        path = "/".join(parts)
        return path if len(path) <= MAX_PATH_BYTES else self._everywhere(OVERFLOW)

    def _everywhere(self, token: str) -> str:
        return "/".join(f"{encode_value(column.name)}={token}" for column in self._columns)

    def _evaluate(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Values as text in columns "0", "1", ... and a last column ``valid``; failing rows are found by halving."""
        names = [str(index) for index in range(len(self._columns))]
        sources = [exact(column.source, frame.schema) for column in self._columns]
        wanted = [source.cast(pl.String).alias(name) for source, name in zip(sources, names, strict=True)]
        nothing = pl.DataFrame(schema={**dict.fromkeys(names, pl.String), "valid": pl.Boolean})
        waiting, done, failures = [frame], [], 0
        while waiting:
            piece = waiting.pop()
            try:
                done.append(piece.with_columns(wanted).select(*names, valid=pl.lit(value=True)))
            except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
                failures += 1
                if piece.height <= 1 or failures > _MAX_FAILURES:
                    done.append(nothing.clear(piece.height))
                else:
                    half = piece.height // 2
                    waiting += [piece.slice(half), piece.head(half)]
        return pl.concat(done)


def _column(index: int, entry: Entry) -> _Column:
    if isinstance(entry, str):
        if entry.startswith("^") and entry.endswith("$"):
            raise SinkMismatch((index,), f"partition column '{entry}' reads as a pattern", "rename the column in a stage")
        return _Column(entry, pl.col(entry), (index,))
    name, text = _only(index, entry)
    path = (index, name)
    try:
        source = pl.sql_expr(text)
        if too_deep(source):
            raise SinkMismatch(path, f"partition column '{name}': {TOO_DEEP}", TOO_DEEP_CURE)
        alone = _row_by_row(source)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        message = f"partition column '{name}': cannot read the expression {text!r}: {words_of(error)}"
        raise SinkMismatch(path, message, "write one SQL expression such as strftime(_arrival, '%Y-%m-%d')") from error
    if not source.meta.eq(source.meta.undo_aliases()):
        message = f"partition column '{name}': {source.meta.output_name()!r} at the end of {text!r} would be a name for the result"
        raise SinkMismatch(path, message, "write an operator between, or double quotes around a name with a blank")
    words = set(_WORD.findall(_QUOTED.sub(" ", text.lower())))
    if words & _CLOCK_WORDS:
        message = f"partition column '{name}': {text!r} depends on when it runs"
        raise SinkMismatch(path, message, "a rewrite must find the same partition; use _arrival, the time of arrival")
    if "over" in words or not alone:
        message = f"partition column '{name}': {text!r} looks at more than one row"
        raise SinkMismatch(path, message, "a partition is decided row by row; compute aggregates in a stage")
    return _Column(name, source, path)


def _row_by_row(source: pl.Expr) -> bool:
    """Whether each row's value depends on that row alone, or on none."""
    tree = _without_operators(json.loads(source.meta.serialize(format="json")))
    try:
        whole, *parts = (_expression(each) for each in (tree, *_parts(tree)))
    except pl.exceptions.ComputeError:
        return source.meta.is_row_separable()  # it holds a number for which JSON has no word
    facts = whole.meta
    constant = facts.is_scalar() and not facts.root_names()
    alone = not any(part.meta.is_scalar() or not part.meta.is_row_separable() for part in parts)
    return alone and facts.is_row_separable() and (facts.is_length_preserving() or constant)


def _expression(tree: Any) -> pl.Expr:
    return pl.Expr.deserialize(io.StringIO(json.dumps(tree)), format="json")


def _parts(tree: Any) -> Iterator[Any]:
    """What in the tree of an expression looks at all rows at once: ``a - MAX(a)`` has a value for each row, ``MAX(a)`` has one for all."""
    if isinstance(tree, list):
        yield from (part for each in tree for part in _parts(each))
    elif tree == "Len":
        yield tree
    elif isinstance(tree, dict):
        for key, value in tree.items():
            if key in {"Agg", "Over"} or (key == "Function" and not _expression(tree).meta.is_row_separable()):
                yield tree
            if key not in {"Literal", "Column"}:
                yield from _parts(value)


def _without_operators(tree: Any) -> Any:
    """The tree of an expression with a sum in place of each operator of SQL, such as ``%``.

    They all work row by row, but without the types of the columns, which are not known yet, Polars cannot tell.
    """
    if isinstance(tree, list):
        return [_without_operators(each) for each in tree]
    if not isinstance(tree, dict):
        return tree
    parts = {key: _without_operators(value) for key, value in tree.items()}
    function = parts.get("Function")
    if not isinstance(function, dict) or not isinstance(function["function"], dict) or "Sql" not in function["function"]:
        return parts
    first, *others = function["input"]
    for other in others:
        first = {"BinaryExpr": {"left": first, "op": "Plus", "right": other}}
    return first


def _only(index: int, entry: Mapping[str, str]) -> tuple[str, str]:
    if len(entry) != 1:
        message = f"a partition entry has one name and one expression, got {len(entry)} names"
        raise SinkMismatch((index,), message, "write one list item per partition column")
    return next(iter(entry.items()))
