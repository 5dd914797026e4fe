import pytest

from stream.transform.decoders.raw import Raw
from stream.transform.stage import SchemaMismatch
from stream.transform.types import parse_schema
from tests.frames import raw_frame, user


def test_bytes_are_unchanged():
    applied = Raw().bind(None)(raw_frame([b"\xff\x00", b""]))
    assert user(applied.frame) == [{"data": b"\xff\x00", "partition_key": "k"}, {"data": b"", "partition_key": "k"}]
    assert applied.rejects is None


def test_a_schema_is_refused():
    with pytest.raises(SchemaMismatch, match="takes no schema"):
        Raw().output(parse_schema({"a": "int64"}))
