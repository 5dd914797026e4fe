"""JSON values in an object: where each begins and ends, whatever is between them and however the object is read."""

import gzip
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.errors import Halted
from stream.source import json_values, object_formats
from stream.source.object_formats import Layout, ObjectCodec, ObjectFormat, Unreadable, chunks

PLAIN = Layout(ObjectFormat.JSON)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)
DOCUMENTS = st.dictionaries(st.text(max_size=5), VALUES, max_size=4) | st.lists(VALUES, max_size=4)
SPACES = st.sampled_from(["", " ", "\n", "\r\n\t", "\n\n"])


def read(text, layout=PLAIN, behind=0, name="x", size=64):
    body = text.encode() if isinstance(text, str) else text
    return [record for chunk in chunks(layout, io.BytesIO(body), name, behind, size) for record in chunk]


def in_list(path=()):
    return Layout(ObjectFormat.JSON, records=path)


class Dripping(io.BytesIO):
    """A file that gives a few bytes at a time."""

    def __init__(self, body, step):
        super().__init__(body)
        self.step = step

    def read(self, size=-1):
        return super().read(self.step if size < 0 else min(size, self.step))


@given(st.lists(st.tuples(DOCUMENTS, SPACES), max_size=8), st.integers(0, 8), st.booleans(), st.sampled_from([None, 1]), st.integers(1, 9))
def test_values_are_found_whatever_is_between_them(items, behind, ascii_only, indent, step):
    text = "".join(json.dumps(value, ensure_ascii=ascii_only, indent=indent) + space for value, space in items).encode()
    wanted = [value for value, _ in items]
    found = list(json_values.json_values(Dripping(text, step).read, 10**6))
    assert [json.loads(body) for body in found] == wanted
    assert read(text, behind=behind) == list(enumerate(found, 1))[behind:]


@given(st.lists(st.tuples(st.lists(VALUES, max_size=5), VALUES), max_size=3), st.integers(1, 9), SPACES, st.integers(0, 9))
def test_elements_of_lists_are_found_in_every_document(documents, step, space, behind):
    texts = [json.dumps({"before": other, "a b": {"x": other, "é": records, "y": 1}, "z": [other]}) for records, other in documents]
    text = space.join(texts).encode()
    wanted = [record for records, _ in documents for record in records]
    found = list(json_values.json_elements(Dripping(text, step).read, 10**6, ("a b", "é")))
    assert [json.loads(body) for body in found] == wanted
    assert read(text, in_list(("a b", "é")), behind=behind) == list(enumerate(found, 1))[behind:]
    lists = space.join(json.dumps(records, indent=1) for records, _ in documents)
    assert [json.loads(body) for _, body in read(lists, in_list())] == wanted


def test_what_is_no_object_or_list_is_a_record_up_to_the_end_of_its_line():
    assert [body for _, body in read('{"a":1} 17 x\n"y" }{"b":2}\n] ,\n[3]')] == [
        b'{"a":1}', b"17 x", b'"y" }', b'{"b":2}', b"] ,", b"[3]",
    ]  # fmt: skip
    assert [body for _, body in read('{"a":1}{"b":')] == [b'{"a":1}', b'{"b":']
    assert read(b"\xef\xbb\xbf{}") == [(1, b"{}")]
    assert read("") == read(" \n ") == []


def test_compressed_objects_are_read_like_others():
    packed = gzip.compress(b'{"a":1}{"a":2}') + gzip.compress(b'{"a":3}')
    assert [number for number, _ in read(packed, name="x.gz")] == [1, 2, 3]
    assert [number for number, _ in read(packed, Layout(ObjectFormat.JSON, ObjectCodec.GZIP))] == [1, 2, 3]


@pytest.mark.parametrize(
    ("text", "before", "why"),
    [
        ('{"Records": [1, 2', 1, "the document ends too early"),
        ('{"Records": [1, {"a": ', 1, "the document ends too early"),
        ('{"Records": [1, 2]', 2, "the document ends too early"),
        ('{"Records": [1, 2]} {"digest": {}}', 2, "no member 'Records'; see source.s3.records"),
        ('{"Records": [1 2]}', 1, "in place of a comma"),
        ('{"Records": [1,]}', 1, "in place of a value"),
        ('{"Records": {"a": 1}}', 0, "in place of a list of records"),
        ('{"Records": null}', 0, "'n' in place of a list of records"),
        ("[1]", 0, "in place of an object with the member 'Records'"),
        ("{1: 2}", 0, "in place of a member's name"),
        ('{"\\x": 2}', 0, "the name of a member at byte 1 is no JSON"),
        ('{"Records": [1]} no JSON', 1, "in place of an object"),
    ],
)
def test_a_document_of_another_form_is_unreadable_after_what_was_found(text, before, why):
    found = []
    with pytest.raises(Unreadable, match="the object x cannot be read as json, compression none: ") as caught:
        found.extend(record for chunk in chunks(in_list(("Records",)), io.BytesIO(text.encode()), "x", 0, 1) for record in chunk)
    assert [json.loads(body) for _, body in found] == [1, 2][:before]
    assert why in str(caught.value)


@pytest.mark.parametrize(
    ("text", "layout"), [('{"a":1}' + "[" * 500, PLAIN), ('{"a":1}{"b":"' + "x" * 500, PLAIN), ("[1," + "[" * 500, in_list())]
)
def test_a_value_without_an_end_is_refused_before_it_fills_the_memory(monkeypatch, text, layout):
    monkeypatch.setattr(object_formats, "MAX_RECORD_BYTES", 100)
    monkeypatch.setattr(json_values, "READ_BYTES", 50)
    with pytest.raises(Halted, match="a value of more than 100 bytes begins at byte"):
        read(text, layout)


def test_what_is_passed_over_is_not_held(monkeypatch):
    monkeypatch.setattr(object_formats, "MAX_RECORD_BYTES", 200)
    monkeypatch.setattr(json_values, "READ_BYTES", 50)
    passed = json.dumps({"other": [{"n": n} for n in range(500)], "Records": [{"id": 1}]})
    assert read(passed, in_list(("Records",))) == [(1, b'{"id": 1}')]
