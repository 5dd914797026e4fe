"""A document that is not a definition is refused, with the place and what to do."""

import json

import pytest

from stream.datapipeline.definition import Ref, parse
from stream.datapipeline.object_types import OBJECT_TYPES
from stream.datapipeline.resolve import resolve
from stream.errors import DefinitionError


def read(text, *more):
    return parse(text if isinstance(text, bytes) else text.encode(), "old.json", more)


def objects(*entries, **rest):
    return json.dumps({"objects": list(entries), **rest})


def refusal(text, *more):
    with pytest.raises(DefinitionError) as found:
        resolve(read(text, *more), "old.json", OBJECT_TYPES)
    return str(found.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "old.json:1:1: not JSON"),
        ('{"objects": [}', "old.json:1:14: not JSON"),
        ("[]", "old.json: contains a list; allowed: one JSON object with the list `objects`"),
        ("null", "old.json: contains nothing (null)"),
        ("{}", "old.json: `objects` is missing"),
        ('{"objects": []}', "old.json: `objects` is empty"),
        ('{"objects": 3}', "old.json: `objects` is a number"),
        ('{"values": {"myX": "1"}}', "Pass a file that only has values with --values"),
        ('{"objects": [3]}', "old.json: objects[0]: is a number; write an object with id and type"),
        ('{"objects": [{"type": "CSV"}]}', "old.json: objects[0]: has no id"),
        ('{"objects": [{"id": ""}]}', "old.json: objects[0]: has as its id an empty text"),
        ('{"objects": [{"id": "a", "type": "CSV", "column": null}]}', "old.json: objects[0] (`a`), field `column`: is nothing (null)"),
        ('{"objects": [{"id": "a", "type": "CSV", "column": [["x"]]}]}', "field `column`: is a list"),
        ('{"objects": [{"id": "a", "type": "CSV", "parent": {"rev": "b"}}]}', 'allowed: a text, a number, {"ref": "ID"}, or a list'),
        ('{"objects": [{"id": "a\\ud800", "type": "CSV"}]}', "lone surrogate"),
        ("[" * 100_000, "is nested too deeply, or contains a number with thousands of digits"),
        ('{"objects": ' + "9" * 5000 + "}", "is nested too deeply, or contains a number with thousands of digits"),
        (b'{"objects": "\xff"}', "old.json: byte 14 is not UTF-8"),
    ],
)
def test_a_file_of_another_form_is_refused(text, message):
    assert message in refusal(text)


def test_a_duplicate_id_is_refused():
    assert "objects[1]: the id `a` is used twice" in refusal(objects({"id": "a", "type": "CSV"}, {"id": "a", "type": "TSV"}))


def test_an_unknown_type_is_refused_with_a_suggestion():
    assert "object `a`: there is no type `S3DataNod`; did you mean `S3DataNode`?" in refusal(objects({"id": "a", "type": "S3DataNod"}))
    assert "did you mean `CSV`?" in refusal(objects({"id": "a", "type": "csv"}))
    assert "object `a`: has no type; write one of CSV, CopyActivity" in refusal(objects({"id": "a"}))


def test_a_dangling_reference_is_refused():
    found = refusal(objects({"id": "Copy", "type": "CopyActivity", "input": {"ref": "Sorce"}}, {"id": "Source", "type": "S3DataNode"}))
    assert "object `Copy`, field `input`: there is no object `Sorce`; did you mean `Source`?; add it, or correct the ref" in found


def test_circular_parents_are_refused():
    entries = [{"id": "a", "type": "CSV", "parent": {"ref": "b"}}, {"id": "b", "parent": {"ref": "c"}}, {"id": "c", "parent": {"ref": "a"}}]
    assert "object `a`, field `parent`: the parents form a circle: a -> b -> c -> a" in refusal(objects(*entries))
    assert "the parents form a circle: Default -> x -> Default" in refusal(
        objects({"id": "Default", "parent": {"ref": "x"}}, {"id": "x", "type": "CSV"})
    )


def test_every_fault_is_reported_at_once_up_to_a_limit():
    found = refusal(objects(*({"id": f"a{number}", "type": "X"} for number in range(30))))
    assert found.count("there is no type `X`") == 20
    assert found.endswith("and 10 more")


def test_a_parameter_without_a_value_is_refused():
    text = objects({"id": "a", "type": "S3DataNode", "filePath": "#{myPlace}"}, parameters=[{"id": "myPlace"}])
    assert "the parameter `myPlace` has no value; write one under `values`, or pass the file that has it with --values" in refusal(text)
    assert read(text, ("values.json", b'{"values": {"myPlace": "s3://a-b/"}}')).parameters["myPlace"].values == ("s3://a-b/",)
    optional = objects({"id": "a", "type": "S3DataNode", "filePath": "#{myPlace}"}, parameters=[{"id": "myPlace", "optional": "true"}])
    assert read(optional).parameters["myPlace"].values == ()


def test_a_repeated_key_is_a_list():
    found = read('{"objects": [{"id": "a", "type": "CSV", "column": "x INT", "column": ["y INT", "z INT"], "parent": {"ref": "b"}}]}')
    assert found.items["a"].fields["column"] == ("x INT", "y INT", "z INT")
    assert found.items["a"].fields["parent"] == (Ref("b"),)


def test_an_object_inherits_from_its_parents_and_the_default():
    text = objects(
        {"id": "Default", "name": "d", "maximumRetries": 1, "role": "r"},
        {"id": "base", "type": "CSV", "maximumRetries": 2, "parent": {"ref": "Default"}},
        {"id": "a", "parent": {"ref": "base"}, "column": True},
        {"id": "b", "type": "TSV", "parent": {"ref": "other"}},
        {"id": "other", "type": "TSV", "parent": {"ref": "Default"}, "role": 0.5},
    )
    resolved = resolve(read(text), "old.json", OBJECT_TYPES).objects
    a = resolved["a"]
    assert (a.type, a.slot("maximumRetries").text, a.slot("maximumRetries").owner) == ("CSV", "2", "base")
    assert (a.slot("role").text, a.slot("role").owner, a.slot("column").text) == ("r", "Default", "true")
    assert not a.has("name")
    assert resolved["b"].slot("role").text == "0.5"


def test_a_byte_order_mark_is_ignored():
    assert list(read(b"\xef\xbb\xbf" + objects({"id": "a", "type": "CSV"}).encode()).items) == ["a"]


@pytest.mark.parametrize("name", ["*myWord", "myPassword", "mySecretKey", "myApiKey", "myToken"])
def test_a_secret_parameter_is_recognised(name):
    text = objects({"id": "a", "type": "CSV"}, parameters=[{"id": name}], values={name: "x"})
    (found,) = read(text).parameters.values()
    assert found.secret


def test_other_parameters_are_not_secret():
    text = objects({"id": "a", "type": "CSV"}, values={"myKeyPair": "x", "myPass": "y"})
    assert not any(each.secret for each in read(text).parameters.values())
