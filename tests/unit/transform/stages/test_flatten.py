import pytest

from stream.transform.stage import Resources, SchemaMismatch
from stream.transform.stages.flatten import Flatten
from tests.frames import apply, rows

FRAME = rows({"a": [{"b": {"c": 1, "d": [2]}, "e": "x"}, None], "z": [1, 2]})


@pytest.mark.parametrize(
    ("config", "columns"),
    [
        ({}, ["a_b_c", "a_b_d", "a_e", "z"]),
        ("a", ["a_b_c", "a_b_d", "a_e", "z"]),
        ({"depth": 1}, ["a_b", "a_e", "z"]),
        ({"separator": "."}, ["a.b.c", "a.b.d", "a.e", "z"]),
        ({"prefix": False}, ["c", "d", "e", "z"]),
    ],
)
def test_fields_take_the_place_of_their_object(config, columns):
    got, rejects = apply(Flatten.model_validate(config), FRAME)
    assert [list(row) for row in got] == [columns, columns]
    assert list(got[1].values())[:-1] == [None] * (len(columns) - 1)
    assert not rejects


def test_only_the_named_objects_are_flattened():
    frame = rows({"a": [{"x": 1}], "b": [{"x": 2}]})
    assert apply(Flatten(columns=("b",)), frame)[0] == [{"a": {"x": 1}, "b_x": 2}]


@pytest.mark.parametrize(
    ("config", "columns", "says"),
    [
        ("z", {"z": [1]}, "not an object"),
        ("y", {"z": [1]}, "no column 'y'"),
        ({}, {"a": [{"b": 1}], "a_b": [2]}, "two columns 'a_b'"),
        ({"prefix": False}, {"a": [{"x": 1}], "b": [{"x": 1}]}, "two columns 'x'"),
        ({"prefix": False}, {"a": [{"_data": 1}]}, "belongs to the service"),
    ],
)
def test_columns_that_cannot_be_flattened_are_refused(config, columns, says):
    with pytest.raises(SchemaMismatch, match=says):
        Flatten.model_validate(config).output(rows(columns).schema, Resources())
