"""Records to try a pipeline on: from a file, generated from the schema, or passed in by the caller."""

from __future__ import annotations

import io
from codecs import BOM_UTF8
from pathlib import Path
from typing import Final

import polars as pl

from stream.batch import DATA, Batch
from stream.errors import DefinitionError
from stream.pipeline.model import Pipeline
from stream.pipeline.trials.random_records import random_records
from stream.pipeline.trials.trial import batch_of

LINES: Final = (".ndjson", ".jsonl", ".json", ".csv", ".txt", ".log")
"""Suffixes of files in which each line is one record."""

MAX_SAMPLE_BYTES: Final = 256 * 2**20
PAYLOAD_COLUMNS: Final = (DATA, "data")
"""Columns of a Parquet file that may hold the records: that of dead letters, and that of the decoder `raw`."""


def generated(pipeline: Pipeline, count: int, seed: int) -> Batch:
    """Random records for the pipeline's schema, good and bad; the same for the same seed."""
    source = pipeline.source
    return batch_of((), random_records(source.decode, source.record_schema(), count, seed))


def from_file(path: Path, count: int) -> Batch:
    """The first ``count`` records of a file.

    Text files have one record per line, without the line break; blank lines and a byte order mark at the beginning are passed over.
    Parquet files have them in a binary column, so that dead letters can be tried again. Any other file is one record.

    Raises:
        DefinitionError: it cannot be read, is too large, or holds no record.
    """
    try:
        if path.stat().st_size > MAX_SAMPLE_BYTES:
            msg = f"the sample {path} has {path.stat().st_size} bytes; at most {MAX_SAMPLE_BYTES} are read"
            raise DefinitionError(msg)
        content = path.read_bytes()
    except OSError as error:
        msg = f"the sample {path} cannot be read: {error.strerror}"
        raise DefinitionError(msg) from error
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        records = _of_parquet(path, content)
    elif suffix in LINES:
        records = [line for line in (each.removesuffix(b"\r") for each in content.removeprefix(BOM_UTF8).split(b"\n")) if line.strip()]
    else:
        records = [content] if content else []
    if not records:
        msg = f"the sample {path} has no records"
        raise DefinitionError(msg)
    return batch_of((), records[:count])


def _of_parquet(path: Path, content: bytes) -> list[bytes]:
    try:
        frame = pl.read_parquet(io.BytesIO(content))
    except (pl.exceptions.PolarsError, OSError) as error:
        msg = f"the sample {path} cannot be read as parquet: {str(error).splitlines()[0]}"
        raise DefinitionError(msg) from error
    found = [name for name in PAYLOAD_COLUMNS if frame.schema.get(name) == pl.Binary()]
    if not found:
        msg = f"the sample {path} has no binary column `_data` or `data`; its columns are: {', '.join(frame.columns)}"
        raise DefinitionError(msg)
    return frame[found[0]].drop_nulls().to_list()
