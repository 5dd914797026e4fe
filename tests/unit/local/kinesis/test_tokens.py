import base64

import pytest

from stream.local.kinesis.errors import ApiError
from stream.local.kinesis.tokens import Iterator, Tokens
from tests.unit.local.kinesis.calls import FIRST, START_MS

CONTENT = Iterator("s", START_MS, FIRST, 5 * 10**55, START_MS)


def test_a_token_reads_back() -> None:
    tokens = Tokens(1)
    assert tokens.read_iterator(tokens.iterator(CONTENT), START_MS + 300_000, 300_000) == CONTENT


def test_equal_seeds_give_equal_tokens_and_other_seeds_refuse_them() -> None:
    assert Tokens(1).iterator(CONTENT) == Tokens(1).iterator(CONTENT)
    with pytest.raises(ApiError, match="Invalid ShardIterator"):
        Tokens(2).read_iterator(Tokens(1).iterator(CONTENT), START_MS, 300_000)


def test_an_iterator_lives_for_five_minutes() -> None:
    tokens = Tokens(1)
    with pytest.raises(ApiError, match="300001 ms old") as caught:
        tokens.read_iterator(tokens.iterator(CONTENT), START_MS + 300_001, 300_000)
    assert caught.value.code == "ExpiredIteratorException"


@pytest.mark.parametrize("token", ["", "?", "AAAA", base64.b64encode(bytes(64)).decode(), "é"])
def test_a_forged_token_is_refused(token: str) -> None:
    with pytest.raises(ApiError) as caught:
        Tokens(1).read_iterator(token, START_MS, 300_000)
    assert caught.value.code == "InvalidArgumentException"
    with pytest.raises(ApiError):
        Tokens(1).read_page(token, START_MS)


def test_a_changed_token_is_refused() -> None:
    sealed = bytearray(base64.b64decode(Tokens(1).iterator(CONTENT)))
    sealed[30] ^= 1
    with pytest.raises(ApiError, match="Invalid"):
        Tokens(1).read_iterator(base64.b64encode(sealed).decode(), START_MS, 300_000)


def test_a_token_of_one_kind_is_refused_as_another() -> None:
    tokens = Tokens(1)
    with pytest.raises(ApiError, match="Invalid ShardIterator"):
        tokens.read_iterator(tokens.page({"behind": "a"}, START_MS), START_MS, 300_000)
    with pytest.raises(ApiError, match="NextToken is invalid"):
        tokens.read_page(tokens.iterator(CONTENT), START_MS)


def test_a_next_token_lives_for_300_seconds() -> None:
    tokens = Tokens(1)
    token = tokens.page({"behind": "a"}, START_MS)
    assert tokens.read_page(token, START_MS + 300_000) == {"behind": "a"}
    with pytest.raises(ApiError) as caught:
        tokens.read_page(token, START_MS + 300_001)
    assert caught.value.code == "ExpiredNextTokenException"
