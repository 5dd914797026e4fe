import gzip
import hashlib
import json
from datetime import UTC, datetime

import polars as pl
import pyarrow as pa
import pytest

from stream.audit.criteria import Criteria, in_file
from stream.audit.ledger import LedgerObject
from stream.audit.outputs import DEFAULT
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


def rows_in(file, body, text, separation=DEFAULT):
    """The rows that match every criterion of ``text``; None if the file lacks one of their columns."""
    wanted = Criteria.parse(text.split()).values
    found = in_file(file, body, wanted, separation)
    return list(found.rows) if len(found.columns) == len(wanted) else None


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
        ("n=2 name=", [3]),
        ("n=2 ok=true price=1e300", [3]),
        ("n=2 ok=true price=2", []),
        ("n=two ok=true", []),
        ("n=2 other=2", None),
    ],
)
def test_rows_with_the_value_are_found(text, rows):
    assert rows_in(*listed("x.parquet", parquet(FRAME)), text) == rows


@pytest.mark.parametrize(
    ("ending", "pack"),
    [("", bytes), (".gz", gzip.compress), (".zst", lambda body: pa.Codec("zstd").compress(body, asbytes=True))],
)
def test_json_lines_are_searched_too(ending, pack):
    body = b"".join(json.dumps({"n": n, "name": f"k{n}"}).encode() + b"\n" for n in (3, 4, 4))
    assert rows_in(*listed(f"x.ndjson{ending}", pack(body)), "n=4") == [1, 2]
    assert rows_in(*listed(f"x.ndjson{ending}", pack(body)), "n=3 name=k3") == [0]


@pytest.mark.parametrize("text", ["", "n", "=3"])
def test_text_that_is_not_a_criterion_is_refused(text):
    with pytest.raises(DefinitionError, match="column=value"):
        Criteria.parse(["n=1", text])


def test_what_the_ledger_knows_is_told_from_what_files_have():
    wanted = Criteria.parse(["n=1", "outcome=written", "name=a b", "trace_id=7"])
    assert (wanted.columns, [each.column for each in wanted.ledger]) == (("n", "name"), ["outcome", "trace_id"])


def test_a_column_that_is_named_twice_is_refused():
    with pytest.raises(DefinitionError, match="n is named twice, and every column=value must hold"):
        Criteria.parse(["n=1", "name=x", "n=2"])
