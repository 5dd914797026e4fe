"""Objects of JSON documents, Parquet, Arrow and Avro end to end: rows, positions, damage, redrives, traces and the proof."""

import gzip
import io
import json

import fastavro
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from stream.cli.main import app
from stream.source.unreadable import UNREADABLE
from stream.worker.sources.dead_letters import STATE, WAITING
from stream.worker.sources.reading import Reading
from tests.integration.test_replay import place, truth, written  # noqa: F401 - the fixture
from tests.replays import row

AVRO = {
    "type": "record",
    "name": "row",
    "fields": [{"name": "id", "type": "long"}, {"name": "kind", "type": "string"}, {"name": "value", "type": ["null", "long"]}],
}


def table(numbers):
    return pa.Table.from_pylist([row(n) for n in numbers], pa.schema({"id": pa.int64(), "kind": pa.string(), "value": pa.int64()}))


def parquet(numbers, size=90):
    out = io.BytesIO()
    pq.write_table(table(numbers), out, row_group_size=size)
    return out.getvalue()


def arrow(numbers, size=90, new=pa.ipc.new_file):
    out = io.BytesIO()
    rows = table(numbers)
    with new(out, rows.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(rows, max_chunksize=size)
    return out.getvalue()


def arrow_stream(numbers, size=90):
    return arrow(numbers, size, pa.ipc.new_stream)


def avro(numbers, size=90):
    out = io.BytesIO()
    fastavro.writer(out, AVRO, [row(n) for n in numbers], codec="deflate", sync_interval=size * 11)
    return out.getvalue()


def concatenated(numbers, size=90):
    return gzip.compress("".join(json.dumps(row(n)) for n in numbers).encode())


def delivered(numbers, size=90):
    return gzip.compress(json.dumps({"digest": [1, {"Records": 2}], "Records": [row(n) for n in numbers]}, indent=1).encode())


FORMATS = {
    "parquet": (parquet, "x.parquet", ", format: parquet"),
    "arrow": (arrow, "x.arrow", ", format: arrow"),
    "arrow stream": (arrow_stream, "x.arrows", ", format: arrow"),
    "avro": (avro, "x.avro", ", format: avro"),
    "json": (concatenated, "x.json.gz", ", format: json"),
    "records": (delivered, "x.json.gz", ", format: json, records: Records"),
}


def put(place, name, body):  # noqa: F811 - the fixture
    path = place.folder / "in" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)
    return path


@pytest.mark.parametrize("name", FORMATS)
def test_rows_are_written_once_with_their_positions_and_proved(place, name):  # noqa: F811 - the fixture
    made, key, options = FORMATS[name]
    place.settings = {"s3": options, "rows": 37}
    put(place, f"a/{key}", made(range(400)))
    put(place, f"b/{key}", made(range(400, 500)))
    assert place.run().code == 0
    assert written(place).equals(truth(range(500)))
    rows = place.rows().filter(pl.col("id") < 400)
    assert sorted(rows.select(pl.col("_sequence").cast(pl.Int64) % 10**12 - 1, "id").rows()) == [(n, n) for n in range(400)]
    # `audit verify` reads everything again from the objects.
    assert place.proof() == []
    one = rows.filter(pl.col("id") == 123).row(0, named=True)
    record = f"{one['_shard']}:{one['_sequence']}"
    shown = CliRunner().invoke(app, ["trace", str(place.file()), record, "--show", "--reveal"])
    assert shown.exit_code == 0, shown.output
    assert "written" in shown.output


@pytest.mark.parametrize("name", FORMATS)
def test_a_damaged_object_is_one_dead_letter_and_nothing_of_it_is_there_twice(place, name):  # noqa: F811 - the fixture
    made, key, options = FORMATS[name]
    place.settings = {"s3": f"{options}, shards: 1, watch: {{}}", "rows": 37}
    body = made(range(400, 800))
    if name == "records":
        body = gzip.compress(gzip.decompress(body)[:-9])
    elif name == "json":
        body = gzip.compress(gzip.decompress(body), 0)[:-9]
    else:
        at = 3 * len(body) // 5
        body = body[:at] + bytes(64) + body[at + 64 :]
    put(place, f"a/{key}", made(range(400)))
    put(place, f"b/{key}", body)
    put(place, f"c/{key}", made(range(800, 900)))
    assert place.run(Reading(once=True)).code == 0
    letters = place.table()
    (letter,) = letters.filter(pl.col("stage") == "source").rows(named=True)
    assert (letter["reason"], letter[STATE], int(letter["_sequence"]) % 10**12) == ("object_unreadable", WAITING, UNREADABLE)
    part = json.loads(letter["_data"])
    assert part["key"] == f"b/{key}"
    before = part["after"]
    assert before < 400
    assert written(place).equals(truth([*range(400), *range(400, 400 + before), *range(800, 900)]))
    assert place.proof() == []
    # Redriven, it still cannot be read: what was written stays, and is not there again.
    assert place.redrive()[1].code == 0
    assert written(place).height == 400 + before + 100
    assert place.proof() == []
    assert place.run(Reading(once=True)).code == 0
    assert written(place).height == 400 + before + 100


def test_a_value_that_json_has_not_is_a_dead_letter_that_names_the_column(place):  # noqa: F811 - the fixture
    place.settings = {"s3": ", format: arrow", "value": "float64?"}
    out = io.BytesIO()
    rows = pa.table({"id": [1, 2, 3], "kind": ["a", "b", "c"], "value": pa.array([1.5, float("nan"), None], pa.float64())})
    with pa.ipc.new_stream(out, rows.schema) as writer:
        writer.write_table(rows)
    put(place, "x.arrow", out.getvalue())
    assert place.run().code == 0
    (letter,) = place.table().rows(named=True)
    assert (letter["stage"], letter["reason"]) == ("decode", "wrong_type:value")
    assert json.loads(letter["_data"]) == {"id": 2, "kind": "b", "value": "NaN"}
    assert sorted(place.rows()["id"]) == [1, 3]
    assert place.proof() == []


def test_a_wrong_path_is_corrected_and_redriven(place):  # noqa: F811 - the fixture
    wrong, right = (f", format: json, records: {path}, shards: 1, watch: {{}}" for path in ("records", "Records"))
    put(place, "x.json.gz", delivered(range(300)))
    assert place.run(Reading(once=True), s3=wrong).code == 0
    assert "no member 'records'; see source.s3.records" in json.loads(place.table(s3=wrong)["_data"][0])["why"]
    assert place.redrive(s3=right)[1].code == 0
    assert written(place).equals(truth(range(300)))
    assert place.proof(s3=right) == []
