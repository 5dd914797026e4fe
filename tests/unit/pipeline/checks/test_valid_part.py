from stream.pipeline.checks.valid_part import valid_part

GOOD = {
    "application": "flights",
    "source": {"kinesis": {"stream": "flights"}, "schema": {"carrier": "string"}},
    "stages": [{"filter": "carrier = 'UA'"}, {"select": ["carrier"]}],
    "sinks": [{"s3": {"url": "s3://lake/a/"}}, {"s3": {"url": "s3://lake/b/", "name": "b"}}],
    "state": "s3://lake/_stream/",
}


def test_errors_unrelated_to_columns_are_left_out():
    data = {**GOOD, "flush": {"age": "soon"}, "nonsense": 1, "state": 5}
    found = valid_part(data, [("flush", "age"), ("nonsense",), ("state",)])
    assert found is not None
    assert (found.stages, found.sinks) == (2, {0, 1})
    assert found.pipeline.flush == type(found.pipeline.flush)()
    assert data["flush"] == {"age": "soon"}


def test_the_stages_before_the_first_invalid_one_are_kept():
    data = {**GOOD, "stages": [*GOOD["stages"], {"lokup": {}}, {"filter": "x"}]}
    found = valid_part(data, [("stages", 2, "lokup")])
    assert found is not None
    assert found.stages == len(found.pipeline.stages) == 2


def test_an_invalid_sink_keeps_its_place():
    data = {**GOOD, "sinks": [{"s3": {}}, *GOOD["sinks"]]}
    found = valid_part(data, [("sinks", 0, "s3")])
    assert found is not None
    assert found.sinks == {1, 2}
    assert [sink.url for sink in found.pipeline.sinks[1:]] == ["s3://lake/a/", "s3://lake/b/"]


def test_missing_parts_are_replaced():
    found = valid_part({"source": GOOD["source"]}, [(), ()][:0])
    assert found is not None
    assert (found.stages, found.sinks) == (0, frozenset())
    kinesis = {**GOOD, "source": {**GOOD["source"], "kinesis": {"start": "now"}}}
    assert valid_part(kinesis, [("source", "kinesis", "start")]) is not None


def test_a_column_of_an_invalid_type_is_doubtful_and_no_other():
    data = {**GOOD, "source": {**GOOD["source"], "schema": {"carrier": "string", "delay": "int46"}}}
    found = valid_part(data, [("source", "schema", "delay")])
    assert found is not None
    assert found.doubtful == {"delay"}
    assert found.pipeline.source.record_schema() is not None


def test_without_columns_nothing_is_kept():
    assert valid_part(GOOD, [("source", "schema", "carrier")]) is None  # the only one
    assert valid_part(GOOD, [("source", "schema")]) is None
    assert valid_part(GOOD, [("source", "decode")]) is None
    assert valid_part(GOOD, [("source",)]) is None
    assert valid_part(GOOD, [()]) is None
    assert valid_part([], [("flush",)]) is None
