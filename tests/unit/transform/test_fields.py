import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.native import KERNEL
from stream.transform import grok
from stream.transform.fields import TO_THE_END, Fields, plain_fields
from stream.transform.parsers import regex
from tests.kernel import compared

ACCESS = "^%{IP:client} %{WORD:verb} %{PATH:path} %{INT:status:int16}$"


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        (r"^(?P<a>\S+) (?P<b>.*)$", Fields(0, ((32, 1, "a"), (TO_THE_END, 0, "b")))),
        (r"^\[(?P<a>[^\]]*)\] - (?<b>x|y)$", Fields(1, ((93, 4, "a"), (TO_THE_END, 0, "b")))),
        (r'^"(?P<a>(?:[^"\\]|\\[^"])*)"$', Fields(1, ((34, 1, "a"),))),
        (r"^(?:a|b)+[0-9]*\t(?P<b>é)$", Fields(0, ((9, 1, None), (TO_THE_END, 0, "b")))),
        (r"^\d+ms,(?P<b>\p{Greek}{2,3})\.$", Fields(0, ((109, 3, None), (46, 1, "b")))),
        (grok.expand(ACCESS, {}, ())[0], Fields(0, ((32, 1, "client"), (32, 1, "verb"), (32, 1, "path"), (TO_THE_END, 0, "status")))),
    ],
)
def test_simple_patterns_are_recognised_as_separated_fields(pattern, found):
    assert plain_fields(pattern) == found


@pytest.mark.parametrize(
    "pattern",
    [
        r"^(?P<a>.*) (?P<b>x)$",
        r"^(?P<a>\S+) (?P<b>x)",
        r"(?P<a>\S+) (?P<b>x)$",
        r"^(?P<a>.)(?P<b>[0-9]+)$",
        r"^(?P<a>[a-z]+)[0-9] (?P<b>x)$",
        r"^(?P<a>a)? (?P<b>x)$",
        r"^(?P<a>a) *(?P<b>x)$",
        r"^(?P<a>a)|(?P<b>b)$",
        r"^(?P<a>(?P<c>a)+) (?P<b>b)$",
        r"^(?P<a>a(b)) (?P<b>b)$",
        r"^(?P<a>(?i:K)) (?P<b>b)$",
        r"(?i)^(?P<a>K)k(?P<b>b)$",
        r"^(?P<a>[a-z[ ]]) (?P<b>b)$",
        r"^(?P<a>[a&&b]) (?P<b>[c[d]])$",
        r"^(?P<a>\x20x) (?P<b>b)$",
        r"^(?P<a>a\\ b) (?P<b>b)$",
        r"^(?P<a>a)é(?P<b>b)$",
        "^",
        "a",
    ],
)
def test_other_patterns_are_not_treated_as_separated_fields(pattern):
    assert plain_fields(pattern) is None


insides = [r"\S+", r"[0-9]+", "[^ ,]*", "(?:a|b)", r"\w*", r"\.", "a{1,2}", "[a-c]+?", "[+-]?[0-9]{1,3}", "é*", r"[^\s,]", "[a-c9]+"]
LETTERS = "abc,x. 1239+-é[\t\n"
odd_insides = [".*", ".*?", "[^,]*", "[^ ]*", "(?:a,?|[ ])", "x"]
between = [" ", ",", ", ", " - ", r"\t", ",x"]
odd_between = ["x", r"\[", "1", "", ".", " *", "[0-9]"]
texts = st.none() | st.text(LETTERS, max_size=14)


@st.composite
def patterns(draw):
    odd = draw(st.booleans())
    inside, separator = st.sampled_from(insides + odd_insides * odd), st.sampled_from(between + odd_between * odd)
    pattern = "^" + draw(st.sampled_from(["", "", "x", r"\["]))
    for number in range(draw(st.integers(1, 4))):
        form = draw(st.sampled_from(["(?P<g{}>{})", "(?P<g{}>{})", "(?:{1})", *["(?P<g{}>{})?"] * odd]))
        pattern += form.format(number, draw(inside)) + draw(separator)
    return pattern + draw(st.sampled_from(["(?P<last>.?)$", "(?P<last>.*)$", "(?P<last>)$", *["(?P<last>[a-z]+)"] * odd]))


@pytest.mark.compares_kernel
@compared(500)
@given(st.data(), patterns(), st.sampled_from(["string", "int8", "float64"]))
def test_the_groups_are_those_the_regex_engine_finds(data, pattern, kind):
    matching = st.from_regex(pattern, alphabet=LETTERS)
    values = data.draw(st.lists(st.one_of(texts, matching, matching), max_size=12))
    column = pl.Series("c", values, pl.String)
    types = {f"g{number}": kind for number in range(4) if f"<g{number}>" in pattern}
    found, ordinary = (regex(pattern, types, "c", (), kernel).read(column) for kernel in (KERNEL, None))
    assert found[0].equals(ordinary[0])
    assert found[1].equals(ordinary[1], null_equal=True)


def test_chunks_and_slices_are_read_like_whole_columns():
    lines = ["192.168.1.1 GET /a/long/path/to/index.html 200", None, "::1 PUT / 99999", "nothing", "10.0.0.1 GET / 1 ", ""] * 3
    pattern, types = grok.expand(ACCESS, {}, ())
    whole = pl.concat([pl.Series(lines), pl.Series(lines[::-1])], rechunk=False)
    for kernel in (KERNEL, None):
        parser = regex(pattern, types, "c", (), kernel)
        single = pl.concat([parser.read(pl.Series([line], dtype=pl.String))[0] for line in whole])
        assert single["status"].to_list()[:6] == [200, None, None, None, None, None]
        assert parser.read(whole)[0].equals(single)
        assert parser.read(whole[3:20])[0].equals(single[3:20])
        assert parser.read(whole.clear())[0].equals(single.clear())
        assert parser.read(whole)[1].to_list()[:5] == [None, None, "wrong_type:status", "parse_failed:c", "parse_failed:c"]
