from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.pipeline.interpolate import BadReference, has_reference, interpolate


@pytest.mark.parametrize(
    ("text", "env", "result"),
    [
        ("s3://${LAKE}/x", {"LAKE": "lake"}, "s3://lake/x"),
        ("${A}${B}", {"A": "1", "B": "2"}, "12"),
        ("${A:-other}", {}, "other"),
        ("${A:-other}", {"A": ""}, "other"),
        ("${A:-}", {}, ""),
        ("${A}", {"A": ""}, ""),
        ("$${A}", {"A": "1"}, "${A}"),
        ("$A $ 5$", {"A": "1"}, "$A $ 5$"),
        ("${A}", {"A": "${B}", "B": "no"}, "${B}"),
    ],
)
def test_references_are_replaced(text, env, result):
    assert interpolate(text, env) == result


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("${NOPE}", "env_unset"),
        ("${}", "bad_interpolation"),
        ("${A B}", "bad_interpolation"),
        ("${A", "bad_interpolation"),
        ("${1A}", "bad_interpolation"),
        ("${A-x}", "bad_interpolation"),
        ("${DB_PASSWORD}", "secret_interpolated"),
        ("${aws_secret_access_key:-x}", "secret_interpolated"),
    ],
)
def test_an_invalid_reference_is_refused_without_showing_values(text, code):
    with pytest.raises(BadReference) as caught:
        interpolate(text, {"A": "1", "DB_PASSWORD": "hunter2"})
    assert caught.value.code == code
    assert "hunter2" not in caught.value.message + caught.value.hint


@given(st.text())
def test_text_without_a_reference_is_unchanged(text):
    if not has_reference(text):
        assert interpolate(text, {}) == text


@given(st.text())
def test_escaping_makes_any_text_literal(text):
    assert interpolate(text.replace("${", "$${"), {}) == text
