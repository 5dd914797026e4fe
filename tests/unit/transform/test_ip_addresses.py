import ipaddress

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.native import KERNEL
from stream.transform import bytewise
from stream.transform.ip_addresses import ip

KERNELS = [pytest.param(None, id="ordinary"), *([pytest.param(KERNEL, id="compiled")] if KERNEL is not None else [])]
# Each says itself whether the kernel is used, so without it they would do nothing else.
pytestmark = pytest.mark.compares_kernel
OCTETS = st.sampled_from(["0", "1", "9", "10", "99", "127", "192", "198", "255", "256", "00", "01", "1000", "", "a", "é", " "])
GROUPS = st.sampled_from([":", "::", "0", "1", "db8", "2001", "ffff", "FE80", "64", "ff9b", "12345", "g", ".", "%1", "1.2.3.4"])
GROUP_LISTS = st.lists(st.sampled_from(["0", "1", "abcd", "ffff"]), max_size=7).map(":".join)
SPELLED = st.one_of(
    st.lists(OCTETS, min_size=3, max_size=5).map(".".join),
    st.lists(GROUPS, max_size=17).map("".join),
    st.lists(st.sampled_from(["0", "1", "abcd", "ffff"]), min_size=7, max_size=9).map(":".join),
    st.tuples(GROUP_LISTS, GROUP_LISTS).map("::".join),
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(str),
    st.ip_addresses(v=6).map(lambda address: address.exploded),
    st.integers(0, 2**70).map(lambda number: str(ipaddress.IPv6Address(number))),
    st.integers(0, 2**48 - 1).map(lambda number: str(ipaddress.IPv6Address(number << 80)).upper()),
)


def network(text):
    """Version and network according to Python's ipaddress, or None."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if "%" in text:
        return None
    return address.version, str(ipaddress.ip_network((address, 24 if address.version == 4 else 48), strict=False))


@pytest.mark.parametrize("kernel", KERNELS)
@settings(max_examples=200, deadline=None)
@given(st.lists(st.none() | SPELLED, max_size=30))
def test_every_spelling_is_read_as_by_python(kernel, texts):
    done, reason = ip("", "a", kernel).read(pl.Series(texts, dtype=pl.String))
    for text, row, why in zip(texts, done.rows(named=True), reason, strict=True):
        wanted = None if text is None else network(text)
        assert (row["version"], row["network"]) == (wanted or (None, None)), text
        assert (row["kind"] is None) == (wanted is None)
        assert why == ("parse_failed:a" if text is not None and wanted is None else None)


KINDS = {
    "0.0.0.0": "unspecified",  # noqa: S104 - nothing is bound
    "0.0.0.1": "reserved", "10.255.255.255": "private", "11.0.0.0": "global", "9.255.255.255": "global",
    "100.64.0.0": "shared", "100.128.0.0": "global", "127.0.0.1": "loopback", "169.254.0.1": "link_local", "172.31.255.255": "private",
    "172.32.0.0": "global", "192.0.0.9": "reserved", "192.0.2.1": "documentation", "192.0.3.0": "global", "198.19.255.255": "reserved",
    "224.0.0.1": "multicast", "239.255.255.255": "multicast", "240.0.0.0": "reserved", "255.255.255.255": "reserved", "::": "unspecified",
    "::1": "loopback", "::2": "global", "fbff::": "global", "fc00::": "private", "fdff:ffff::1": "private", "fe80::1": "link_local",
    "fec0::": "global", "ff02::1": "multicast", "2001:db8::1": "documentation", "2001:db9::": "global", "2001:1ff::": "reserved",
    "2001:200::": "global", "::ffff:102:304": "reserved", "::1:0:0:0": "global", "64:ff9b:1::": "reserved", "100::ffff": "reserved",
    "100:0:0:1::": "global",
}  # fmt: skip


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_ranges_of_each_kind_are_those_of_iana(kernel):
    done, _ = ip("", "a", kernel).read(pl.Series(list(KINDS)))
    assert dict(zip(KINDS, done["kind"], strict=True)) == KINDS


@pytest.mark.parametrize("kernel", KERNELS)
def test_addresses_and_garbage_are_read_the_same_in_many_pieces(kernel):
    texts = ["10.0.0.1", "2001:db8::1", None, "nothing", "::ffff:1.2.3.4", "300.1.1.1"]
    times = bytewise.PIECE_ROWS // 2
    done, reason = ip("", "a", kernel).read(pl.Series(texts * times))
    assert done["network"].to_list() == ["10.0.0.0/24", "2001:db8::/48", None, None, "::/48", None] * times
    assert reason.is_not_null().to_list() == [False, False, False, True, False, True] * times


@pytest.mark.parametrize("kernel", KERNELS)
def test_chunks_and_slices_are_read_like_whole_columns(kernel):
    texts = ["192.168.100.200", None, "2001:db8:1:2::1", "01.2.3.4", "::ffff:1.2.3.4", "x", "", "fe80::1"]
    whole = pl.concat([pl.Series(texts), pl.Series(texts[::-1])], rechunk=False)
    parser = ip("", "a", kernel)
    single = pl.concat([parser.read(pl.Series([text], dtype=pl.String))[0] for text in whole])
    assert parser.read(whole)[0].equals(single)
    assert parser.read(whole[3:9])[0].equals(single[3:9])
    assert parser.read(whole.clear())[0].equals(single.clear())
