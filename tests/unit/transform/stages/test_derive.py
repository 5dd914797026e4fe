import pytest

from stream.transform.stage import SchemaMismatch
from stream.transform.stages.derive import Derive
from tests.frames import RESOURCES, apply, rows


def test_later_columns_see_earlier_ones_and_a_replaced_one_keeps_its_place():
    stage = Derive.model_validate({"a": "a + 1", "c": "a * 10"})
    got, rejects = apply(stage, rows({"a": [1, 2], "b": [0, 0]}))
    assert got == [{"a": 2, "b": 0, "c": 20}, {"a": 3, "b": 0, "c": 30}]
    assert not rejects


def test_a_column_may_be_called_columns():
    assert apply(Derive.model_validate({"columns": "a"}), rows({"a": [1]}))[0] == [{"a": 1, "columns": 1}]


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"_row": "1"}, "belongs to the service"),
        ({"x": "NULL"}, "always null"),
        ({"x": "aa"}, "no column 'aa'"),
        ({"_data": "1"}, "belongs"),
    ],
)
def test_what_cannot_be_derived(config, says):
    with pytest.raises(SchemaMismatch, match=says) as caught:
        Derive.model_validate(config).output(rows({"a": [1]}).schema, RESOURCES)
    assert caught.value.path == ("columns", next(iter(config)))
