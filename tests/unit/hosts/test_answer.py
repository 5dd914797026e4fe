"""What a function answers Firehose: each record once, in order, and never more than Lambda accepts."""

import json

import pytest
from awslambdaric.lambda_runtime_marshaller import to_json
from hypothesis import given
from hypothesis import strategies as st

from stream.hosts.answer import LIMIT, answer
from stream.pipeline.model import Pipeline
from stream.pipeline.resources.fetching import Fetched
from stream.sink.record_lines import RecordLines
from stream.source.transformation import transformation_of
from stream.worker.recipes.compiling import compile_recipe
from tests.sealed import StillClock
from tests.transformations import LIMIT as OF_LAMBDA
from tests.transformations import asked, delivered, rows_of

SCHEMA = {"n": "int64", "word": "string?", "tags": "list<string>?"}


def recipe(*stages, decode="json", schema=SCHEMA, **sink):
    definition = {
        "application": "orders",
        "source": {"kinesis": {"stream": "s"}, "decode": decode, "schema": schema},
        "stages": list(stages),
        "sinks": [{"s3": {"url": "s3://lake/orders/", **sink}}],
        "state": "s3://state/",
    }
    pipeline = Pipeline.model_validate(definition)
    return compile_recipe(pipeline, Fetched(), "digest", StillClock()), RecordLines(pipeline.sinks[0])


def answered(made, contents, limit=LIMIT):
    event = asked(contents)
    found = answer(*made, transformation_of(event), limit)
    return found, delivered(event, found.body)


def test_rows_are_lines_a_record_that_is_left_out_is_dropped_and_a_dead_letter_has_failed():
    made = recipe({"filter": "n > 0"}, {"derive": {"day": "concat('d', CAST(n AS STRING))"}}, partition_by="day", lineage=False)
    found, results = answered(made, [b'{"n": 1, "word": "\xc3\xbc"}', b'{"n": 0}', b"{", b'{"n": 3}'])
    assert [(result, keys) for result, _, keys in results] == [
        ("Ok", {"day": "d1"}),
        ("Dropped", {}),
        ("ProcessingFailed", {}),
        ("Ok", {"day": "d3"}),
    ]
    assert rows_of(results) == ('{"n":1,"word":"ü","tags":null,"day":"d1"}\n{"n":3,"word":null,"tags":null,"day":"d3"}\n'.encode())
    assert found.outcomes == (("dead_lettered", 1), ("filtered", 1), ("written", 2))
    assert found.rejected == (("decode", "json_syntax", 1),)


def test_a_record_that_the_sink_does_not_take_is_dropped():
    made = recipe({"select": ["n"]}, where="n > 0", partition_by="n", folders="plain", lineage=False)
    found, results = answered(made, [b'{"n": 1}', b'{"n": 0}'])
    assert [(result, keys) for result, _, keys in results] == [("Ok", {"n": "1"}), ("Dropped", {})]
    assert found.outcomes == (("filtered", 1), ("written", 1))


def test_a_record_that_becomes_several_rows_is_answered_with_several_lines():
    made = recipe({"explode": "tags"}, {"select": ["n", "tags"]}, lineage=False)
    found, results = answered(made, [b'{"n": 1, "tags": ["a", "b"]}', b'{"n": 2, "tags": ["c"]}'])
    assert [data for _, data, _ in results] == [b'{"n":1,"tags":"a"}\n{"n":1,"tags":"b"}\n', b'{"n":2,"tags":"c"}\n']
    assert found.outcomes == (("written", 2),)


def test_a_record_whose_rows_belong_to_several_partitions_has_failed():
    made = recipe({"explode": "tags"}, {"select": ["n", "tags"]}, partition_by="tags")
    found, results = answered(made, [b'{"n": 1, "tags": ["a", "b"]}', b'{"n": 2, "tags": ["c", "c"]}'])
    assert [(result, keys) for result, _, keys in results] == [("ProcessingFailed", {}), ("Ok", {"tags": "c"})]
    assert found.rejected == (("s3", "several_partitions", 1),)


def test_rows_say_where_their_record_was_read():
    _, results = answered(recipe({"select": ["n"]}), [b'{"n": 1}', b'{"n": 2}'])
    rows = [json.loads(data) for _, data, _ in results]
    assert [row["_shard"] for row in rows] == ["shardId-000000000000", "shardId-000000000001"]
    assert rows[1]["_sequence"].endswith("785155")
    assert rows[0]["_arrival"] == "2017-11-09T19:07:49.499+00:00"


def test_an_event_without_records_is_answered_with_none():
    assert answered(recipe(), [])[1] == []


CONTENTS = st.lists(
    st.one_of(
        st.sampled_from([b"{", b"", b'{"n": 0}', b'{"n": "x"}']),
        st.builds(
            lambda n, word, tags: json.dumps({"n": n, "word": word, "tags": tags}).encode(),
            st.integers(0, 3),
            st.text(max_size=40),
            st.lists(st.text(max_size=3), max_size=3),
        ),
    ),
    max_size=15,
)


@given(CONTENTS, st.integers(0, 6000), st.booleans())
def test_every_record_is_answered_once_in_order_and_within_the_limit(contents, limit, explodes):
    stages = [{"filter": "n > 0"}, *([{"explode": "tags"}, {"select": ["n", "word", "tags"]}] if explodes else [])]
    made = recipe(*stages, partition_by={"ü": "n % 2", "word": "word"})
    whole, all_results = answered(made, contents)
    found, results = answered(made, contents, limit)
    least = len(to_json({"records": [{"recordId": each["recordId"], "result": "ProcessingFailed"} for each in asked(contents)["records"]]}))
    assert found.size <= max(limit, least + 2)
    for each in (whole, found):
        assert len(to_json(each.body)) <= each.size
        assert sum(count for _, count in each.outcomes) == len(contents)
        counts = dict(each.outcomes)
        assert counts.get("dead_lettered", 0) == sum(count for *_, count in each.rejected)
    for before, after in zip(all_results, results, strict=True):
        assert after == before or (before[0] == "Ok" and after[0] == "ProcessingFailed")
    lost = [before for before, after in zip(all_results, results, strict=True) if after != before]
    assert len(lost) == sum(count for _, reason, count in found.rejected if reason == "answer_too_large")


def test_what_does_not_fit_has_failed_and_what_fits_behind_it_is_kept():
    contents = [json.dumps({"n": at, "word": "x" * size}).encode() for at, size in enumerate((10, 3000, 10))]
    _, results = answered(recipe(), contents, 2000)
    assert [result for result, _, _ in results] == ["Ok", "ProcessingFailed", "Ok"]


@pytest.mark.slow
def test_three_megabytes_that_grow_are_answered_with_what_lambda_accepts():
    contents = [json.dumps({"n": 1, "word": "w" * 200}).encode() for _ in range(14_000)]
    made = recipe({"derive": {"again": "concat(word, word)"}})
    found, results = answered(made, contents)
    assert 5_900_000 < len(to_json(found.body)) <= LIMIT < OF_LAMBDA
    kept = sum(result == "Ok" for result, _, _ in results)
    assert found.rejected == (("s3", "answer_too_large", len(contents) - kept),)
    assert [result for result, _, _ in results] == ["Ok"] * kept + ["ProcessingFailed"] * (len(contents) - kept)
