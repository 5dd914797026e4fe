"""JSON lines record by record: the lines of the files that the sink would write, and the partitions that it would put them in."""

import base64
import gzip

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from stream.batch import ROW
from stream.sink.objects import ObjectsSink, ObjectsSinkConfig
from stream.sink.record_lines import LINES, RecordLines

VALUES = st.one_of(st.none(), st.text(max_size=6), st.sampled_from(["", ".", "__x", "a/b=c", "\u2028", "x\ny", "\x85"]))


def config(**changes):
    return ObjectsSinkConfig.model_validate({"url": "memory:", "format": "ndjson", "lineage": False} | changes)


@given(st.lists(st.tuples(st.lists(VALUES, max_size=3), st.booleans()), max_size=12))
def test_the_lines_are_those_of_the_files_and_the_partitions_those_of_their_directories(records):
    rows = [(at, value) for at, (values, _) in enumerate(records) for value in values]
    frame = pl.DataFrame(rows, {ROW: pl.UInt32(), "a": pl.String()}, orient="row")
    made, partitions = RecordLines(config(partition_by="a")).encode(frame)
    files = ObjectsSink(config(partition_by="a")).encode(frame, "unit").files
    by_directory = {file.key.rpartition("/")[0]: sorted(gzip.decompress(file.body).split(b"\n")[:-1]) for file in files}
    found: dict[str, list[bytes]] = {directory: [] for directory in by_directory}
    assert made.schema == LINES
    assert made[ROW].to_list() == [at for at, (values, _) in enumerate(records) if values]
    for row, text, partition, one in made.iter_rows():
        lines = base64.b64decode(text).split(b"\n")
        assert lines.pop() == b""
        assert len(lines) == len(records[row][0])
        assert one == (len(set(records[row][0])) == 1)
        if one:
            (value,) = partitions[partition].values()
            found[f"a={value}"] += lines
        else:
            for value, line in zip(records[row][0], lines, strict=True):
                (directory,) = [name for name, known in by_directory.items() if line in known and _holds(frame, name, value, by_directory)]
                found[directory].append(line)
    assert {name: sorted(lines) for name, lines in found.items()} == by_directory


def _holds(frame, name, value, by_directory):
    only = ObjectsSink(config(partition_by="a")).encode(frame.filter(pl.col("a").eq_missing(value)), "unit").files
    return {file.key.rpartition("/")[0] for file in only} == {name}


def test_without_partitions_there_are_no_keys():
    frame = pl.DataFrame({ROW: pl.Series([0, 0, 3], dtype=pl.UInt32()), "a": ["x", "y", "z"]})
    made, partitions = RecordLines(config()).encode(frame)
    assert partitions == ({},)
    assert made["one_partition"].to_list() == [True, True]
    assert [base64.b64decode(text) for text in made["lines"]] == [b'{"a":"x"}\n{"a":"y"}\n', b'{"a":"z"}\n']


def test_the_names_of_keys_are_those_in_the_file_and_their_values_never_empty():
    frame = pl.DataFrame({ROW: pl.Series([0, 1], dtype=pl.UInt32()), "a b": [None, ""]})
    _, partitions = RecordLines(config(partition_by=["a b", {"c": "1"}])).encode(frame)
    assert partitions == ({"a b": "__HIVE_DEFAULT_PARTITION__", "c": "1"}, {"a b": "__EMPTY__", "c": "1"})


def test_beyond_the_limit_of_partitions_rows_share_one():
    frame = pl.DataFrame({ROW: pl.Series(range(5), dtype=pl.UInt32()), "a": ["p", "q", "r", "p", "s"]})
    made, partitions = RecordLines(config(partition_by="a", max_partitions=2)).encode(frame)
    assert [partitions[at]["a"] for at in made["partition"]] == ["p", "q", "__overflow__", "p", "__overflow__"]
