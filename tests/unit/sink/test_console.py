import polars as pl
import pytest
from pydantic import ValidationError

from stream.pipeline.components import make_sink
from stream.sink.console import ConsoleSinkConfig
from stream.sink.partition import SinkMismatch
from tests.unit.sink.frames import SHARD_ID, rows

UNIT = "shardId-000000000003-1-9"
FRAME = rows(pl.DataFrame({"text": ["a", None, "ü\n"], "n": [1, 2, 3]}))


def test_each_row_is_one_line_of_json_and_the_placement_finds_it():
    encoded = make_sink(ConsoleSinkConfig(), FRAME.schema).encode(FRAME, UNIT)
    assert b"".join(file.body for file in encoded.files) == '{"text":"a","n":1}\n{"text":null,"n":2}\n{"text":"ü\\n","n":3}\n'.encode()
    assert [file.sink for file in encoded.files] == ["console"]
    assert encoded.placement.select("_row", "line").rows() == [(0, 0), (1, 1), (2, 2)]


def test_lineage_is_printed_if_configured():
    (file,) = make_sink(ConsoleSinkConfig(lineage=True, name="look"), FRAME.schema).encode(FRAME, UNIT).files
    assert f'"_shard":"{SHARD_ID}"' in file.body.decode()
    assert file.sink == "look"


def test_no_rows_print_nothing():
    assert make_sink(ConsoleSinkConfig(), FRAME.schema).encode(FRAME.clear(), UNIT).files == ()


def test_columns_that_json_cannot_hold_are_refused():
    with pytest.raises(SinkMismatch, match="no representation in ndjson"):
        ConsoleSinkConfig().check(pl.Schema({**FRAME.schema, "inner": pl.List(pl.Binary)}))


def test_the_url_is_always_standard_output():
    with pytest.raises(ValidationError, match="console:"):
        ConsoleSinkConfig(url="file:elsewhere")
