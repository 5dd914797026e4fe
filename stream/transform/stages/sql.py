"""A query over the batch."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import ClassVar, Final

import polars as pl
from polars.exceptions import PanicException, PolarsError
from pydantic import Field, field_validator

from stream.batch import ROW
from stream.dry_run import polars_message, type_error
from stream.recorded import is_recorded
from stream.transform.expressions import ACROSS_ROWS, FUNCTIONS, IMPURE, remedy
from stream.transform.origins import BATCH, MIXES, query_origins, without_comments
from stream.transform.row_numbers import first_indexes, has_one_row_per_record
from stream.transform.shorthands import text_for
from stream.transform.stage import Applied, BoundStage, Example, Resources, SchemaMismatch, StageConfig
from stream.transform.stages.common import refuse_system
from stream.transform.time_formats import misread_formats_in_sql
from stream.transform.types import SYSTEM, near

_ANGLE: Final = re.compile(r"\batan2d?(?=\s*\()|\"atan2d?\"(?=\s*\()", re.IGNORECASE)
_REFUSES_OBJECTS: Final = "power"
"""Takes as many numbers as ``atan2``. Given an object, it raises an error; ``atan2`` ends the process with a segmentation fault."""
_OF_OBJECT: Final = "for dtype `struct"

_QUOTED: Final = re.compile(r"('(?:[^']|'')*')")
_TOKEN: Final = re.compile(r"'(?:[^']|'')*'|(?:([A-Za-z_][A-Za-z0-9_]*)|\"((?:[^\"]|\"\")*)\")(\s*\()?|;", re.DOTALL)
_CLAUSES: Final = frozenset(
    """
    select from where join on using in over by as exists values filter and or not union all any except exclude intersect with having
    when then else case between like distinct partition order group qualify window rename decimal numeric varchar char float array if
    """.split()  # noqa: SIM905 - a list of names reads better as a paragraph
)
"""Words that may stand before a bracket without being a function."""

_UNORDERED: Final = frozenset({"limit", "offset", "fetch", "top", "tablesample", "sample"})
_BEYOND_ONE_ROW: Final = frozenset(
    "join over distinct group having union intersect except with order exists qualify window unnest".split()  # noqa: SIM905
)


class Sql(StageConfig):
    """Run a Polars SQL query over the rows, which are called `batch`, and over reference tables.

    The result must contain `_row` unchanged from `batch` (`SELECT *` does): it shows to which record each row belongs. Rows may be
    left out, but not duplicated; they come out in the order of the stream, whatever the query says, with their lineage. A query with joins,
    groups or windows sees one unit at a time, so its result depends on where units end; if it fails, the unit's rows are rejected.
    Unlike in expressions, integers that do not fit their type wrap around, parts of dates have 8 bits, and division by a constant may be
    wrong in the last digit: write `CAST(month(day) AS BIGINT) * 100`, or derive such columns in an earlier stage.
    """

    name: ClassVar[str] = "sql"
    row_wise: ClassVar[bool] = False
    example: ClassVar[Example] = Example(
        config={
            "query": "SELECT b.*, a.name AS airline FROM batch b LEFT JOIN airlines a ON a.carrier = b.carrier WHERE b.flight > 0",
            "tables": {"airlines": "reference/airlines.parquet"},
        },
        given=[{"carrier": "UA", "flight": 1545}, {"carrier": "ZZ", "flight": 1}, {"carrier": "AA", "flight": 0}],
        expect=[{"carrier": "UA", "flight": 1545, "airline": "United Air Lines Inc."}, {"carrier": "ZZ", "flight": 1, "airline": None}],
    )

    query: str = Field(min_length=1, description="One SELECT over `batch`, whose result keeps `_row`.")
    tables: Mapping[str, str] = Field(default={}, description="Reference tables, each a URL or path, by their names in the query.")

    _short_form = text_for("query")

    @field_validator("tables")
    @classmethod
    def _table_names(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        for name in value:
            if name.lower() in BATCH or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
                msg = f"{name!r} cannot name a table; use a word other than batch and self"
                raise ValueError(msg)
        return value

    def table_urls(self) -> tuple[str, ...]:
        """The tables, each once."""
        return tuple(dict.fromkeys(self.tables.values()))

    def divisible(self) -> bool:
        """Whether the query clearly looks at one row at a time."""
        words = [word.lower() for word, _, _ in words_of(self.query)]
        called = {word.lower() for word, is_called, _ in words_of(self.query) if is_called}
        return not (called & ACROSS_ROWS or _BEYOND_ONE_ROW & set(words) or words.count("select") > 1 or self.tables)

    def output(self, schema: pl.Schema, resources: Resources) -> pl.Schema:
        """The system columns, then the query's in its order."""
        for problem, hint in () if is_recorded() else _problems(self.query, schema):
            raise SchemaMismatch(("query",), problem, hint)
        if self._angle_of_object(schema, resources):
            raise SchemaMismatch(("query",), "atan2 takes numbers, no objects", "name fields of the object, as in `atan2(o.y, o.x)`")
        try:
            result = self._run(schema.to_frame(), self._given(resources)).schema
        except (PolarsError, PanicException) as error:
            message = f"the query does not fit its columns: {polars_message(error)}"
            raise SchemaMismatch(("query",), message, f"`batch` has: {', '.join(schema)}") from error
        if not is_recorded() and self._guesses(schema, resources):
            message = "text is cast to a date or a time, and Polars guesses its format from the first value of the batch"
            raise SchemaMismatch(("query",), message, "use the stage `cast` or `parse`, or strptime(text, '%Y-%m-%d')")
        if not is_recorded() and (problem := self._impossible(schema, resources, result)):
            raise SchemaMismatch(
                ("query",), f"the query does not fit its columns: {problem}", remedy(problem) or f"`batch` has: {', '.join(schema)}"
            )
        if result.get(ROW) != schema[ROW]:
            message = "the result has no column `_row`, so nothing says to which record its rows belong"
            raise SchemaMismatch(("query",), message, "select `_row` as it is, or `*`; a group may take MIN(_row) AS _row")
        for name in result:
            if name not in SYSTEM:
                refuse_system(name, ("query",))
        return pl.Schema({**{name: schema[name] for name in SYSTEM}, **{name: kind for name, kind in result.items() if name not in SYSTEM}})

    def origins(self, before: pl.Schema, after: pl.Schema) -> Mapping[str, frozenset[str]]:
        """See ``query_origins``."""
        return query_origins(self.query, before, after, joins=bool(self.tables))

    def _angle_of_object(self, schema: pl.Schema, resources: Resources) -> bool:
        """Whether ``atan2`` gets an object, which nothing may compute."""
        given = self._given(resources)
        return angle_of_object(self.query, lambda query: self._lazy(schema.to_frame(), given, query).collect(engine="in-memory"))

    def _guesses(self, schema: pl.Schema, resources: Resources) -> bool:
        """Whether the query lets Polars guess the format of a date or a time."""
        if any(word.lower() == "strptime" for word, _, _ in words_of(self.query)):
            return False
        return "str.strptime(" in self._lazy(schema.to_frame(), self._given(resources)).explain()

    def _impossible(self, schema: pl.Schema, resources: Resources, declared: pl.Schema) -> str:
        """Why the query would fail on every row; empty if it would not."""
        found: list[pl.Schema] = []
        problem = type_error(lambda row: found.append(self._run(row, self._given(resources)).schema), schema)
        wrong = [
            (f"{name} as {kind}, but computes {found[0].get(name)}")
            for name, kind in declared.items()
            if found and found[0].get(name) != kind
        ]
        return f"Polars declares {wrong[0]}" if wrong else problem

    def _given(self, resources: Resources) -> dict[str, pl.DataFrame]:
        for name, url in self.tables.items():
            if url not in resources.tables:
                raise SchemaMismatch(("tables", name), f"table {url!r} is not loaded", "check that the file exists")
        return {name: resources.tables[url] for name, url in self.tables.items()}

    def _lazy(self, frame: pl.DataFrame, tables: Mapping[str, pl.DataFrame], query: str = "") -> pl.LazyFrame:
        with pl.SQLContext(frames={**tables, **dict.fromkeys(BATCH, frame)}, eager=False) as context:
            result: pl.LazyFrame = context.execute(query or self.query)
            return result

    def _run(self, frame: pl.DataFrame, tables: Mapping[str, pl.DataFrame], names: Sequence[str] | None = None) -> pl.DataFrame:
        """The query's result, or only the columns ``names``, so that the others are not computed."""
        result = self._lazy(frame, tables)
        # For a batch in memory Polars' streaming engine, the default, takes twice as long to join.
        return (result if names is None else result.select(names)).collect(engine="in-memory")

    def _keeps_lineage(self, schema: pl.Schema, tables: Mapping[str, pl.DataFrame]) -> bool:
        """Whether the query clearly returns the system columns of each row: by a ``*``, with nothing that could replace them."""
        words = [word.lower() for word, _, _ in words_of(self.query)]
        if words.count("select") > 1 or sum(words.count(name) for name in BATCH) > 1 or set(words) & (MIXES | set(SYSTEM)):
            return False
        if any(name in table.columns for table in tables.values() for name in SYSTEM):
            return False
        result = self._run(schema.to_frame(), tables).schema
        return all(result.get(name) == schema[name] for name in SYSTEM)

    def bind(self, schema: pl.Schema, resources: Resources) -> BoundStage:
        """A function that runs the query, restores the order of the stream, and adds the lineage columns."""
        tables = self._given(resources)
        names = list(self.output(schema, resources))
        user = [name for name in names if name not in SYSTEM]
        ordered, keeps_lineage = self.divisible(), self._keeps_lineage(schema, tables)
        asked = names if keeps_lineage else [ROW, *user]

        def apply(frame: pl.DataFrame) -> Applied:
            result = self._run(frame, tables, asked)
            if not ordered and not has_one_row_per_record(frame[ROW]):
                # A join promises no order among the rows of one record; their values do, so that a repeated unit is the same.
                result = result.sort(ROW, *user, maintain_order=True)
            elif not result[ROW].is_sorted():
                result = result.sort(ROW, maintain_order=True)
            return Applied(result if keeps_lineage else _with_lineage(result, frame).select(names))

        return apply


def _with_lineage(result: pl.DataFrame, frame: pl.DataFrame) -> pl.DataFrame:
    """``result``, whose ``_row`` ascends, with the system columns of those rows of ``frame``; null where there is no such row."""
    if result[ROW].equals(frame[ROW]):
        return result.drop(ROW).hstack(frame.select(SYSTEM))
    places = None if result[ROW].null_count() else first_indexes(frame[ROW], result[ROW])
    if places is None:
        origin = frame.select(SYSTEM).unique(ROW, keep="first", maintain_order=True)
        return result.join(origin, on=ROW, how="left", maintain_order="left")
    return result.drop(ROW).hstack(frame.select(SYSTEM)[places])


def angle_of_object(query: str, compute: Callable[[str], object]) -> bool:
    """Whether ``atan2`` gets an object in ``query``, for which Polars would end the process. ``compute`` runs a query over no rows."""
    harmless = "".join(part if part.startswith("'") else _ANGLE.sub(_REFUSES_OBJECTS, part) for part in _pieces(query))
    if harmless == without_comments(query):
        return False
    try:
        compute(harmless)
    except (PolarsError, PanicException) as error:
        return _OF_OBJECT in str(error)
    return False


def _pieces(query: str) -> Iterator[str]:
    """The query without comments, split before and after each quoted text."""
    return iter(_QUOTED.split(without_comments(query)))


def words_of(query: str) -> Iterator[tuple[str, bool, int]]:
    """Each word outside of quoted text and comments, whether a bracket follows, and where it stands, from 1."""
    for match in _TOKEN.finditer(without_comments(query)):
        word = match.group(1) or match.group(2)
        if word is not None:
            yield word, match.group(3) is not None, match.start() + 1


def _problems(query: str, schema: pl.Schema) -> Iterator[tuple[str, str]]:
    words = list(words_of(query))
    if not words or words[0][0].lower() not in {"select", "with"}:
        yield "a query begins with SELECT or WITH", "write one SELECT over `batch`"
    if any(match.group() == ";" for match in _TOKEN.finditer(without_comments(query))):
        yield "a query is one statement, without ';'", "remove the semicolon"
    yield from misread_formats_in_sql(query)
    allowed = FUNCTIONS | ACROSS_ROWS
    for word, called, at in words:
        name = word.lower()
        if name in IMPURE and (called or word not in schema):
            yield f"character {at}: {name} gives a different result each time", "use the column _arrival for the time a record arrived"
        elif name in _UNORDERED and word not in schema:
            yield (
                f"character {at}: {name.upper()} picks rows by an order that is not fixed",
                "filter, or use ROW_NUMBER() OVER (... ORDER BY ...)",
            )
        elif called and name not in allowed and name not in _CLAUSES:
            yield f"character {at}: unknown function {word!r}", near(name, sorted(allowed)) or f"known: {', '.join(sorted(allowed))}"
