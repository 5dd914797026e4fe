"""One SQL query over tables in memory. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Final

import polars as pl
from polars.exceptions import PanicException, PolarsError

from stream.dry_run import polars_message
from stream.errors import DefinitionError
from stream.transform.origins import without_comments
from stream.transform.stages.sql import angle_of_object, words_of
from stream.transform.types import near

_READS_FILES: Final = re.compile(r"(read|scan)_[a-z]+", re.IGNORECASE)
"""Table functions with which Polars reads other files than those of the pipeline."""


def tables_of(query: str, known: Sequence[str]) -> frozenset[str]:
    """Which of the tables ``known`` the query names.

    Raises:
        DefinitionError: it is no query that only reads these, or it names none of them.
    """
    text = without_comments(query).strip().removesuffix(";")
    words = [word for word, _, _ in words_of(text)]
    if not words or words[0].lower() not in {"select", "with"}:
        msg = f"a query begins with SELECT or WITH; this one begins with {words[0] if words else 'nothing'!r}"
        raise DefinitionError(msg)
    if ";" in re.sub(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"", "", text):
        msg = "a query is one statement: remove what follows the ';'"
        raise DefinitionError(msg)
    called = next((word for word, is_called, _ in words_of(text) if is_called and _READS_FILES.fullmatch(word)), None)
    if called is not None:
        msg = f"{called}() reads other files; a query reads {' and '.join(known)}"
        raise DefinitionError(msg)
    found = frozenset(known) & {word.lower() for word in words}
    if not found:
        msg = f"the query reads no table: write FROM {known[0]}, or FROM {known[1]}"
        raise DefinitionError(msg)
    return found


def run_query(query: str, tables: Mapping[str, Sequence[pl.LazyFrame]], most: int) -> pl.DataFrame:
    """The result of ``query``, which ``tables_of`` has accepted; each table is given in parts, at least one.

    Raises:
        DefinitionError: it does not fit the tables, fails on a value, or has more than ``most`` rows.
    """
    try:
        whole = {name: _joined(parts) for name, parts in tables.items()}
        schemas = {name: table.collect_schema() for name, table in whole.items()}
    except (PolarsError, PanicException) as error:
        msg = f"the columns of files of different definitions do not fit together: {polars_message(error)}; leave some out with --since"
        raise DefinitionError(msg) from error
    empty = {name: schema.to_frame().lazy() for name, schema in schemas.items()}
    try:
        if angle_of_object(query, lambda text: _lazy(text, empty).collect()):
            msg = "atan2 takes numbers, no objects: name fields of the object, as in `atan2(o.y, o.x)`"
            raise DefinitionError(msg)
        result = _lazy(query, whole).head(most + 1).collect()
    except (PolarsError, PanicException) as error:
        raise DefinitionError(_explained(polars_message(error), query, schemas)) from error
    if result.height > most:
        msg = f"the result has more than {most:,} rows: aggregate them, add a LIMIT, or raise --max-rows"
        raise DefinitionError(msg)
    return result


def _joined(parts: Sequence[pl.LazyFrame]) -> pl.LazyFrame:
    """The parts as one table. A column that is not of the same kind in all of them is text: Polars would make numbers of dates."""
    kinds: dict[str, set[pl.DataType]] = {}
    schemas = [part.collect_schema() for part in parts]
    for schema in schemas:
        for name, kind in schema.items():
            kinds.setdefault(name, set()).add(kind)
    text = {name for name, found in kinds.items() if _differ(found - {pl.Null()})}
    same = [part.with_columns(pl.col(name).cast(pl.String) for name in text & set(of)) for part, of in zip(parts, schemas, strict=True)]
    return pl.concat(same, how="diagonal_relaxed")


def _differ(kinds: Collection[pl.DataType]) -> bool:
    plain = not any(kind.is_nested() for kind in kinds) and not all(kind.is_numeric() for kind in kinds)
    return plain and len({kind.base_type() for kind in kinds}) > 1


def _lazy(query: str, tables: Mapping[str, pl.LazyFrame]) -> pl.LazyFrame:
    with pl.SQLContext(frames=tables, eager=False) as context:
        found: pl.LazyFrame = context.execute(query.strip().removesuffix(";"))
        return found


def _explained(said: str, query: str, schemas: Mapping[str, pl.Schema]) -> str:
    """Polars' message with what there is, and with what was probably meant in place of a name that there is not."""
    columns = {name for schema in schemas.values() for name in schema}
    unknown = next((word for word, called, _ in words_of(query) if not called and word in said and word not in columns), None)
    hint = near(unknown, sorted(columns)) if unknown is not None else ""
    there = "; ".join(f"{name} has the columns {', '.join(schema)}" for name, schema in schemas.items())
    return f"the query fails: {said.partition('; valid columns')[0]}{f' - {hint}' if hint else ''}\n{there}"
