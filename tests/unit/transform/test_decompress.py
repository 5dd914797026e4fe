import gzip
import random
import zlib

import pyarrow as pa
import pytest
from pydantic import ValidationError

from stream.transform import decompress as module
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
def test_data_decompresses_to_itself(codec, data):
    assert decompress(PACK[codec](data), Compression(codec=codec)) == data


@every_codec
def test_truncated_and_empty_records_are_rejected(codec):
    packed = PACK[codec](b"some text that is long enough")
    for bad in (packed[:-1], packed[: len(packed) // 2], b"", b"junk junk junk", packed[:3]):
        assert decompress(bad, Compression(codec=codec)) == "bad_compression"


@every_codec
@pytest.mark.parametrize("limit", [{"max_bytes": 999}, {"max_ratio": 2}], ids=str)
def test_output_over_the_limit_is_rejected(codec, limit):
    packed = PACK[codec](b"x" * 1000)
    assert decompress(packed, Compression(codec=codec, **limit)) == "decompressed_too_large"
    assert decompress(packed, Compression(codec=codec, max_bytes=1000)) == b"x" * 1000


@every_codec
def test_limits_may_exceed_any_size(codec):
    limits = Compression(codec=codec, max_bytes=2**70, max_ratio=2**70)
    assert decompress(PACK[codec](b"plain"), limits) == b"plain"


def test_a_decompression_bomb_is_stopped_early():
    bomb = zlib.compress(bytes(200_000_000), 9, wbits=31)
    assert decompress(bomb, Compression(codec="gzip", max_bytes=1000)) == "decompressed_too_large"


def test_concatenated_gzip_members_are_read():
    assert decompress(gzip.compress(b"a") + gzip.compress(b"b"), Compression(codec="gzip")) == b"ab"
    assert (
        decompress(gzip.compress(b"a" * 9) + gzip.compress(b"b" * 9), Compression(codec="gzip", max_bytes=17)) == "decompressed_too_large"
    )
    assert decompress(gzip.compress(b"a") + b"tail", Compression(codec="gzip")) == "bad_compression"


def test_a_snappy_block_with_a_false_size_is_rejected():
    assert decompress(b"\xff\xff\xff\xff\x7f" + b"x", Compression(codec="snappy")) == "decompressed_too_large"
    assert decompress(b"\xff\xff\xff\xff\xff\xff", Compression(codec="snappy")) == "bad_compression"


def test_only_the_bad_record_is_rejected():
    decoder = Json.model_validate({"compression": "gzip"})
    records = [gzip.compress(b'{"a":1}'), b"plain", gzip.compress(b"[]"), gzip.compress(b'{"a":2}')]
    applied = decoder.bound(parse_schema({"a": "int64"}))(raw_frame(records))
    assert user(applied.frame) == [{"a": 1}, {"a": 2}]
    assert applied.rejects.rows() == [(1, "bad_compression"), (2, "json_not_object")]


def test_options_are_validated():
    assert Json.model_validate({"compression": {"codec": "zstd", "max_ratio": 5}}).compression.max_ratio == 5
    assert Json.model_validate({"compression": "none"}).bound(parse_schema({"a": "int64"}))(raw_frame([b'{"a":1}'])).frame.height == 1
    for wrong in ("brotli", {"codec": "gzip", "max_bytes": 0}, {"max_bytes": 5}):
        with pytest.raises(ValidationError):
            Json.model_validate({"compression": wrong})


@pytest.mark.parametrize("size", [0, 1, 5, 255, 256, 300, 65_791, 65_792, 100_000])
def test_zstd_frames_of_all_sizes_are_read_alone_and_concatenated(size: int) -> None:
    plain = random.Random(size).randbytes(size // 2) + bytes(size - size // 2)
    packed = pa.compress(plain, "zstd", asbytes=True)
    other = pa.compress(b"other", "zstd", asbytes=True)
    wide = Compression(codec="zstd", max_ratio=10**6)

    assert decompress(packed, wide) == plain
    assert decompress(packed + other, wide) == plain + b"other"
    assert decompress(packed + b"tail", wide) == "bad_compression"
    assert decompress(packed[:-1], wide) == "bad_compression"
    if size > 1:
        assert decompress(packed, Compression(codec="zstd", max_bytes=size - 1, max_ratio=10**6)) == "decompressed_too_large"


def test_mutated_zstd_frames_give_the_same_as_when_read_byte_by_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(1)
    frames = [pa.compress(rng.randbytes(size) * 3, "zstd", asbytes=True) for size in (1, 10, 100, 300, 30_000)]
    bent = [
        frame[:at] + bytes([frame[at] ^ 1 << bit]) + frame[at + 1 :]
        for frame in frames
        for at in range(min(20, len(frame)))
        for bit in range(8)
    ]
    wide = Compression(codec="zstd", max_bytes=10**5, max_ratio=10**6)
    quick = [decompress(each, wide) for each in bent]
    monkeypatch.setattr(module, "_zstd_size", lambda _: 0)

    assert quick == [decompress(each, wide) for each in bent]
