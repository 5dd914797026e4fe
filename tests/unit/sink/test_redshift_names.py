import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.sink.redshift_names import MAX_NAME_BYTES, BadName, check_name, identifier, literal, qualified

NASTY = ['a"b', "a'b", "a;b", "a--b", "a/*b", "..", "a.b", "a b", "größe", "a\x00b", "a\nb", "", "1a", "$a", "a" * 128, "\uff41", "\u0130"]


@pytest.mark.parametrize("name", NASTY)
def test_a_name_that_could_inject_sql_is_refused(name):
    with pytest.raises(BadName, match="cannot name"):
        identifier(name)


@pytest.mark.parametrize("text", ["it's", 'say "x"', "back\\slash", "ü", "a\nb", "a\x00b", "a\x7fb"])
def test_a_text_that_could_inject_sql_is_refused(text):
    with pytest.raises(BadName, match="cannot stand"):
        literal(text)


def test_names_are_folded_as_in_redshift():
    assert check_name("DepTime_2$") == "deptime_2$"
    assert qualified("Public", "T") == '"public"."t"'
    assert identifier("a" * MAX_NAME_BYTES) == '"' + "a" * MAX_NAME_BYTES + '"'


def test_reserved_words_may_be_names():
    assert identifier("select") == '"select"'


@given(st.text(max_size=140))
def test_an_accepted_name_or_text_is_a_single_token(text):
    for quote, mark in ((identifier, '"'), (literal, "'")):
        try:
            quoted = quote(text)
        except BadName:
            continue
        inside = quoted[1:-1]
        assert quoted[0] == quoted[-1] == mark
        assert mark not in inside
        assert "\\" not in inside
        assert inside.isascii()
        assert inside.isprintable()
