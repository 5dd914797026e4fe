from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.errors import DefinitionError
from stream.pipeline.access.grants import Grant, allows, compare

LAKE = "arn:aws:s3:::lake/flights/*"


def document(*statements):
    return {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", **each} for each in statements]}


WANTED = document({"Action": ["s3:GetObject", "s3:PutObject"], "Resource": [LAKE]})


def live(action, resource, **more):
    return document({"Action": action, "Resource": resource, **more})


def test_equivalent_policies_have_no_difference():
    split = document({"Action": "s3:PutObject", "Resource": LAKE}, {"Action": ["s3:getobject"], "Resource": [LAKE]})
    assert not compare(WANTED, split)


def test_several_documents_of_one_role_are_combined():
    assert not compare(WANTED, [live("s3:PutObject", LAKE), {"PolicyDocument": live("s3:GetObject", LAKE)}])
    assert not compare(WANTED, {"PolicyVersion": {"Document": WANTED}})


@pytest.mark.parametrize(
    ("policy", "missing", "excess"),
    [
        (live("s3:GetObject", LAKE), ["s3:PutObject"], []),
        (live(["s3:GetObject", "s3:PutObject", "s3:DeleteObject"], LAKE), [], ["s3:DeleteObject"]),
        (live("s3:*", LAKE), [], ["s3:*"]),
        (live(["s3:GetObject", "s3:PutObject"], "arn:aws:s3:::lake/*"), [], ["s3:GetObject", "s3:PutObject"]),
        (live(["s3:GetObject", "s3:PutObject"], "arn:aws:s3:::lake/flights/2026/*"), ["s3:GetObject", "s3:PutObject"], []),
        (live(["s3:GetObject", "s3:PutObject"], LAKE, Condition={"Bool": {"aws:x": "true"}}), ["s3:GetObject", "s3:PutObject"], []),
        (document(), ["s3:GetObject", "s3:PutObject"], []),
    ],
)
def test_missing_and_excess_grants_are_listed(policy, missing, excess):
    found = compare(WANTED, policy)
    assert ([each.action for each in found.missing], [each.action for each in found.excess]) == (missing, excess)


def test_a_missing_condition_is_excess():
    wanted = live("s3:ListBucket", "arn:aws:s3:::lake", Condition={"StringLike": {"s3:prefix": "a/*"}})
    listed = live("s3:ListBucket", "arn:aws:s3:::lake", Condition={"StringLike": {"s3:prefix": ["a/*"]}})
    assert not compare(wanted, listed)
    assert [each.condition for each in compare(wanted, live("s3:ListBucket", "arn:aws:s3:::lake")).excess] == [""]


def test_a_deny_statement_removes_a_grant():
    denied = {"Statement": [*WANTED["Statement"], {"Effect": "Deny", "Action": "s3:Put*", "Resource": "*"}]}
    assert [each.action for each in compare(WANTED, denied).missing] == ["s3:PutObject"]
    assert not allows(denied, "s3:PutObject", "arn:aws:s3:::lake/flights/a")
    assert allows(denied, "s3:GetObject", "arn:aws:s3:::lake/flights/a")


@pytest.mark.parametrize(
    "text",
    [
        {},
        [],
        3,
        {"Statement": "x"},
        {"Statement": [{"Effect": "Allow", "NotAction": "s3:*", "Resource": "*"}]},
        {"Statement": [{"Effect": "Allow", "Action": "s3:*", "NotResource": "*"}]},
    ],
)
def test_documents_that_are_not_policies_are_refused(text):
    if text == []:
        assert compare(WANTED, text).missing
        return
    with pytest.raises(DefinitionError, match="polic"):
        compare(WANTED, text)


def test_a_prefix_condition_is_checked_and_other_conditions_never_allow():
    listing = live("s3:ListBucket", "arn:aws:s3:::lake", Condition={"StringLike": {"s3:prefix": ["a/*"]}})
    assert allows(listing, "s3:ListBucket", "arn:aws:s3:::lake", "a/b")
    assert not allows(listing, "s3:ListBucket", "arn:aws:s3:::lake", "b/")
    assert not allows(listing, "s3:ListBucket", "arn:aws:s3:::lake")
    odd = live("s3:ListBucket", "arn:aws:s3:::lake", Condition={"Bool": {"aws:SecureTransport": "true"}})
    assert not allows(odd, "s3:ListBucket", "arn:aws:s3:::lake", "a/b")


def test_a_grant_reads_like_a_sentence():
    assert str(Grant("s3:GetObject", LAKE)) == f"s3:GetObject on {LAKE}"
    assert str(Grant("s3:GetObject", LAKE, "{}")) == f"s3:GetObject on {LAKE} if {{}}"


PATTERNS = st.text("ab*?/", min_size=1, max_size=8)


@given(PATTERNS, PATTERNS, st.text("ab/", max_size=10))
def test_a_pattern_that_covers_another_allows_everything_the_other_allows(wide, narrow, text):
    """What one pattern admits and the other does not must be reported as excess."""
    if compare(live("s3:GetObject", wide), live("s3:GetObject", narrow)).excess:
        return
    if allows(live("s3:GetObject", narrow), "s3:GetObject", text):
        assert allows(live("s3:GetObject", wide), "s3:GetObject", text)
