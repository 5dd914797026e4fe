import re

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.transform import bytewise, urls

PIECES = (
    "https://", "http://", "HTTP://", "s3://", "ftp://", "wss://", "//", "/", "?", "#", ":", "@", ":80", ":65536", ":123456", ":08",
    "a.example", "B.Example", "user", "[::1]", "path", "x=1", "&", "%20", " ", "\t", "\x7f", "é", "\u00a0", "mailto:", "1", "-", ".",
)  # fmt: skip
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
    return {**parts, "port": port, "scheme": parts["scheme"] and parts["scheme"].lower(), "host": parts["host"] and parts["host"].lower()}


@given(TEXTS)
def test_plain_urls_and_all_others_have_the_parts_that_the_pattern_gives(texts):
    done, reason = urls.url("", urls.PARTS, "u").read(pl.Series(texts, dtype=pl.String))
    nothing = dict.fromkeys(urls.PARTS)
    for text, row, why in zip(texts, done.rows(named=True), reason, strict=True):
        wanted = nothing if text is None else by_hand(text)
        assert why == ("parse_failed:u" if wanted is None else None)
        assert wanted is None or row == wanted


@pytest.mark.parametrize("parts", [["query"], ["port", "host"], ["fragment", "path"], ["scheme", "user"]])
def test_parts_alone_are_what_they_are_together(parts):
    texts = pl.Series(["https://a.example:8080/p?q#f", "/p?q", "//b/c", None, "http://B?x#y?z", "x y", "s3://bucket/key"])
    whole, refused = urls.url("", urls.PARTS, "u").read(texts)
    some, also = urls.url("", parts, "u").read(texts)
    assert some.equals(whole.select(parts))
    assert refused.equals(also, null_equal=True)


def test_odd_urls_beside_plain_ones_over_many_pieces():
    some = ["https://a.example/p?q#f", "http://ü.example/", None, "/only/path", "ftp://h/x", "bad url"]
    times = 2 * bytewise.PIECE_ROWS // len(some) + 9
    done, reason = urls.url("u_", ["host", "path"], "u").read(pl.Series(some * times))
    assert done["u_host"].to_list() == ["a.example", "ü.example", None, None, "h", None] * times
    assert done["u_path"].to_list() == ["/p", "/", None, "/only/path", "/x", None] * times
    assert reason.to_list() == [None, None, None, None, None, "parse_failed:u"] * times
