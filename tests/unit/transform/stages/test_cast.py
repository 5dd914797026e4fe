import pytest

from stream.transform.stage import SchemaMismatch
from stream.transform.stages.cast import Cast, OnError
from tests.frames import RESOURCES, apply, rows


@pytest.mark.parametrize(
    ("values", "target", "kept", "rejected"),
    [
        (["1", "x", None, "1.5"], "int64", [1, None], [1, 3]),
        ([1.0, 1.5, None, -0.0], "int8", [1, None, 0], [1]),
        ([1, 300, -1], "uint8", [1], [1, 2]),
        (["true", "FALSE", "yes"], "bool", [True, False], [2]),
        ([1, None], "string", ["1", None], []),
        ([0, 10**18], "timestamp(s)", None, [1]),
        (["aGk=", "*"], "binary", [b"hi"], [1]),
        ([1e39, 0.5, float("inf")], "float32", [0.5, float("inf")], [0]),
    ],
)
def test_values_that_would_change_reject_their_row(values, target, kept, rejected):
    got, rejects = apply(Cast.model_validate({"x": target}), rows({"x": values}))
    assert rejects == dict.fromkeys(rejected, "cast_failed:x")
    if kept is not None:
        assert [row["x"] for row in got] == kept


def test_on_error_null_keeps_the_row_and_a_bare_yaml_null_means_it():
    stage = Cast.model_validate({"columns": {"x": "int64"}, "on_error": None})
    assert stage.on_error is OnError.NULL
    assert apply(stage, rows({"x": ["1", "x"]})) == ([{"x": 1}, {"x": None}], {})


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"y": "int64"}, "no column 'y'"),
        ({"_sequence": "int64"}, "belongs to the service"),
        ({"x": "int64?"}, "does not change whether values may be null"),
        ({"x": "inte"}, "unknown type"),
        ({"x": "json"}, "nothing can be cast to json"),
        ({"x": "timestamp(ms)"}, "counts from whole numbers"),
    ],
)
def test_impossible_casts_are_refused(config, says):
    with pytest.raises(SchemaMismatch, match=says.replace("(", r"\(")) as caught:
        Cast.model_validate(config).output(rows({"x": ["1"]}).schema, RESOURCES)
    assert caught.value.path == ("columns", next(iter(config)))
