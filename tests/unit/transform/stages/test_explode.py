import pytest

from stream.batch import Outcome
from stream.errors import Halted
from stream.transform.decoders.json import Json
from stream.transform.engine import compile_chain
from stream.transform.stage import Resources, SchemaMismatch
from stream.transform.stages.cast import Cast
from stream.transform.stages.explode import Explode
from stream.transform.stages.filter import Filter
from stream.transform.stages.python import Python
from stream.transform.types import parse_schema
from tests.frames import apply, batch, rows, ticks

FRAME = rows({"n": [1, 2, 3, 4], "l": [["a", None], [], None, ["b"]]})


def test_items_take_the_place_of_their_list():
    got, _ = apply(Explode(column="l"), FRAME)
    assert got == [{"n": 1, "l": "a"}, {"n": 1, "l": None}, {"n": 4, "l": "b"}]


def test_empty_lists_can_be_kept_as_null():
    got, _ = apply(Explode.model_validate({"column": "l", "empty": None, "index": "i", "into": "item"}), FRAME)
    assert [(row["n"], row["item"], row["i"]) for row in got] == [(1, "a", 0), (1, None, 1), (2, None, None), (3, None, None), (4, "b", 0)]
    assert [row["n"] for row in apply(Explode.model_validate({"column": "l", "empty": "null"}), FRAME)[0]] == [1, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"column": "n"}, "not a list"),
        ({"column": "x"}, "no column 'x'"),
        ({"column": "l", "into": "n"}, "already exists"),
        ({"column": "l", "index": "l"}, "already exists"),
        ({"column": "l", "index": "_row"}, "belongs to the service"),
        ({"column": "l", "into": "_data"}, "belongs to the service"),
    ],
)
def test_columns_that_cannot_be_exploded_are_refused(config, says):
    with pytest.raises(SchemaMismatch, match=says):
        Explode.model_validate(config).output(FRAME.schema, Resources())


def chain(*stages, functions=None):
    schema = parse_schema({"n": "int64", "l": "list<string>?"})
    return compile_chain(Json(), schema, [Explode(column="l"), *stages], Resources(functions=functions or {}), ticks())


RECORDS = [b'{"n":0,"l":["1","2"]}', b'{"n":1,"l":[]}', b'{"n":2,"l":["3","x","4"]}', b'{"n":3,"l":["9"]}']


def test_a_record_with_one_rejected_row_is_rejected_as_a_whole():
    got = chain(Cast.model_validate({"l": "int64"})).run(batch(RECORDS), "s")
    assert got.frame.select("_row", "l").rows() == [(0, 1), (0, 2), (3, 9)]
    assert got.settled.rows() == [(1, Outcome.FILTERED, "1:explode", "filtered"), (2, Outcome.DEAD_LETTERED, "2:cast", "cast_failed:l")]


def test_a_record_is_filtered_only_when_all_its_rows_are():
    got = chain(Filter(where="l = '1' OR l = 'x'")).run(batch(RECORDS), "s")
    assert got.frame.select("_row", "l").rows() == [(0, "1"), (2, "x")]
    assert got.settled.select("_row", "stage").rows() == [(1, "1:explode"), (3, "2:filter")]


def test_a_row_that_makes_a_stage_raise_costs_only_its_record():
    seen = []

    def function(frame):
        seen.append(frame["_row"].to_list())
        if (frame["l"] == "x").any():
            raise KeyError
        return frame

    got = chain(Python(function="f:f", adds={}), functions={"f:f": function}).run(batch(RECORDS), "s")
    assert got.frame["l"].to_list() == ["1", "2", "9"]
    assert got.settled.select("_row", "reason").rows()[-1] == (2, "stage_error:KeyError")
    assert all(rows.count(2) in {0, 3} for rows in seen), "a record is never cut"


def test_a_later_stage_must_not_duplicate_rows_of_a_record():
    compiled = chain(Python(function="f:f", adds={}), functions={"f:f": lambda frame: frame[[0, 0, 1, 2, 3, 4, 5]]})
    with pytest.raises(Halted, match="more rows of a record"):
        compiled.run(batch(RECORDS), "s")
