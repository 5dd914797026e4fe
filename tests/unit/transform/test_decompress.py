import gzip
import zlib

import pyarrow as pa
import pytest
from pydantic import ValidationError

from stream.transform.decoders.json import Json
from stream.transform.decompress import Compression, decompress
from stream.transform.types import parse_schema
from tests.frames import raw_frame, user

PACK = {
    "gzip": gzip.compress,
    "zstd": lambda data: pa.compress(data, codec="zstd", asbytes=True),
    "snappy": lambda data: pa.compress(data, codec="snappy", asbytes=True),
}
every_codec = pytest.mark.parametrize("codec", PACK)


@every_codec
@pytest.mark.parametrize("data", [b"", b"x", b"some text " * 50], ids=len)
def test_what_went_in_comes_out(codec, data):
    assert decompress(PACK[codec](data), Compression(codec=codec)) == data


@every_codec
def test_cut_off_or_empty_records_are_bad(codec):
    packed = PACK[codec](b"some text that is long enough")
    for bad in (packed[:-1], packed[: len(packed) // 2], b"", b"junk junk junk", packed[:3]):
        assert decompress(bad, Compression(codec=codec)) == "bad_compression"


@every_codec
@pytest.mark.parametrize("limit", [{"max_bytes": 999}, {"max_ratio": 2}], ids=str)
def test_no_more_comes_out_than_is_allowed(codec, limit):
    packed = PACK[codec](b"x" * 1000)
    assert decompress(packed, Compression(codec=codec, **limit)) == "decompressed_too_large"
    assert decompress(packed, Compression(codec=codec, max_bytes=1000)) == b"x" * 1000


@every_codec
def test_limits_may_be_higher_than_any_size(codec):
    limits = Compression(codec=codec, max_bytes=2**70, max_ratio=2**70)
    assert decompress(PACK[codec](b"plain"), limits) == b"plain"


def test_a_bomb_is_left_after_its_first_bytes():
    bomb = zlib.compress(bytes(200_000_000), 9, wbits=31)
    assert decompress(bomb, Compression(codec="gzip", max_bytes=1000)) == "decompressed_too_large"


def test_gzip_members_follow_each_other():
    assert decompress(gzip.compress(b"a") + gzip.compress(b"b"), Compression(codec="gzip")) == b"ab"
    assert (
        decompress(gzip.compress(b"a" * 9) + gzip.compress(b"b" * 9), Compression(codec="gzip", max_bytes=17)) == "decompressed_too_large"
    )
    assert decompress(gzip.compress(b"a") + b"tail", Compression(codec="gzip")) == "bad_compression"


def test_a_snappy_block_that_lies_about_its_size():
    assert decompress(b"\xff\xff\xff\xff\x7f" + b"x", Compression(codec="snappy")) == "decompressed_too_large"
    assert decompress(b"\xff\xff\xff\xff\xff\xff", Compression(codec="snappy")) == "bad_compression"


def test_only_the_bad_record_is_rejected():
    decoder = Json.model_validate({"compression": "gzip"})
    records = [gzip.compress(b'{"a":1}'), b"plain", gzip.compress(b"[]"), gzip.compress(b'{"a":2}')]
    applied = decoder.bound(parse_schema({"a": "int64"}))(raw_frame(records))
    assert user(applied.frame) == [{"a": 1}, {"a": 2}]
    assert applied.rejects.rows() == [(1, "bad_compression"), (2, "json_not_object")]


def test_options():
    assert Json.model_validate({"compression": {"codec": "zstd", "max_ratio": 5}}).compression.max_ratio == 5
    assert Json.model_validate({"compression": "none"}).bound(parse_schema({"a": "int64"}))(raw_frame([b'{"a":1}'])).frame.height == 1
    for wrong in ("brotli", {"codec": "gzip", "max_bytes": 0}, {"max_bytes": 5}):
        with pytest.raises(ValidationError):
            Json.model_validate({"compression": wrong})
