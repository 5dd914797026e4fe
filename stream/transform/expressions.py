"""Expressions in a definition: Polars SQL over the columns of one row, checked before any record is read.

Nothing is evaluated as Python. Only functions of the values of one row are allowed, so that the result does not depend on where a batch
ends. Aggregates, window functions, sub-queries, clocks and random numbers are refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

import polars as pl
from polars.exceptions import InvalidOperationError, PanicException, PolarsError

from stream import arithmetic
from stream.batch import type_name
from stream.dry_run import polars_message, type_error
from stream.recorded import is_recorded
from stream.transform.patterns import MAX_REPEATED, repetitions
from stream.transform.stage import SchemaMismatch
from stream.transform.time_formats import misread_formats_in_sql
from stream.transform.types import near

FUNCTIONS: Final = frozenset(
    """
    abs acos acosd array_contains array_get array_length array_reverse array_to_string array_upper array_lower asin asind atan
    atan2 atan2d atand bit_and bit_count bit_length bit_or bit_xor cbrt ceil ceiling char_length character_length coalesce
    concat concat_ws cos cosd cot cotd date_part day degrees div ends_with exp extract floor greatest hour if ifnull initcap
    least left length ln log log10 log1p log2 lower ltrim mod month nullif octet_length pi position pow power radians
    regexp_like replace reverse right round rtrim sign sin sind split_part sqrt starts_with strftime strpos strptime substr
    substring substr tan tand trim trunc truncate upper year cast try_cast
    """.split()  # noqa: SIM905 - a list of names reads better as a paragraph
)
"""The allowed functions, by their names in Polars SQL. Each depends on the values of one row only."""

IMPURE: Final = frozenset(
    "now random rand uuid current_date current_time current_timestamp localtime localtimestamp today getdate sysdate".split()  # noqa: SIM905
)
"""Functions whose result depends on when or how often they are called."""

ACROSS_ROWS: Final = frozenset(
    """
    array_agg avg corr count covar covar_pop covar_samp first first_value lag last last_value lead max mean median min
    quantile_cont quantile_disc quantile rank dense_rank row_number std stddev stddev_samp stdev string_agg sum unnest var
    var_samp variance explode group_concat any_value
    """.split()  # noqa: SIM905 - a list of names reads better as a paragraph
)
"""Functions that look at more than one row."""

_ELSEWHERE: Final = {
    **dict.fromkeys(("to_timestamp", "to_date", "parse_timestamp", "date_parse", "str_to_date"), "strptime"),
    **dict.fromkeys(("to_char", "date_format", "format_timestamp", "format_date", "format_datetime"), "strftime"),
    **dict.fromkeys(("nvl", "isnull"), "coalesce"),
    **dict.fromkeys(("safe_cast", "try_convert"), "try_cast"),
    **dict.fromkeys(("len", "strlen"), "length"),
    "lcase": "lower",
    "ucase": "upper",
    "charindex": "strpos",
    "datepart": "date_part",
}
"""What other SQL dialects call some of the allowed functions, for a hint."""

_CLAUSES: Final = frozenset({"and", "or", "not", "in", "when", "then", "else", "between", "like", "ilike", "from", "any", "all"})
_FORBIDDEN_WORDS: Final = frozenset({"over", "select", "exists"})
_TOKEN: Final = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|--[^\n]*|/\*.*?\*/|([A-Za-z_][A-Za-z0-9_]*)(\s*\()?|;", re.DOTALL)

_RESULT: Final = "_result"
_TEXT_TO_TIME: Final = "casting from string to "
_TIME_WITH_TEXT: Final = "cannot compare 'date/datetime/time' to a string value"
_ZONES_DIFFER: Final = re.compile(
    r"comparison between series .* Datetime\(.*'UTC'\).* Datetime\('.s'\)|Datetime\('.s'\).* Datetime\(.*'UTC'\)"
)
_STRING: Final = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"")
_PIECE: Final = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|\w+|[^\w\s]")
_COMPARED_WITH_NULL: Final = re.compile(r"(?:<>|!=|=)\s*NULL\b", re.IGNORECASE)
_BY_PATTERN: Final = re.compile(r"~|\b(?:rlike|regexp|regexp_like)\b", re.IGNORECASE)
"""Functions that take a regular expression."""


def compile_expression(text: str, schema: pl.Schema, path: tuple[str | int, ...] = ()) -> tuple[pl.Expr, pl.DataType]:
    """The Polars expression for ``text`` over ``schema``, and the type of a column with its results.

    Integers are computed exactly, so a result of type ``arithmetic.WIDE`` may not fit the 64-bit column type that is returned for it.

    Raises:
        SchemaMismatch: with ``path``; syntax error, unknown column or function, types that do not go together, or something
            that depends on other rows or on the clock.
    """
    if not text.strip():
        raise SchemaMismatch(path, "the expression is empty", "write a Polars SQL expression such as `dep_delay - arr_delay`")
    for problem, hint in () if is_recorded() else _problems(text, schema):
        raise SchemaMismatch(path, f"{_quoted(text)}: {problem}", hint)
    try:
        expression = pl.sql_expr(text)
    except (PolarsError, PanicException) as error:
        problem = f"{polars_message(error)}{_unreadable_part(text)}"
        raise SchemaMismatch(path, f"{_quoted(text)} is not an expression: {problem}", _syntax_remedy(text, schema)) from error
    if arithmetic.too_deep(expression):
        raise SchemaMismatch(path, f"{_quoted(text)}: {arithmetic.TOO_DEEP}", arithmetic.TOO_DEEP_CURE)
    if _has_name_at_end(expression):
        problem = f"{expression.meta.output_name()!r} at the end would be a name for the result"
        raise SchemaMismatch(
            path, f"{_quoted(text)}: {problem}", "put an operator between the two, or write a name that contains a space in double quotes"
        )
    for name in expression.meta.root_names():
        if name not in schema:
            position = text.find(name) + 1
            known = ", ".join(schema)
            hint = near(name, list(schema)) or "write text in single quotes, column names without"
            raise SchemaMismatch(path, f"{_quoted(text)}, character {position}: no column {name!r}; there are: {known}", hint)
    try:
        result = _typed(expression, schema)
    except (PolarsError, PanicException) as error:
        types = _listed({name: schema[name] for name in expression.meta.root_names()})
        problem = polars_message(error)
        hint = remedy(problem) or (f"the columns are: {types}" if types else "")
        raise SchemaMismatch(path, f"{_quoted(text)} does not fit its columns: {_plain(problem)}", hint) from error
    _check_possible(text, expression, schema, result, path)
    exact = arithmetic.exact(expression, schema)
    try:
        return (expression, result) if exact is expression else (exact, arithmetic.narrowed(result, _typed(exact, schema)))
    except (PolarsError, PanicException):
        return expression, result  # one of its functions does not take 128-bit numbers


def compile_condition(text: str, schema: pl.Schema, path: tuple[str | int, ...]) -> pl.Expr:
    """The Polars expression for the condition ``text`` over ``schema``, which is true, false or null.

    Raises:
        SchemaMismatch: with ``path``; as ``compile_expression``, or it gives something else.
    """
    condition, result = compile_expression(text, schema, path)
    if result != pl.Boolean():
        message = f"{_quoted(text)} gives {type_name(result)}, but a condition is true or false"
        raise SchemaMismatch(path, message, "compare it with something, as in `x > 0` or `x IS NOT NULL`")
    return condition


def _has_name_at_end(expression: pl.Expr) -> bool:
    return not is_recorded() and not expression.meta.eq(expression.meta.undo_aliases())


def _check_possible(text: str, expression: pl.Expr, schema: pl.Schema, result: pl.DataType, path: tuple[str | int, ...]) -> None:
    """Refuse an expression that type-checks but would fail on every row."""
    if is_recorded():
        return
    used = {name: schema[name] for name in expression.meta.root_names()}
    found: list[pl.DataType] = []
    problem = type_error(lambda row: found.append(row.with_columns(expression.alias(_RESULT))[_RESULT].dtype), used)
    if not problem and found and found[0] != result:
        problem = f"Polars declares its result as {result}, but computes {found[0]}"
    if problem:
        raise SchemaMismatch(
            path, f"{_quoted(text)} does not fit its columns: {_plain(problem)}", remedy(problem) or f"the columns are: {_listed(used)}"
        )


def remedy(problem: str) -> str:
    """A remedy for the ``problem`` that Polars reports for an expression; empty if none is known."""
    if problem.startswith(_TEXT_TO_TIME):
        return "read text as a date or a time with the stage `cast` or `parse`"
    if _TIME_WITH_TEXT in problem or _ZONES_DIFFER.search(problem):
        return "write a day as DATE '2026-01-31', and a moment in UTC as in `name::timestamp >= TIMESTAMP '2026-01-31 12:00:00'`"
    return ""


def _plain(problem: str) -> str:
    """Polars' message, with its most frequent ones in words that do not speak of Python."""
    if _TIME_WITH_TEXT in problem:
        return "a date or time cannot be compared with text"
    if _ZONES_DIFFER.search(problem):
        return "a timestamp of a column is in UTC, and a TIMESTAMP that is written out has no zone, so they cannot be compared"
    return problem


def _syntax_remedy(text: str, schema: pl.Schema) -> str:
    """What to do about ``text``, which is no expression."""
    outside = _without_strings(text)
    curly = re.search("[\u2018\u2019\u201c\u201d]", outside)
    if curly is not None:
        return f"character {curly.start() + 1} is a typographic quote; write text in straight single quotes"
    for symbol, word in (("&&", "AND"), ("?", "CASE WHEN ... THEN ... ELSE ... END")):
        if symbol in outside:
            return f"write {word} in place of {symbol}"
    for name in re.findall(r"[A-Za-z_][A-Za-z0-9_]*", outside):
        if name in schema and not _is_expression(name):
            return f"`{name}` is also a word of SQL: write the column in double quotes, as in '\"{name}\" IS NOT NULL'"
    if '"' in text:
        return "write text in single quotes, column names without"
    return "check commas, brackets and quotes"


def _unreadable_part(text: str) -> str:
    """Where ``text`` stops being an expression: behind the longest part from its beginning that is one; empty if there is none."""
    for end in [each.end() for each in _PIECE.finditer(text)][-2::-1]:
        if _is_expression(text[:end]):
            rest = text[end:].lstrip()
            return f"; {_quoted(text[:end])} can be read, and `{rest}`, from character {len(text) - len(rest) + 1}, cannot follow it"
    return ""


def _is_expression(text: str) -> bool:
    try:
        pl.sql_expr(text)
    except (PolarsError, PanicException):
        return False
    return True


def _listed(columns: Mapping[str, pl.DataType]) -> str:
    return ", ".join(f"{name} {type_name(kind)}" for name, kind in columns.items())


def _typed(expression: pl.Expr, schema: pl.Schema) -> pl.DataType:
    if arithmetic.angles_of_objects(expression, schema):
        msg = "atan2 takes numbers, no objects"
        raise InvalidOperationError(msg)
    result = pl.LazyFrame(schema=schema).select(expression.alias("result")).collect_schema()["result"]
    schema.to_frame().select(expression.alias("result"))
    return result


def _problems(text: str, schema: pl.Schema) -> Iterator[tuple[str, str]]:
    """Problems found before Polars parses the text, as (problem, hint)."""
    yield from misread_formats_in_sql(text)
    yield from _compared_with_null(text)
    by_pattern = _BY_PATTERN.search(text) is not None
    for match in _TOKEN.finditer(text):
        if by_pattern and match.group().startswith("'") and repetitions(match.group()) > MAX_REPEATED:
            problem = f"character {match.start() + 1}: its counted repetitions expand to more than {MAX_REPEATED} characters"
            yield problem, "write * or + in place of a large {n}, and check the length separately, as with char_length()"
        if match.group() == ";":
            yield f"character {match.start() + 1}: unexpected ';'", "write one expression, without a semicolon"
        if match.group(1) is None:
            continue
        word, called = match.group(1).lower(), match.group(2) is not None
        at = f"character {match.start() + 1}"
        if word in IMPURE and (called or match.group(1) not in schema):
            yield (
                f"{at}: {word} gives a different result each time",
                "use the column _arrival for the time a record reached the stream",
            )
        elif word in _FORBIDDEN_WORDS and match.group(1) not in schema:
            yield f"{at}: {word.upper()} looks at more than one row", "an expression may only use the values of one row"
        elif called and word in ACROSS_ROWS:
            yield f"{at}: {word} looks at more than one row", "an expression may only use the values of one row"
        elif called and word in FUNCTIONS and word != "pi" and re.match(r"\s*\)", text[match.end() :]):
            yield f"{at}: {word}() needs a value", f"write its argument inside the brackets, as in {word}(column)"
        elif called and word not in FUNCTIONS and word not in _CLAUSES and not _is_type(word):
            hint = near(word, sorted(FUNCTIONS), _ELSEWHERE) or f"known functions: {', '.join(sorted(FUNCTIONS))}"
            yield f"{at}: unknown function {word!r}", hint


def _compared_with_null(text: str) -> Iterator[tuple[str, str]]:
    for match in _COMPARED_WITH_NULL.finditer(_without_strings(text)):
        yield f"character {match.start() + 1}: a comparison with NULL is never true", "write `x IS NULL` or `x IS NOT NULL`"


def _without_strings(text: str) -> str:
    """``text`` with blanks in place of everything in quotes, so that positions stay."""
    return _STRING.sub(lambda match: " " * len(match.group()), text)


def _is_type(word: str) -> bool:
    """Whether ``word`` names a SQL type that takes arguments, as in ``CAST(x AS DECIMAL(12, 2))``."""
    return word in {"decimal", "numeric", "dec", "varchar", "char", "character", "float", "array"}


def _quoted(text: str) -> str:
    shown = " ".join(text.split())
    return f"`{shown if len(shown) <= 80 else shown[:77] + '...'}`"
