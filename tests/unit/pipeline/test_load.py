from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.pipeline.findings import Position
from stream.pipeline.load import MAX_BYTES, load, resolve


def read(text, env=None):
    document = load(text.encode() if isinstance(text, str) else text, "p.yaml", env or {})
    return document.data, [(each.line, each.column, each.code) for each in document.findings]


def test_data_is_loaded_with_the_position_of_every_key_and_value():
    document = load(b"a: 1\nb:\n  - x: [2, 'three']\n", "p.yaml", {})
    assert document.data == {"a": 1, "b": [{"x": [2, "three"]}]}
    assert document.keys["b", 0, "x"] == Position(3, 5)
    assert document.values["b", 0, "x", 1] == Position(3, 12)
    assert document.value_position(("b", 0, "y")) == Position(3, 5)
    assert document.key_position(("a",)) == Position(1, 1)


@pytest.mark.parametrize("word", ["on", "off", "yes", "no", "Yes", "2026-01-01", "12:30:45", "1_000", "0b11", "y", "=", "0777x", "1e", "+"])
def test_words_with_a_meaning_in_yaml_1_1_stay_text(word):
    assert read(f"{word}: {word}") == ({word: word}, [])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True), ("False", False), ("null", None), ("~", None), ("", None), ("12", 12), ("-3", -3),
        ("010", 10), ("0x1F", 31), ("0o17", 15), ("1.5", 1.5), ("1e3", 1000.0), (".5", 0.5), (".inf", float("inf")),
        ("-.inf", float("-inf")), ("truE", "truE"),
    ],
)  # fmt: skip
def test_scalars_follow_the_core_schema(text, value):
    assert resolve(text) == value
    assert type(resolve(text)) is type(value)


def test_unquoted_references_are_typed_and_quoted_ones_are_text():
    data, findings = read("a: ${N}\nb: '${N}'\nc: ${M:-5}\nd: ${E}\ne: |\n  x ${N}\n", {"N": "7", "E": ""})
    assert (data, findings) == ({"a": 7, "b": "7", "c": 5, "d": "", "e": "x 7\n"}, [])


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("{a: int64?, b: string?}", {"a": "int64?", "b": "string?"}),
        ("[x?, ? y]", ["x?", {"y": None}]),
        ("{a: {b: ${N}}, c: [${N}, s3://${N}/${M:-m}/x]}", {"a": {"b": 7}, "c": [7, "s3://7/m/x"]}),
        ("{a: list<string?>?}", {"a": "list<string?>?"}),
        ("[a ? b, {c: $}]", ["a ? b", {"c": "$"}]),
    ],
)
def test_question_marks_and_references_inside_braces_are_read(text, data):
    assert read(f"v: {text}", {"N": "7"}) == ({"v": data}, [])


def test_an_environment_value_cannot_add_structure():
    assert read("a: ${X}", {"X": "1\nb: [2]"})[0] == {"a": "1\nb: [2]"}


def test_an_alias_has_the_value_and_position_of_its_anchor():
    document = load(b"a: &x {p: 1}\nb: *x\n", "p.yaml", {})
    assert document.data == {"a": {"p": 1}, "b": {"p": 1}}
    assert document.values["b", "p"] == Position(1, 11)


def test_every_problem_of_one_file_is_found():
    _, findings = read("a: 1\na: 2\n? [k]\n: 3\nb: !x 1\nc: ${NOPE}\n<<: {d: 1}\ne: *none\n")
    assert sorted(findings) == [
        (2, 1, "duplicate_key"),
        (3, 3, "bad_key"),
        (5, 4, "custom_tag"),
        (6, 4, "env_unset"),
        (7, 1, "merge_key"),
        (8, 4, "unknown_alias"),
    ]


def test_a_large_file_is_not_parsed():
    assert read(b"a: " + b"x" * MAX_BYTES) == (None, [(1, 1, "too_large")])


def test_nested_aliases_count_towards_the_depth():
    lines = ["a0: &a0 " + "[" * 20 + "]" * 20, "a1: " + "[" * 20 + "*a0" + "]" * 20]
    assert read("\n".join(lines))[1][0][2] == "too_deep"


def test_invalid_utf8_is_a_finding():
    assert read(b"a: b\nc: \xff\n") == (None, [(2, 4, "not_utf8")])


def test_a_byte_order_mark_is_ignored():
    assert read(b"\xef\xbb\xbfa: 1") == ({"a": 1}, [])


def test_an_error_at_the_end_points_to_what_was_not_closed():
    assert read("a: 1\nb: 'text\n\n\n") == (None, [(2, 4, "syntax")])


@given(st.one_of(st.text(), st.text(alphabet="ab:- []{}&*!|>'\"#\n\t$%@`?,<")))
def test_no_text_raises(text):
    document = load(text.encode("utf-8", "surrogatepass"), "p.yaml", {})
    assert document.findings or isinstance(document.data, dict)
    assert all(each.line >= 1 and each.column >= 1 for each in document.findings)


@pytest.mark.parametrize(
    ("text", "says", "hint"),
    [
        ("a:\n   b: 1\n    c: 2\n", "mapping values", "begins in column 5, the one before in column 4"),
        ("a:\n\u00a0  b: 1\n    c: 2\n", "mapping values", "line 2 is indented with a no-break space"),
        ('a: "b = "c" d"\n', "does not fit into the mapping", "text within it in single ones"),
        ('a: {b: "c = "d" e"}\n', "expected ',' or '}'", "text within it in single ones"),
        ("a: 'b = 'c''\n", "does not fit into the mapping", "text within it in single ones"),
        ("a:\n  - b: 1\n - c: 1\n", "does not fit into the mapping that begins at 1:1", "without a dash, in column 1"),
        ("a:\n  b: 1\n  - c: 1\n", "does not fit into the mapping that begins at 2:3", "without a dash, in column 3"),
        ("a:\n  - b: 1\n  c: 1\n", "does not fit into the list that begins at 2:3", "with a dash, in column 3"),
        ("a: {b: 'x}\nc: {d: 'y'}\n", "a flow mapping that begins at 1:4", "from line 1 to here"),
    ],
)
def test_a_wrong_indentation_is_explained_in_plain_words(text, says, hint):
    (finding,) = load(text.encode(), "p.yaml", {}).findings
    assert finding.code == "syntax"
    assert says in finding.message
    assert hint in finding.hint
    assert "block end" not in finding.message


def test_an_object_type_without_quotes_is_explained():
    (finding,) = load(b"source:\n  schema:\n    user: object{id: int64, email: string?}\n", "p.yaml", {}).findings
    assert (finding.line, finding.code) == (3, "syntax")
    assert finding.hint.startswith("put an object type in quotes")
