import gzip
import hashlib
import json
from datetime import UTC, datetime

import polars as pl
import pyarrow as pa
import pytest

from stream.audit.criteria import Criterion, in_file
from stream.audit.ledger import LedgerObject
from stream.errors import DefinitionError
from stream.sink.encode import parquet

FRAME = pl.DataFrame(
    {
        "n": [1, 2, None, 2],
        "name": ["a=b", "2", None, ""],
        "ok": [True, False, None, True],
        "at": [datetime(2026, 1, day, tzinfo=UTC) for day in range(1, 5)],
        "price": [0.5, 2.0, None, 1e300],
    }
)


def listed(key, body):
    """A file with that content, as a manifest lists it, and the content."""
    return LedgerObject("s3", key, 0, len(body), hashlib.sha256(body).hexdigest()), body


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("n=2", [1, 3]),
        ("n=9", []),
        ("n=two", []),
        ("name=a=b", [0]),
        ("name=2", [1]),
        ("name=", [3]),
        ("ok=TRUE", [0, 3]),
        ("ok=1", []),
        ("at=2026-01-02T00:00:00Z", [1]),
        ("price=2", [1]),
        ("price=1e300", [3]),
        ("other=2", None),
    ],
)
def test_rows_with_the_value_are_found(text, rows):
    assert in_file(*listed("x.parquet", parquet(FRAME)), Criterion.parse(text)) == rows


@pytest.mark.parametrize(
    ("ending", "pack"),
    [("", bytes), (".gz", gzip.compress), (".zst", lambda body: pa.Codec("zstd").compress(body, asbytes=True))],
)
def test_json_lines_are_searched_too(ending, pack):
    body = b"".join(json.dumps({"n": n, "name": f"k{n}"}).encode() + b"\n" for n in (3, 4, 4))
    assert in_file(*listed(f"x.ndjson{ending}", pack(body)), Criterion.parse("n=4")) == [1, 2]
    assert in_file(*listed(f"x.ndjson{ending}", pack(body)), Criterion.parse("name=k3")) == [0]


@pytest.mark.parametrize("text", ["", "n", "=3"])
def test_text_that_is_not_a_criterion_is_refused(text):
    with pytest.raises(DefinitionError, match="column=value"):
        Criterion.parse(text)
