from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.aws.identity import Caller, Claims, judge_caller, judge_claims, read_claims, role_of, server_time, skew_of
from stream.errors import DefinitionError

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
SUBJECT = "system:serviceaccount:data:flights"
ROLE = "arn:aws:sts::111122223333:assumed-role/flights-worker/eks-prod-flights-abc"


def token(**claims):
    def part(value):
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    return f"{part({'alg': 'RS256', 'kid': '1'})}.{part(claims)}.c2lnbmF0dXJl"


def claims(**changes):
    return Claims(
        **({"audiences": ("sts.amazonaws.com",), "subject": SUBJECT, "issuer": "i", "expires": NOW + timedelta(hours=1)} | changes)
    )


@pytest.mark.parametrize("audience", ["sts.amazonaws.com", ["sts.amazonaws.com", "other"]])
def test_the_claims_of_a_token_are_read(audience):
    read = read_claims(token(aud=audience, sub=SUBJECT, iss="https://issuer", exp=NOW.timestamp()) + "\n")
    assert read.audiences[0] == "sts.amazonaws.com"
    assert (read.subject, read.issuer, read.expires) == (SUBJECT, "https://issuer", NOW)


@pytest.mark.parametrize(
    "text", ["", "a.b", "a.b.c", token(), token(aud="a", sub="b", iss="c"), token(aud="a", sub="b", iss="c", exp="x"), "a.W10.c"]
)
def test_text_that_is_not_a_token_is_refused_without_being_shown(text):
    with pytest.raises(DefinitionError, match="not a JSON Web Token") as caught:
        read_claims(text)
    assert not text or text not in str(caught.value)


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text):
    try:
        read_claims(text)
    except DefinitionError:
        return


def test_a_valid_token_has_no_problem():
    assert judge_claims(claims(), "sts.amazonaws.com", SUBJECT, NOW) == []
    assert judge_claims(claims(), "sts.amazonaws.com", None, NOW) == []


@pytest.mark.parametrize(
    ("changes", "says", "fatal"),
    [
        ({"audiences": ("vault",)}, "for vault, not for sts.amazonaws.com", True),
        ({"subject": "system:serviceaccount:data:other"}, "of system:serviceaccount:data:other, not of", True),
        ({"expires": NOW}, "expired at 2026-11-22T12:00:00", True),
        ({"expires": NOW + timedelta(seconds=90)}, "expires in 90 s", False),
    ],
)
def test_each_problem_of_a_token_is_reported_with_a_remedy(changes, says, fatal):
    (problem,) = judge_claims(claims(**changes), "sts.amazonaws.com", SUBJECT, NOW)
    assert says in problem.what
    assert problem.remedy
    assert problem.fatal is fatal


@pytest.mark.parametrize(
    ("arn", "role"),
    [
        (ROLE, "flights-worker"),
        ("arn:aws:iam::111122223333:role/path/flights-worker", "flights-worker"),
        ("arn:aws:iam::111122223333:user/me", None),
        ("arn:aws:iam::111122223333:root", None),
    ],
)
def test_the_role_is_read_from_an_arn(arn, role):
    assert role_of(arn) == role


@pytest.mark.parametrize("expected", [None, "flights-worker", "arn:aws:iam::111122223333:role/path/flights-worker"])
def test_the_expected_role_has_no_problem(expected):
    assert judge_caller(Caller(ROLE, "111122223333", None), expected) == []


@pytest.mark.parametrize(
    ("arn", "expected", "says"),
    [
        ("arn:aws:sts::111122223333:assumed-role/node-role/i-0123456789abcdef0", None, "the role of the node i-0123456789abcdef0"),
        (ROLE, "other-worker", "not the role other-worker"),
        (ROLE, "arn:aws:iam::999922223333:role/flights-worker", "not the role arn:aws:iam::999922223333"),
        ("arn:aws:iam::111122223333:user/me", "flights-worker", "user/me, not the role"),
    ],
)
def test_an_unexpected_caller_is_reported_with_a_remedy(arn, expected, says):
    (problem,) = judge_caller(Caller(arn, "111122223333", None), expected)
    assert says in problem.what
    assert problem.remedy


def test_the_clock_of_the_server_is_read_from_its_answer():
    answer = {"ResponseMetadata": {"HTTPHeaders": {"date": "Sun, 22 Nov 2026 12:00:00 GMT"}}}
    assert server_time(answer) == NOW
    assert skew_of(answer, NOW + timedelta(seconds=70)) == timedelta(seconds=70)
    assert skew_of({}, NOW) is None
    assert server_time({"ResponseMetadata": {"HTTPHeaders": {"date": "soon"}}}) is None
