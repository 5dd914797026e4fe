import hashlib
import hmac
import re
import unicodedata

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.native import KERNEL
from stream.transform import bytewise, compiled
from stream.transform.masking import keep_last, keyed_hash

TEXTS = st.lists(st.none() | st.text(st.sampled_from("aZ09 -.,_$+\t\x7fé€ß日\u00a0\u2014\U0001f600"), max_size=12), max_size=20)

KERNELS = [pytest.param(None, id="ordinary"), *([pytest.param(KERNEL, id="compiled")] if KERNEL is not None else [])]
# Each says itself whether the kernel is used, so without it they would do nothing else.
pytestmark = pytest.mark.compares_kernel


def hides(character: str) -> bool:
    return not re.match(r"\s", character) and not unicodedata.category(character).startswith("P")


def starred(value: str, keep: int) -> str:
    places = [at for at, character in enumerate(value) if hides(character)]
    hidden = set(places[:-keep] if len(places) > keep else places)
    return "".join("*" if at in hidden else character for at, character in enumerate(value))


@pytest.mark.parametrize("kernel", KERNELS)
@given(TEXTS, st.integers(1, 5))
def test_keep_last_counts_characters_whatever_the_other_values_are(kernel, values, keep):
    found = keep_last(keep, kernel)(pl.Series("c", values, pl.String))
    assert found.name == "c"
    assert found.to_list() == [None if value is None else starred(value, keep) for value in values]


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_unicode_character_is_hidden_or_kept_as_the_expression_says(kernel):
    every = "".join(chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000)
    found = keep_last(1, kernel)(pl.Series([every + "a"]))[0]
    assert found == pl.Series([every]).str.replace_all(r"[^\s\p{P}]", "*")[0] + "a"


@pytest.mark.parametrize("kernel", KERNELS)
def test_keep_last_works_over_many_pieces_and_inside_a_column(kernel):
    values = ["4111-2222", None, "Zoë Müller", "12", ""] * bytewise.PIECE_ROWS
    found = keep_last(4, kernel)(pl.Series("c", values)[3:-1])
    assert found.to_list() == (["****-2222", None, "*** **ller", "**", ""] * bytewise.PIECE_ROWS)[3:-1]


@pytest.mark.parametrize("kernel", KERNELS)
@given(TEXTS, st.binary(min_size=1, max_size=130), st.integers(8, 64))
def test_a_keyed_hash_is_hmac_for_any_key(kernel, values, secret, length):
    found = keyed_hash(secret, length, kernel)(pl.Series("c", values, pl.String))
    digests = [None if value is None else hmac.new(secret, value.encode(), hashlib.sha256).hexdigest()[:length] for value in values]
    assert found.to_list() == digests
    assert found.name == "c"


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("distinct", [3, 5_000])
def test_frequent_values_have_the_same_digests_as_rare_ones(distinct, kernel):
    values = [None if at % 7 == 0 else f"N{at % distinct}" for at in range(10_000)]
    digests = {f"N{at}": hmac.digest(b"k", f"N{at}".encode(), "sha256").hex()[:16] for at in range(distinct)}
    assert keyed_hash(b"k", 16, kernel)(pl.Series(values)).to_list() == [value and digests[value] for value in values]


def test_texts_of_every_length_are_hashed_with_and_without_processor_instructions():
    texts = ["ab" * (size // 2) + "c" * (size % 2) for size in range(400)]
    block = b"secret".ljust(64, b"\0")
    wanted = [hmac.digest(b"secret", text.encode(), "sha256").hex() for text in texts]
    for quick in (True, False) if KERNEL is not None else ():
        assert compiled.keyed_hash(KERNEL, pl.Series(texts), block, 64, quick=quick).to_list() == wanted


@pytest.mark.parametrize("kernel", KERNELS)
def test_chunks_and_slices_are_hidden_like_whole_columns(kernel):
    values = ["4111-2222-3333", None, "short", "", "Zoë Müller", "a" * 40]
    whole = pl.concat([pl.Series("c", values), pl.Series("c", values[::-1])], rechunk=False)
    assert whole.n_chunks() == 2
    for hide in (keep_last(4, kernel), keyed_hash(b"k", 20, kernel)):
        single = [hide(pl.Series("c", [value], pl.String))[0] for value in whole]
        assert hide(whole).to_list() == single
        assert hide(whole[5:8]).to_list() == single[5:8]
        assert hide(whole.clear()).to_list() == []
