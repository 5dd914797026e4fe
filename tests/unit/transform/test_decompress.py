import gzip
import random
import struct
import zlib

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from stream import native
from stream.transform import decompress as module
from stream.transform.decoders.json import Json
from stream.transform.decompress import Compression, decompress, decompressing
from stream.transform.stage import Applied
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


def opened(files: list[bytes], **limits: int) -> list[bytes | str]:
    """What becomes of each of ``files`` among the others."""
    frame = raw_frame(files)
    applied = decompressing(Compression(codec="gzip", **limits), Applied)(frame)
    found: dict[int, bytes | str] = dict(applied.frame.select("_row", "_data").iter_rows())
    found |= dict(applied.rejects.iter_rows()) if applied.rejects is not None else {}
    assert applied.frame["_row"].is_sorted()
    return [found[row] for row in range(len(files))]


def assert_same(files: list[bytes], **limits: int) -> None:
    assert opened(files, **limits) == [decompress(each, Compression(codec="gzip", **limits)) for each in files]


def member(plain: bytes, body: bytes, *, flags: int = 0, extra: bytes = b"", tail: bytes | None = None) -> bytes:
    head = b"\x1f\x8b\x08" + bytes([flags]) + b"\0\0\0\0\0\xff" + extra
    return head + body + (struct.pack("<II", zlib.crc32(plain), len(plain) & 0xFFFFFFFF) if tail is None else tail)


def deflated(plain: bytes, level: int, strategy: int) -> bytes:
    packer = zlib.compressobj(level, zlib.DEFLATED, -15, 8, strategy)
    return packer.compress(plain) + packer.flush()


EXTRAS = [
    (0, b""),
    (1, b""),
    (8, b"name\0"),
    (16, b"\0"),
    (24, b"name\0comment\0"),
    (4, b"\3\0abc"),
    (2, b"\0\0"),
    (32, b""),
    (8, b"name"),
    (4, b"\xff\xff"),
]


def gzipped(seed: int) -> bytes:
    """A file that is good, seldom seen, or bent."""
    dice = random.Random(seed)
    words = [dice.randbytes(dice.randrange(1, 20)) for _ in range(dice.randrange(1, 9))]
    plain = b"".join(dice.choice(words) for _ in range(dice.choice((0, 1, 5, 50, 500, 5000))))
    body = deflated(
        plain, dice.randrange(10), dice.choice((zlib.Z_DEFAULT_STRATEGY, zlib.Z_HUFFMAN_ONLY, zlib.Z_RLE, zlib.Z_FIXED, zlib.Z_FILTERED))
    )
    flags, extra = EXTRAS[0] if dice.random() < 0.7 else dice.choice(EXTRAS)
    whole = member(plain, body, flags=flags, extra=extra)
    kind, at = dice.randrange(12), dice.randrange(len(whole))
    if kind == 0:
        return whole[:at]
    if kind == 1:
        return whole + dice.choice([b"\0", b"junk", whole, whole[:at], member(b"", b"\3\0")])
    if kind == 2:
        return whole[:at] + bytes([whole[at] ^ 1 << dice.randrange(8)]) + whole[at + 1 :]
    if kind == 3:
        # Bent, but with the sum of what zlib makes of it, so that no sum tells that something is wrong.
        place = dice.randrange(len(body))
        body = body[:place] + dice.randbytes(dice.randrange(3)) + body[place + dice.randrange(2) :]
        reader = zlib.decompressobj(-15)
        try:
            plain = reader.decompress(body, 10**6)
        except zlib.error:
            return member(plain, body)
        return member(plain, body[: len(body) - len(reader.unused_data)])
    return whole


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.integers(0, 2**32), max_size=6),
    st.sampled_from([{}, {"max_bytes": 100}, {"max_ratio": 2}, {"max_bytes": 10**30, "max_ratio": 10**30}]),
)
def test_gzip_files_among_others_are_what_they_are_alone(seeds: list[int], limits: dict[str, int]) -> None:
    assert_same([gzipped(seed) for seed in seeds], **limits)


def test_files_with_nothing_in_them() -> None:
    assert opened([b"", b"x", gzip.compress(b"", mtime=0)]) == ["bad_compression", "bad_compression", b""]
    assert opened([]) == []


@pytest.mark.parametrize("size", [0, 1, 15, 16, 63, 64, 65, 79, 80, 1000, 65_535, 65_536, 200_000])
@pytest.mark.parametrize("level", [0, 1, 9])
def test_texts_of_many_sizes(size: int, level: int) -> None:
    text = random.Random(size).randbytes(size // 2 + 1) + bytes(size)
    files = [gzip.compress(text[:size], level), gzip.compress(text[-size:], level)]

    assert opened(files, max_ratio=10**6) == [text[:size], text[-size:]]
    assert_same(files, max_bytes=max(1, size - 1), max_ratio=10**6)


def test_parts_hold_no_more_than_they_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_HELD", 1000)
    sizes: list[int] = []

    def note(part: pl.DataFrame) -> Applied:
        sizes.append(int(part["_data"].bin.size().sum()))
        return Applied(part)

    texts = [bytes([at]) * size for at, size in enumerate([400, 400, 400, 2000, 1, 0, 999, 1000, 1])]
    files = [gzip.compress(text) for text in texts]
    got = decompressing(Compression(codec="gzip"), note)(raw_frame([*files[:4], b"bad", *files[4:]]))

    assert got.frame["_data"].to_list() == texts
    assert got.rejects is not None
    assert got.rejects.rows() == [(4, "bad_compression")]
    assert sizes == [800, 400, 2000, 1000, 1000, 1]


class Bits:
    """A block of DEFLATE with codes of one's own (RFC 1951, section 3.2.7)."""

    def __init__(self) -> None:
        self.value = self.size = 0

    def number(self, value: int, size: int) -> None:
        self.value |= value << self.size
        self.size += size

    def code(self, lengths: list[int], symbol: int) -> None:
        before = sorted((size, at) for at, size in enumerate(lengths) if size)
        code = 0
        for (size, at), (longer, _) in zip(before, [*before[1:], (0, 0)], strict=True):
            if at == symbol:
                self.number(int(f"{code:0{size}b}"[::-1], 2), size)
            code = (code + 1) << max(0, longer - size)

    def block(self, literals: dict[int, int], distances: dict[int, int], symbols: list[tuple[str, int]], **counts: int) -> bytes:
        kinds = {"l": [literals.get(at, 0) for at in range(counts.get("lengths", 286))]}
        kinds["d"] = [distances.get(at, 0) for at in range(counts.get("apart", 30))]
        # Codes of four bits for lengths 0 to 15 use up all there are; fewer of them do not.
        own = [4 if at < counts.get("own", 16) else 0 for at in range(19)]
        for value, size in [(1, 1), (2, 2), (len(kinds["l"]) - 257, 5), (len(kinds["d"]) - 1, 5), (15, 4)]:
            self.number(value, size)
        for at in (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15):
            self.number(own[at], 3)
        for length in kinds["l"] + kinds["d"]:
            self.code(own, length)
        for kind, symbol in symbols:
            if kind == "x":
                self.number(symbol, 1)
            else:
                self.code(kinds[kind], symbol)
        return self.value.to_bytes(self.size // 8 + 1, "little")


A, B, END = ord("a"), ord("b"), 256
ENDS = {A: 1, END: 1}
PAIR = {A: 1, B: 2, END: 3, 257: 3}
ONCE = [("l", A), ("l", END)]
TWICE = [("l", A), ("l", 257), ("d", 0), ("l", END)]


@pytest.mark.parametrize(
    ("plain", "body", "good"),
    [
        (b"a", Bits().block(ENDS, {}, ONCE), True),
        (b"", Bits().block({END: 1}, {}, [("l", END)]), True),
        (b"aaaa", Bits().block(PAIR, {0: 1}, TWICE), True),
        (b"aaaa", Bits().block(PAIR, {0: 1, 1: 1}, TWICE), True),
        (b"aaaa", Bits().block(PAIR, {0: 2}, TWICE), False),
        (b"aaaa", Bits().block(PAIR, {0: 1, 1: 2}, TWICE), False),
        (b"a", Bits().block({A: 2, END: 2}, {}, ONCE), False),
        (b"a", Bits().block({A: 1, B: 1, END: 1}, {}, ONCE), False),
        (b"a", Bits().block({A: 1, END: 2}, {}, ONCE), False),
        (b"a", Bits().block(ENDS, {}, ONCE, lengths=287), False),
        (b"a", Bits().block(ENDS, {}, ONCE, lengths=287, apart=1), False),
        (b"a", Bits().block(ENDS, {}, ONCE, apart=31), False),
        (b"a", Bits().block(ENDS, {}, ONCE, lengths=257, apart=1), True),
        (b"abc", b"\1\3\0\xfc\xffabc", True),
        (b"abc", b"\1\3\0\xfc\xfeabc", False),
        (b"a", Bits().block(ENDS, {}, ONCE, own=15), False),
        (b"\0\0\0", Bits().block(PAIR, {0: 1}, TWICE[1:]), False),
        (b"a" * 5, Bits().block({A: 1, END: 2, 258: 2}, {29: 1}, [("l", A), ("l", 258), ("d", 29), *[("x", 0)] * 13, ("l", END)]), False),
        (b"b", Bits().block({at: min(at + 1, 15) for at in range(15)} | {END: 15}, {}, [("l", 14), ("l", END)]), False),
        (
            b"\x0e\x00\x0d",
            Bits().block({at: at + 1 for at in range(15)} | {END: 15}, {}, [("l", 14), ("l", 0), ("l", 13), ("l", END)]),
            True,
        ),
    ],
)
def test_codes_that_zlib_takes_or_not(plain: bytes, body: bytes, good: bool) -> None:
    file = member(plain, body)

    assert decompress(file, Compression(codec="gzip")) == (plain if good else "bad_compression")
    assert_same([file, gzip.compress(b"other"), file])
    if native.KERNEL is not None:
        views, buffers = native.views(pl.Series([file], dtype=pl.Binary))
        assert bytes(native.KERNEL.gunzip(views, buffers, 0, 100, 100, 100)[1]) == bytes([not good])


def test_limits_of_the_kernel_are_checked() -> None:
    if native.KERNEL is not None:
        for limits in [(-1, 1, 1, 1), (0, -1, 1, 1), (0, 1, -1, 1), (0, 1, 1, 0)]:
            with pytest.raises(ValueError, match="positive"):
                native.KERNEL.gunzip(b"", (), *limits)


@pytest.mark.parametrize("size", [0, 1, 5, 255, 256, 300, 65_791, 65_792, 100_000])
def test_zstd_frames_of_all_sizes_alone_and_one_behind_another(size: int) -> None:
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


def test_bent_zstd_frames_are_what_they_are_read_byte_by_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    dice = random.Random(1)
    frames = [pa.compress(dice.randbytes(size) * 3, "zstd", asbytes=True) for size in (1, 10, 100, 300, 30_000)]
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
