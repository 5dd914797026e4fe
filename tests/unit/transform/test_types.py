import polars as pl
import pytest

from stream.transform.stage import SchemaMismatch
from stream.transform.types import NAMES, parse_schema, parse_type


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("string", pl.String()),
        ("int64?", pl.Int64()),
        ("uint8", pl.UInt8()),
        ("float32", pl.Float32()),
        ("timestamp", pl.Datetime("us", "UTC")),
        ("timestamp(ms)", pl.Datetime("us", "UTC")),
        ("decimal( 12 , 2 )", pl.Decimal(12, 2)),
        ("list<list<int8?>>?", pl.List(pl.List(pl.Int8()))),
        ("object{a: int64, b: list<string>}", pl.Struct({"a": pl.Int64(), "b": pl.List(pl.String())})),
        ("json", pl.String()),
        ("binary", pl.Binary()),
        ("date", pl.Date()),
    ],
)
def test_types_become_polars_types(text, expected):
    parsed = parse_type(text)
    assert parsed.polars == expected
    assert parsed.nullable is text.endswith("?")
    assert parse_type(parsed.text) == parsed


@pytest.mark.parametrize(
    ("text", "says", "hint"),
    [
        ("strin", "character 1: unknown type 'strin'", "string"),
        ("bigint", "unknown type 'bigint'", "int64"),
        ("list<strng>", "character 6: unknown type", "string"),
        ("list<string", "character 12: expected '>' to close list, found the end", ""),
        ("timestamp(m)", "character 11: unknown unit 'm'; known: s, ms, us", ""),
        ("decimal(2,3)", "character 9: decimal(2,3) needs", ""),
        ("decimal", "expected '(' after decimal", ""),
        ("object{a: int8, a: int8}", "character 17: the object has two fields 'a'", ""),
        ("list<json>", "json can only be the type of a whole column", ""),
        ("int64??", "unexpected '?'", ""),
        ("", "expected a type, found the end", ""),
        ("list<" * 40, "more than 32 types inside each other", ""),
    ],
)
def test_a_malformed_type_is_refused_with_its_position(text, says, hint):
    with pytest.raises(SchemaMismatch) as caught:
        parse_type(text, ("x",))
    assert says in caught.value.message
    assert hint in caught.value.hint
    assert caught.value.path == ("x",)


def test_a_schema_keeps_its_order_and_accepts_nested_mappings():
    schema = parse_schema({"b": "int64", "a": {"x": "string?", "y": {"z": "bool"}}})
    assert list(schema.polars().items()) == [
        ("b", pl.Int64()),
        ("a", pl.Struct({"x": pl.String(), "y": pl.Struct({"z": pl.Boolean()})})),
    ]


@pytest.mark.parametrize("mapping", [{}, {"_row": "int64"}, {"_data": "string"}, {"a": 3}, {"a": {}}, {"a": {"j": "json"}}])
def test_an_invalid_schema_is_refused(mapping):
    with pytest.raises(SchemaMismatch):
        parse_schema(mapping, ("source", "schema"))


@pytest.mark.parametrize("name", ["*", "^a.*$", "^$", 'a"b', "a\\b", "a\x00b", "a\nb"])
def test_unusable_column_names_are_refused(name):
    for mapping in ({name: "int64"}, {"o": {name: "int64"}}):
        with pytest.raises(SchemaMismatch, match="the name"):
            parse_schema(mapping)


@pytest.mark.parametrize("name", ["^a", "a$", "a*", "a.b", "a b", "größe", "select", "1", "'"])
def test_other_column_names_are_accepted(name):
    assert parse_schema({name: "int64"}).polars() == {name: pl.Int64()}


def test_every_type_name_can_be_parsed():
    arguments = {"decimal": "(3,1)", "list": "<int8>", "object": "{a: int8}"}
    for name in NAMES:
        assert parse_type(name + arguments.get(name, "")).text.startswith(name)
