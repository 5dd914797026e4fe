import hashlib
import hmac
import re
import unicodedata

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.transform import bytewise
from stream.transform.hiding import keep_last, keyed_hash

TEXTS = st.lists(st.none() | st.text(st.sampled_from("aZ09 -.,_$+\t\x7fé€ß日\u00a0\u2014\U0001f600"), max_size=12), max_size=20)


def hides(character: str) -> bool:
    return not re.match(r"\s", character) and not unicodedata.category(character).startswith("P")


def starred(value: str, keep: int) -> str:
    places = [at for at, character in enumerate(value) if hides(character)]
    hidden = set(places[:-keep] if len(places) > keep else places)
    return "".join("*" if at in hidden else character for at, character in enumerate(value))


@given(TEXTS, st.integers(1, 5))
def test_keep_last_goes_by_characters_whatever_stands_beside_them(values, keep):
    found = keep_last(keep)(pl.Series("c", values, pl.String))
    assert found.name == "c"
    assert found.to_list() == [None if value is None else starred(value, keep) for value in values]


def test_keep_last_over_many_pieces_and_in_the_middle_of_a_column():
    values = ["4111-2222", None, "Zoë Müller", "12", ""] * bytewise.PIECE_ROWS
    found = keep_last(4)(pl.Series("c", values)[3:-1])
    assert found.to_list() == (["****-2222", None, "*** **ller", "**", ""] * bytewise.PIECE_ROWS)[3:-1]


@given(TEXTS, st.binary(min_size=1, max_size=130), st.integers(8, 64))
def test_a_keyed_hash_is_hmac_whatever_the_key(values, secret, length):
    found = keyed_hash(secret, length)(pl.Series("c", values, pl.String))
    digests = [None if value is None else hmac.new(secret, value.encode(), hashlib.sha256).hexdigest()[:length] for value in values]
    assert found.to_list() == digests
    assert found.name == "c"


@pytest.mark.parametrize("distinct", [3, 5_000])
def test_values_that_occur_often_have_the_digests_of_those_that_do_not(distinct):
    values = [None if at % 7 == 0 else f"N{at % distinct}" for at in range(10_000)]
    digests = {f"N{at}": hmac.digest(b"k", f"N{at}".encode(), "sha256").hex()[:16] for at in range(distinct)}
    assert keyed_hash(b"k", 16)(pl.Series(values)).to_list() == [value and digests[value] for value in values]
