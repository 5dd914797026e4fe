"""What holds for all records."""

import json

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.transform.decode import Unknown
from stream.transform.decoders.json import Json
from stream.transform.engine import compile_chain
from stream.transform.stage import Resources
from stream.transform.stages.cast import Cast
from stream.transform.stages.derive import Derive
from stream.transform.stages.filter import Filter
from stream.transform.types import parse_schema
from tests.frames import batch, ticks

SCHEMA = parse_schema(
    {
        "a": "int32",
        "s": "string?",
        "f": "float64?",
        "t": "timestamp?",
        "d": "decimal(5,2)?",
        "l": "list<int8>?",
        "o": {"x": "bool?"},
    }
)
STAGES = [
    Filter.model_validate("a <> 0"),
    Derive.model_validate({"half": "a / 2", "i": "CAST(s AS BIGINT)"}),
    Cast.model_validate({"f": "int16"}),
]
CHAINS = {unknown: compile_chain(Json(unknown=unknown), SCHEMA, STAGES, Resources(), ticks()) for unknown in Unknown}

leaf = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**65), 2**65),
    st.integers(-2, 300),
    st.floats(),
    st.text(max_size=4),
    st.sampled_from(["1", "2013-01-01", "2013-01-01T00:00:00Z", "1.25", "2013-99-01T00:00:00Z"]),
)
anything = st.recursive(
    leaf, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("aoxz"), inner, max_size=3), max_leaves=6
)
likely = st.fixed_dictionaries(
    {"a": st.integers(-3, 3), "o": st.just({"x": True})},
    optional={
        "s": st.sampled_from(["1", "22", "x", None]),
        "f": st.sampled_from([1, 1.5, 40000, None]),
        "t": st.sampled_from(["2013-01-01T00:00:00Z", "2013-01-01", "no", None]),
        "d": st.sampled_from([1, 1.25, "1.25", 1.255, 100000]),
        "l": st.lists(st.integers(-130, 130), max_size=2),
        "z": anything,
    },
)
documents = st.one_of(likely, likely, st.dictionaries(st.sampled_from(list("asftdloz")), anything), anything).map(
    lambda value: json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
)
mutilated = st.tuples(documents, st.integers(0, 60), st.binary(max_size=2)).map(lambda it: it[0][: it[1]] + it[2] + it[0][it[1] :])
fragments = st.lists(
    st.sampled_from(
        [b"{", b"}", b"[", b"]", b",", b":", b'"r"', b'"a"', b"1", b'"', b"\\", b"\n", b" ", b'{"a":1,"o":{}}', b"NaN", b"\xc3"]
    ),
    max_size=8,
).map(b"".join)
repeated = st.just(b'{"a":1,"a":2,"o":{}}')
records = st.lists(st.one_of(documents, mutilated, fragments, repeated, st.binary(max_size=6)), max_size=12)


def outcome(got):
    """Each record's fate by its row."""
    fates = {row["_row"]: {name: str(value) for name, value in row.items() if name != "_row"} for row in got.settled.to_dicts()}
    kept = {row["_row"]: {name: str(value) for name, value in row.items() if name != "_row"} for row in got.frame.to_dicts()}
    assert not set(fates) & set(kept)
    return fates | kept


@settings(max_examples=60, deadline=None, print_blob=True)
@given(records, st.sampled_from(Unknown))
def test_every_record_ends_once_in_order_and_the_same_way_twice(given_records, unknown):
    chain = CHAINS[unknown]
    given_batch = batch(given_records)
    got, again = chain.run(given_batch, "s"), chain.run(given_batch, "s")
    assert sorted([*got.frame["_row"], *got.settled["_row"]]) == list(range(len(given_records)))
    assert got.frame["_row"].is_sorted()
    assert got.settled["_row"].is_sorted()
    assert got.frame.schema == chain.output_schema
    assert got.frame.equals(again.frame)
    assert got.settled.equals(again.settled)
    lineage = given_batch.frame.with_row_index("_row").select("_row", "_sequence", "_arrival").cast({"_row": pl.UInt32})
    assert got.frame.select("_row", "_sequence", "_arrival").equals(lineage.filter(pl.col("_row").is_in(got.frame["_row"].implode())))


@settings(max_examples=60, deadline=None, print_blob=True)
@given(records, st.sampled_from(Unknown))
def test_a_record_ends_the_same_way_alone_and_among_others(given_records, unknown):
    chain = CHAINS[unknown]
    together = outcome(chain.run(batch(given_records), "s"))
    whole = batch(given_records)
    for row in range(len(given_records)):
        single = type(whole)(whole.frame[row : row + 1], 0)
        assert outcome(chain.run(single, "s"))[0] == together[row], given_records[row]
