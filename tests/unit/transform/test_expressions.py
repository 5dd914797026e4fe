import polars as pl
import pytest

from stream.transform.expressions import ACROSS_ROWS, FUNCTIONS, IMPURE, compile_expression
from stream.transform.stage import SchemaMismatch

SCHEMA = pl.Schema(
    {
        "a": pl.Int64(),
        "s": pl.String(),
        "f": pl.Float64(),
        "time_hour": pl.Datetime("us", "UTC"),
        "now": pl.Int64(),
        "order": pl.Int64(),
        "_shard": pl.String(),
    }
)
FRAME = pl.DataFrame(
    {
        "a": [1, None, 3],
        "s": ["x", "yy", None],
        "f": [1.26, 2.5, None],
        "time_hour": [0, 2_678_400_000_000, None],
        "now": [1, 2, 3],
        "order": [1, 2, 3],
        "_shard": ["s"] * 3,
    },
    schema=SCHEMA,
)


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        ("strftime(time_hour, '%Y-%m')", pl.String(), ["1970-01", "1970-02", None]),
        ("a IS NOT NULL", pl.Boolean(), [True, False, True]),
        ("a * 2 + 1", pl.Int64(), [3, None, 7]),
        ("CASE WHEN a > 1 THEN 'big' ELSE s END", pl.String(), ["x", "yy", "big"]),
        ("s LIKE 'y%'", pl.Boolean(), [False, True, None]),
        ("COALESCE(a, 0)", pl.Int64(), [1, 0, 3]),
        ("ROUND(f, 1)", pl.Float64(), [1.3, 2.5, None]),
        ("CAST(a AS VARCHAR)", pl.String(), ["1", None, "3"]),
        ("a IN (1, 2) AND NOT (s = 'now()')", pl.Boolean(), [True, None, False]),
        ("now + 1", pl.Int64(), [2, 3, 4]),
        ("_shard || '/' || s", pl.String(), ["s/x", "s/yy", None]),
        ('"a" -- sum(a) is a comment', pl.Int64(), [1, None, 3]),
        (" OR ".join(f"a = {n}" for n in range(3, 150)), pl.Boolean(), [False, None, True]),
        (f"a IN ({', '.join(map(str, range(2, 5000)))})", pl.Boolean(), [False, None, True]),
    ],
)
def test_expressions_have_the_meaning_of_sql(text, kind, expected):
    expression, result = compile_expression(text, SCHEMA)
    assert result == kind
    assert FRAME.select(expression.alias("r"))["r"].to_list() == expected


@pytest.mark.parametrize(
    ("text", "says", "hint"),
    [
        ("dep_tme + 1", "character 1: no column 'dep_tme'", "single quotes"),
        ("1 + time_hou", "character 5: no column 'time_hou'", "time_hour"),
        ("uper(s)", "character 1: unknown function 'uper'", "upper"),
        ("to_timestamp(s)", "character 1: unknown function 'to_timestamp'", "did you mean 'strptime'?"),
        ("DATE_FORMAT(time_hour, 'yyyy')", "character 1: unknown function 'date_format'", "did you mean 'strftime'?"),
        ("a +", "is not an expression: it cannot be parsed; `a` can be read, and `+`, from character 3, cannot follow it", "brackets"),
        ("s = 'a b' AND a IS NOT NUL", "`s = 'a b' AND a` can be read, and `IS NOT NUL`, from character 17, cannot", "brackets"),
        ("(a", "`(a` is not an expression: it cannot be parsed", "brackets"),
        ('strftime(time_hour, "%Y")', '"%Y" in double quotes is the name of a column, and text is needed there', "text in single quotes"),
        ("sum(a)", "sum looks at more than one row", "one row"),
        ("row_number() OVER (ORDER BY a)", "more than one row", "one row"),
        ("(SELECT 1)", "SELECT looks at more than one row", ""),
        ("random()", "a different result each time", "_arrival"),
        ("a > current_timestamp", "a different result each time", "_arrival"),
        ("now()", "a different result each time", ""),
        ("a; a", "unexpected ';'", ""),
        ("a, s", "is not an expression", ""),
        ("a s", "'s' at the end would be a name", "an operator between"),
        ("a > 1 AS b", "'b' at the end would be a name", ""),
        ("greatest()", "greatest() needs a value", ""),
        ("strftime(s, '%Y')", "does not fit its columns", "s string"),
        ("time_hour > '2013'", "a date or time cannot be compared with text", "DATE '2026-01-31'"),
        ("time_hour > TIMESTAMP '2013-01-01 00:00:00'", "in UTC, and a TIMESTAMP that is written out has no zone", "name::timestamp"),
        ("a > 1 && a < 3", "is not an expression", "write AND in place of &&"),
        ("a > 1 ? a : 0", "is not an expression", "CASE WHEN"),
        ("s = \u2018x\u2019", "is not an expression", "character 5 is a typographic quote"),
        ("order > 1", "is not an expression", "`order` is also a word of SQL: write the column in double quotes"),
        ("a = NULL", "character 3: a comparison with NULL is never true", "IS NULL"),
        ("s = 'NULL' OR a <> null", "character 17: a comparison with NULL is never true", "IS NOT NULL"),
        ("  ", "is empty", ""),
        ("CAST(s AS DATE)", "casting from string to date is not supported", "the stage `cast`"),
        ("TRY_CAST(s AS TIMESTAMP) IS NULL", "casting from string to datetime is not supported", "the stage `cast`"),
        ("CAST(s AS BOOLEAN)", "does not fit its columns: casting from", "s string"),
        ("split_part(a, '/', 1)", "does not fit its columns", "a int64"),
        ("strptime(s, '%F %T.%f')", "character 1: %f reads nanoseconds", "use %.f"),
        ("strptime(upper(s) , '%F %Z') > time_hour", "character 1: %Z skips the name of a zone", "use %z"),
        (" OR ".join(f"a = {n}" for n in range(300)), "too many nested operations", "IN (1, 2, 3)"),
        ("+".join(["a"] * 3000), "too many nested operations", ""),
        ("sqrt(s)", "Polars declares its result as String, but computes Float64", "s string"),
    ],
)
def test_an_invalid_expression_is_refused_with_a_hint(text, says, hint):
    with pytest.raises(SchemaMismatch) as caught:
        compile_expression(text, SCHEMA, ("where",))
    assert says in caught.value.message
    assert hint in caught.value.hint
    assert caught.value.path == ("where",)


@pytest.mark.parametrize("text", ["atan2(o, f)", "atan2d(o, o)", "1 + atan2(coalesce(o, o), f)", "coalesce(atan2(f, o), 0)"])
def test_atan2_of_an_object_which_would_crash_polars_is_refused(text):
    """Polars 1.x answers to the first of them with a segmentation fault, so before it can."""
    with pytest.raises(SchemaMismatch, match="atan2 takes numbers, no objects") as caught:
        compile_expression(text, pl.Schema({"o": pl.Struct({"a": pl.Int64}), "f": pl.Float64}))
    assert "o object{a: int64}" in caught.value.hint


def test_what_the_hints_about_times_and_words_of_sql_suggest_works():
    for text in (
        "time_hour >= DATE '2026-01-31'",
        "time_hour::timestamp >= TIMESTAMP '2026-01-31 12:00:00'",
        '"order" > 1',
        "s = 'a = NULL'",
    ):
        assert compile_expression(text, SCHEMA)[1] == pl.Boolean()


def test_atan2_of_fields_of_objects_works():
    schema = pl.Schema({"o": pl.Struct({"a": pl.Int64}), "f": pl.Float64})
    expression, kind = compile_expression("atan2(o.a, f)", schema)
    assert (kind, pl.DataFrame({"o": [{"a": 0}], "f": [1.0]}, schema=schema).select(expression).item()) == (pl.Float64(), 0.0)


@pytest.mark.parametrize(
    "text",
    ["CAST(s AS BIGINT)", "strptime(s, '%Y-%m-%d')", "strftime(time_hour, '%f %Z')", "CAST(f AS TINYINT)", "a / 0", "CAST(a AS DATE)"],
)
def test_an_expression_that_fails_only_for_some_values_is_accepted(text):
    compile_expression(text, SCHEMA)


def test_the_three_lists_of_functions_do_not_overlap():
    assert not FUNCTIONS & IMPURE
    assert not FUNCTIONS & ACROSS_ROWS
    assert not IMPURE & ACROSS_ROWS
