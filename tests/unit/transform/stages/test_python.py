import polars as pl
import pytest
from pydantic import ValidationError

from stream.transform.stage import Resources, SchemaMismatch
from stream.transform.stages.python import Python
from tests.frames import apply, rows

FRAME = rows({"a": [1, 2]})


def given(function):
    return Resources(functions={"m:f": function})


def test_without_declared_columns_those_of_an_empty_frame_count():
    got, _ = apply(Python.model_validate("m:f"), FRAME, given(lambda frame: frame.with_columns(b=pl.col("a") * 0.5).drop("a")))
    assert got == [{"b": 0.5}, {"b": 1.0}]


def test_with_declared_columns_the_function_never_gets_an_empty_frame():
    def picky(frame):
        assert frame.height
        return frame.with_columns(b=pl.lit("x"))

    stage = Python.model_validate({"function": "m:f", "adds": {"b": "string"}})
    assert apply(stage, FRAME, given(picky))[0] == [{"a": 1, "b": "x"}, {"a": 2, "b": "x"}]
    assert stage.function_paths() == ("m:f",)


def test_a_function_that_fails_on_an_empty_frame_is_refused():
    def raises(frame):
        raise KeyError("q")

    for resources, says in (
        (Resources(), "not loaded"),
        (given(raises), "raised KeyError"),
        (given(lambda _: 3), "returned int"),
    ):
        with pytest.raises(SchemaMismatch, match=says) as caught:
            Python.model_validate("m:f").output(FRAME.schema, resources)
        assert caught.value.path == ("function",)
    with pytest.raises(SchemaMismatch, match="belongs to the service"):
        Python(function="m:f", adds={"_row": "int64"}).output(FRAME.schema, given(lambda frame: frame))


def test_an_import_path_needs_two_parts():
    with pytest.raises(ValidationError):
        Python.model_validate("just_a_name")
