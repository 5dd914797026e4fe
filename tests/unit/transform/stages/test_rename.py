import pytest

from stream.transform.stage import SchemaMismatch
from stream.transform.stages.rename import Rename
from tests.frames import RESOURCES, apply, rows


def test_two_columns_may_swap():
    got, _ = apply(Rename.model_validate({"a": "b", "b": "a"}), rows({"a": [1], "b": [2], "c": [3]}))
    assert list(got[0].items()) == [("b", 1), ("a", 2), ("c", 3)]


@pytest.mark.parametrize(
    ("columns", "says"),
    [({"x": "y"}, "no column 'x'"), ({"a": "b"}, "two columns would be named 'b'"), ({"a": "_row"}, "belongs to the service")],
)
def test_colliding_names_are_refused(columns, says):
    with pytest.raises(SchemaMismatch, match=says):
        Rename.model_validate(columns).output(rows({"a": [1], "b": [2]}).schema, RESOURCES)
