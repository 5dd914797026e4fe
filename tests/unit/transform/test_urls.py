import re

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.native import KERNEL
from stream.transform import bytewise, urls

PIECES = (
    "https://", "http://", "HTTP://", "s3://", "ftp://", "wss://", "//", "/", "?", "#", ":", "@", ":80", ":65536", ":123456", ":08",
    "a.example", "B.Example", "LONG.Host.Example", "user", "[::1]", "path", "x=1", "&", "%20", " ", "\t", "\x7f", "é", "\u00a0",
    "mailto:", "1", "-", ".", "[ab]", "[x]", "]", "ftps+x", "VERYLONGSCHEME",
)  # fmt: skip
KERNELS = [pytest.param(None, id="ordinary"), *([pytest.param(KERNEL, id="compiled")] if KERNEL is not None else [])]
# Each says itself whether the kernel is used, so without it they would do nothing else.
pytestmark = pytest.mark.compares_kernel
TEXTS = st.lists(st.none() | st.lists(st.sampled_from(PIECES), max_size=9).map("".join), max_size=30)


def by_hand(text):
    """RFC 3986's parts of one URL, or None."""
    found = re.match(urls.PATTERN, text) if not re.search(r"[\s\x85\u00a0]", text) else None
    if found is None:
        return None
    parts = found.groupdict()
    port = int(parts["port"]) if parts["port"] else None
    if port is not None and port > 65_535:
        return None
    if parts["host"] is not None and parts["path"] and not parts["path"].startswith("/"):
        return None
    return {**parts, "port": port, "scheme": parts["scheme"] and parts["scheme"].lower(), "host": parts["host"] and parts["host"].lower()}


@pytest.mark.parametrize("kernel", KERNELS)
@settings(max_examples=200, deadline=None)
@given(TEXTS)
def test_every_url_has_the_parts_that_the_rfc_pattern_gives(kernel, texts):
    done, reason = urls.url("", urls.PARTS, "u", kernel).read(pl.Series(texts, dtype=pl.String))
    nothing = dict.fromkeys(urls.PARTS)
    for text, row, why in zip(texts, done.rows(named=True), reason, strict=True):
        wanted = nothing if text is None else by_hand(text)
        assert why == ("parse_failed:u" if wanted is None else None)
        assert wanted is None or row == wanted


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    "text", ["http://a@b@evil.example/", "http://h:8x/", "http://h:80:90/", "http://[::1", "http://[::1]x/", "//u@h@i"]
)
def test_text_after_a_host_without_a_slash_is_rejected(text, kernel):
    done, reason = urls.url("", urls.PARTS, "u", kernel).read(pl.Series([text]))
    assert reason.to_list() == ["parse_failed:u"]
    assert set(done.row(0)) == {None}


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("parts", [["query"], ["port", "host"], ["fragment", "path"], ["scheme", "user"]])
def test_selected_parts_equal_those_of_all_parts(parts, kernel):
    texts = pl.Series(["https://a.example:8080/p?q#f", "/p?q", "//b/c", None, "http://B?x#y?z", "x y", "s3://bucket/key"])
    whole, refused = urls.url("", urls.PARTS, "u", kernel).read(texts)
    some, also = urls.url("", parts, "u", kernel).read(texts)
    assert some.equals(whole.select(parts))
    assert refused.equals(also, null_equal=True)


@pytest.mark.parametrize("kernel", KERNELS)
def test_unusual_urls_beside_plain_ones_are_read_in_many_pieces(kernel):
    some = ["https://a.example/p?q#f", "http://ü.example/", None, "/only/path", "ftp://h/x", "bad url"]
    times = 2 * bytewise.PIECE_ROWS // len(some) + 9
    done, reason = urls.url("u_", ["host", "path"], "u", kernel).read(pl.Series(some * times))
    assert done["u_host"].to_list() == ["a.example", "ü.example", None, None, "h", None] * times
    assert done["u_path"].to_list() == ["/p", "/", None, "/only/path", "/x", None] * times
    assert reason.to_list() == [None, None, None, None, None, "parse_failed:u"] * times


@pytest.mark.parametrize("kernel", KERNELS)
def test_chunks_and_slices_are_read_like_whole_columns(kernel):
    texts = ["https://A.Example:80/some/long/path?q=1#f", None, "/p", "http://ü/", "http://me:secret@[::1]:1/x", "not a url", ""]
    whole = pl.concat([pl.Series(texts), pl.Series(texts[::-1])], rechunk=False)
    parser = urls.url("", urls.PARTS, "u", kernel)
    single = pl.concat([parser.read(pl.Series([text], dtype=pl.String))[0] for text in whole])
    assert parser.read(whole)[0].equals(single)
    assert parser.read(whole[3:9])[0].equals(single[3:9])
    assert parser.read(whole.clear())[0].equals(single.clear())
