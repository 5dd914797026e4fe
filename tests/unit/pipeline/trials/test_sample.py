from __future__ import annotations

import polars as pl
import pytest

from stream.errors import DefinitionError
from stream.pipeline.model import Pipeline
from stream.pipeline.trials.sample import from_file, generated
from tests.unit.pipeline.definitions import least


def data(batch):
    return batch.frame["_data"].to_list()


def test_each_line_is_a_record(tmp_path):
    file = tmp_path / "s.ndjson"
    file.write_bytes(b'{"a": 1}\r\n\n  \n{"a": 2}\n{"a": 3}')
    assert data(from_file(file, 10)) == [b'{"a": 1}', b'{"a": 2}', b'{"a": 3}']
    assert data(from_file(file, 2)) == [b'{"a": 1}', b'{"a": 2}']


def test_a_byte_order_mark_and_windows_line_ends_are_no_part_of_a_record(tmp_path):
    (tmp_path / "s.ndjson").write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n{"a": 2}\r\n')
    assert data(from_file(tmp_path / "s.ndjson", 10)) == [b'{"a": 1}', b'{"a": 2}']


def test_dead_letters_can_be_used_as_a_sample(tmp_path):
    file = tmp_path / "rejects.parquet"
    pl.DataFrame({"_data": [b"{", None], "data": [b"other", b"other"]}).write_parquet(file)
    assert data(from_file(file, 10)) == [b"{"]


def test_any_other_file_is_one_record(tmp_path):
    file = tmp_path / "one.bin"
    file.write_bytes(b"\x00\n\xff")
    assert data(from_file(file, 10)) == [b"\x00\n\xff"]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [("none.txt", None, "cannot be read"), ("s.txt", b"\n", "no record"), ("x.bin", b"", "no record"), ("x.parquet", b"x", "as parquet")],
)
def test_files_that_are_no_sample_are_refused(tmp_path, name, content, says):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DefinitionError, match=says):
        from_file(tmp_path / name, 1)


def test_parquet_without_records_names_its_columns(tmp_path):
    pl.DataFrame({"data": ["text"]}).write_parquet(tmp_path / "x.parquet")
    with pytest.raises(DefinitionError, match="its columns are: data"):
        from_file(tmp_path / "x.parquet", 1)


def test_generated_records_are_the_same_for_the_same_seed():
    pipeline = Pipeline.model_validate(least())
    assert data(generated(pipeline, 20, 1)) == data(generated(pipeline, 20, 1)) != data(generated(pipeline, 20, 2))
