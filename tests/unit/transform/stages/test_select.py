import pytest
from pydantic import ValidationError

from stream.transform.stage import SchemaMismatch
from stream.transform.stages.select import Select
from tests.frames import RESOURCES, apply, rows

FRAME = rows({"a": [1], "b": [2], "c": [3]})


def test_drop_keeps_the_rest():
    assert apply(Select.model_validate({"drop": ["b"]}), FRAME)[0] == [{"a": 1, "c": 3}]


@pytest.mark.parametrize(
    ("config", "says", "path"),
    [
        (["a", "d"], "no column 'd'", ("keep", 1)),
        (["a", "a"], "twice", ("keep", 1)),
        ({"drop": ["_shard"]}, "belongs to", ("drop", 0)),
    ],
)
def test_unknown_names_are_refused(config, says, path):
    with pytest.raises(SchemaMismatch, match=says) as caught:
        Select.model_validate(config).output(FRAME.schema, RESOURCES)
    assert caught.value.path == path


@pytest.mark.parametrize("config", [{}, {"keep": ["a"], "drop": ["b"]}, []])
def test_exactly_one_list_is_required(config):
    with pytest.raises(ValidationError):
        Select.model_validate(config)
