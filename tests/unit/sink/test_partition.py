from urllib.parse import unquote

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.sink.partition import (
    EMPTY,
    INVALID,
    MAX_PATH_BYTES,
    NULL,
    OVERFLOW,
    Folders,
    Partitioning,
    SinkMismatch,
    encode_value,
    values_in,
)

NASTY = [
    "../x",
    "",
    "..",
    ".",
    "__HIVE_DEFAULT_PARTITION__",
    "__EMPTY__",
    "__overflow__",
    "a/b",
    "a=b",
    "\x00",
    "\u202e",
    "%2E",
    "~",
    "é",
]
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=200) | st.sampled_from(NASTY)
LONG_TEXT = st.integers(100, 2000).flatmap(lambda size: st.sampled_from("aé%/").map(lambda char: char * size))
VALUE = st.none() | ANY_TEXT | LONG_TEXT


@given(VALUE)
@settings(max_examples=300)
def test_a_directory_name_is_one_safe_path_segment(value):
    name = encode_value(value)
    assert name
    assert len(name) <= 137
    assert set(name) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-%")
    assert name not in {".", ".."}


@given(st.lists(VALUE, unique=True, min_size=2, max_size=20))
@settings(max_examples=200)
def test_different_values_have_different_names(values):
    assert len({encode_value(value) for value in values}) == len(values)


@given(ANY_TEXT.filter(lambda text: 0 < len(text.encode()) <= 40))
def test_short_values_read_back_by_percent_decoding(value):
    assert unquote(encode_value(value)) == value


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (None, NULL),
        ("", EMPTY),
        (NULL, "%5F_HIVE_DEFAULT_PARTITION__"),
        ("..", "%2E."),
        (".", "%2E"),
        ("2013-01", "2013-01"),
        ("../x", "..%2Fx"),
        ("a b~", "a%20b%7E"),
    ],
)
def test_values_have_the_expected_names(value, name):
    assert encode_value(value) == name


def test_long_values_that_differ_only_at_the_end_have_different_names():
    one, other = encode_value("x" * 2000 + "a"), encode_value("x" * 2000 + "b")
    assert one != other
    assert one.startswith("x" * 88 + "__sha256-")


@pytest.mark.parametrize("lead", [85, 86, 87, 88])
def test_truncation_never_cuts_an_escape(lead):
    name = encode_value("x" * lead + "é" * 50)
    assert "%" not in unquote(name, errors="replace").replace("\ufffd", "")


def paths_of(partitioning, frame):
    assigned = partitioning.assign(frame)
    return [assigned.paths[code] for code in assigned.codes]


def test_the_path_is_evaluated_per_row_and_not_per_batch():
    frame = pl.DataFrame({"tenant": ["a", "b", "a", None]})
    assert paths_of(Partitioning(["tenant"]), frame) == ["tenant=a", "tenant=b", "tenant=a", f"tenant={NULL}"]


def test_columns_and_expressions_combine():
    frame = pl.DataFrame({"n": [1, 12], "Ort am See": ["x", "y"]})
    partitioning = Partitioning(["Ort am See", {"big": "n > 10"}])
    assert paths_of(partitioning, frame) == ["Ort%20am%20See=x/big=false", "Ort%20am%20See=y/big=true"]


def test_integer_arithmetic_in_a_path_is_exact():
    frame = pl.DataFrame({"month": [12, 1], "gone": [7, 1]}, schema={"month": pl.Int8(), "gone": pl.UInt16()})
    partitions = Partitioning([{"key": "month * 100 + month"}, {"left": "month - gone - gone"}])
    assert partitions.assign(frame).paths == ("key=1212/left=-2", "key=101/left=-1")


def test_partitions_over_the_limit_share_one_directory_that_no_value_can_name():
    frame = pl.DataFrame({"k": ["a", "b", OVERFLOW, "c", "d", "a"]})
    found = paths_of(Partitioning(["k"], limit=3), frame)
    assert found == ["k=a", "k=b", "k=%5F_overflow__", f"k={OVERFLOW}", f"k={OVERFLOW}", "k=a"]


def test_exactly_the_limit_does_not_overflow():
    assert paths_of(Partitioning(["k"], limit=2), pl.DataFrame({"k": ["a", "b"]})) == ["k=a", "k=b"]


def test_a_row_without_a_value_goes_to_its_own_directory_and_affects_no_other_row():
    frame = pl.DataFrame({"t": ["1", "x", "3", "4", "oops", "6"]})
    found = paths_of(Partitioning([{"n": "CAST(t AS INT)"}]), frame)
    assert found == ["n=1", f"n={INVALID}", "n=3", "n=4", f"n={INVALID}", "n=6"]


def test_a_path_too_long_for_a_key_overflows():
    names = [f"c{index}" for index in range(5)]
    frame = pl.DataFrame({name: ["é" * 200, "a"] for name in names})
    found = paths_of(Partitioning(names), frame)
    assert found[0] == "/".join(f"{name}={OVERFLOW}" for name in names)
    assert len(found[1]) <= MAX_PATH_BYTES


def test_without_partition_columns_there_is_no_directory():
    assert paths_of(Partitioning([]), pl.DataFrame({"k": [1, 2]})) == ["", ""]


@given(st.lists(st.tuples(VALUE, VALUE), min_size=1, max_size=30))
@settings(max_examples=100)
def test_rows_share_a_path_if_and_only_if_they_share_their_values(pairs):
    frame = pl.DataFrame(pairs, schema={"a": pl.String, "b": pl.String}, orient="row")
    found = paths_of(Partitioning(["a", "b"]), frame)
    overflow = f"a={OVERFLOW}/b={OVERFLOW}"
    for one, path in zip(pairs, found, strict=True):
        for other, other_path in zip(pairs, found, strict=True):
            assert (one == other) == (path == other_path) or overflow in {path, other_path}


@pytest.mark.parametrize(
    ("entries", "path", "says"),
    [
        ([{"d": "strftime("}], (0, "d"), "cannot read the expression"),
        ([{"d": "MAX(n)"}], (0, "d"), "more than one row"),
        ([{"d": "ROW_NUMBER() OVER ()"}], (0, "d"), "more than one row"),
        ([{"d": "RANK() OVER (ORDER BY n)"}], (0, "d"), "more than one row"),
        ([{"d": "SUM(n) over ()"}], (0, "d"), "more than one row"),
        ([{"d": "UNNEST(n)"}], (0, "d"), "more than one row"),
        ([{"d": "CURRENT_DATE"}], (0, "d"), "depends on when it runs"),
        ([{"d": "strftime(Now(), '%Y')"}], (0, "d"), "depends on when it runs"),
        ([{"d": "COALESCE(t, current_timestamp)"}], (0, "d"), "depends on when it runs"),
        ([{"d": "(SELECT 1)"}], (0, "d"), "cannot read the expression"),
        ([{"d": "n IN (SELECT 1)"}], (0, "d"), "cannot read the expression"),
        ([{"d": "COLUMNS('n')"}], (0, "d"), "cannot read the expression"),
        ([{"d": " OR ".join(["n = 1"] * 300)}], (0, "d"), "too many nested operations"),
        ([{"d": "n s"}], (0, "d"), "'s' at the end of 'n s' would be a name"),
        ([{"d": "strftime(_arrival, '%Y') AS y"}], (0, "d"), "'y' at the end"),
        (["n", "n"], (1,), "listed twice"),
        ([{"a": "n", "b": "n"}], (0,), "one name and one expression"),
        (["^.*$"], (0,), "pattern"),
    ],
)
def test_unreadable_entries_are_refused_with_their_position(entries, path, says):
    with pytest.raises(SinkMismatch, match=says) as caught:
        Partitioning(entries)
    assert caught.value.path == path


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("gone", "no column 'gone'; there are: n, raw, span, s"),
        ({"d": "gone + 1"}, "partition column 'd': no column 'gone'; there are"),
        ("raw", "no unambiguous text"),
        ("span", "no unambiguous text"),
        ({"d": "n + raw"}, "cannot be computed"),
        ({"d": "CAST(s AS DATE)"}, "cannot be computed: casting from string to date is not supported"),
    ],
)
def test_check_refuses_what_the_columns_do_not_allow(entry, says):
    with pytest.raises(SinkMismatch, match=says):
        Partitioning([entry]).check(pl.Schema({"n": pl.Int64(), "raw": pl.Binary(), "span": pl.Duration("us"), "s": pl.String()}))


@pytest.mark.parametrize("expression", ["'now'", "CASE WHEN n > 1 THEN 'over' ELSE 'current_date' END", '"now"', "snow"])
def test_keywords_inside_quotes_and_names_are_not_functions(expression):
    frame = pl.DataFrame({"n": [1, 2], "now": [1, 2], "snow": [3, 4]})
    assert len(paths_of(Partitioning([{"d": expression}]), frame)) == 2


@pytest.mark.parametrize(
    "expression",
    [
        "a % 16",
        "a * 100 + a",
        "a / 2",
        "MOD(a, 5)",
        "DIV(a, 7)",
        "POWER(a, 2)",
        "CASE WHEN a % 2 = 0 THEN 'even' END",
        "a IN (1, 2) AND a - 1 < 5",
        "a < 5 OR a > 1e999",
        "CASE WHEN a > 5 THEN 'Len' ELSE 'Agg' END",
    ],
)
def test_operators_work_row_by_row(expression):
    partitions = Partitioning([{"k": expression}])
    partitions.check(pl.Schema({"a": pl.Int64()}))
    assert len(set(partitions.assign(pl.DataFrame({"a": [1, 8]})).codes)) == 2


@pytest.mark.parametrize(
    "expression", ["SUM(a % 16)", "a % MAX(a)", "COUNT(a) * 2", "a - FIRST(a)", "COUNT(*) + a", "COALESCE(a, MIN(a))", "a IN (MAX(a))"]
)
def test_expressions_over_more_than_one_row_are_always_refused(expression):
    with pytest.raises(SinkMismatch, match="more than one row"):
        Partitioning([{"k": expression}])


def test_check_accepts_computable_expressions():
    Partitioning(["n", {"day": "strftime(t, '%Y')"}]).check(pl.Schema({"n": pl.Int64(), "t": pl.Datetime("us", "UTC")}))


def test_atan2_of_an_object_which_would_crash_polars_is_refused():
    schema = pl.Schema({"o": pl.Struct({"y": pl.Float64, "x": pl.Float64}), "f": pl.Float64})
    with pytest.raises(SinkMismatch, match="atan2 takes numbers, no objects"):
        Partitioning([{"angle": "round(atan2(o, f), 0)"}]).check(schema)
    Partitioning([{"angle": "round(atan2(o.y, f), 0)"}]).check(schema)


@given(st.lists(st.tuples(st.text(max_size=10), st.none() | st.text(max_size=10)), max_size=3, unique_by=lambda pair: pair[0]))
def test_the_values_are_read_back_from_a_key(pairs):
    folders = "".join(f"{encode_value(name)}={encode_value(value)}/" for name, value in pairs if name)
    assert values_in(f"data/{folders}shardId-000000000000-0-1.0.0123456789abcdef.parquet", ()) == {n: value for n, value in pairs if n}


@given(st.dictionaries(st.text(max_size=10), st.none() | st.text(max_size=10), min_size=1, max_size=3))
def test_the_values_are_read_back_from_plain_folders(pairs):
    folders = "".join(f"{encode_value(value)}/" for value in pairs.values())
    assert values_in(f"{folders}shardId-000000000000-0-1.0.0123456789abcdef.parquet", list(pairs)) == pairs


def test_plain_folders_have_the_values_alone():
    frame = pl.DataFrame({"year": ["2026", "2026", None], "n": [1, 2, 3]})
    plain = Partitioning(["year", {"half": "n / 2"}], folders=Folders.PLAIN)
    assert plain.assign(frame).paths == ("2026/0.5", "2026/1.0", f"{NULL}/1.5")
    assert Partitioning(["year", "n"], 1, Folders.PLAIN).assign(frame).paths == ("2026/1", f"{OVERFLOW}/{OVERFLOW}")


def test_rows_without_a_directory_of_their_own_have_the_word_for_that():
    assert values_in(f"a={OVERFLOW}/b={INVALID}/x.parquet", ["a", "b"]) == {"a": OVERFLOW, "b": INVALID}
    assert values_in(f"a={NULL}/b={EMPTY}/x.parquet", ["a", "b"]) == {"a": None, "b": ""}
    assert values_in("x.parquet", []) == {}
