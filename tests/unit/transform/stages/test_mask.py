import hashlib
import hmac

import pytest
from pydantic import ValidationError

from stream.transform.stage import Resources, SchemaMismatch
from stream.transform.stages.mask import Mask
from tests.frames import apply, rows

SECRETS = Resources(secrets={"env:K": b"k"})


def test_equal_values_have_equal_digests_that_the_key_reproduces():
    stage = Mask.model_validate({"columns": ["a", "b"], "method": "keyed_hash", "key": {"env": "K"}})
    got, _ = apply(stage, rows({"a": ["x", None, "x", ""], "b": ["y", "x", None, "é"]}), SECRETS)
    digest = {text: hmac.new(b"k", text.encode(), hashlib.sha256).hexdigest()[:32] for text in ("x", "y", "", "é")}
    assert [row["a"] for row in got] == [digest["x"], None, digest["x"], digest[""]]
    assert [row["b"] for row in got] == [digest["y"], digest["x"], None, digest["é"]]
    assert stage.secret_names() == ("env:K",)


def test_redact_and_truncate_hide_values():
    frame = rows({"a": ["secret", None, "é1"]})
    assert [row["a"] for row in apply(Mask(columns=("a",), method="redact"), frame)[0]] == ["***", None, "***"]
    assert [row["a"] for row in apply(Mask(columns=("a",), method="truncate", keep=1), frame)[0]] == ["s", None, "é"]


@pytest.mark.parametrize(
    "config",
    [
        {"columns": ["a"], "method": "keyed_hash"},
        {"columns": ["a"], "method": "redact", "key": {"env": "K"}},
        {"columns": ["a"], "method": "keyed_hash", "key": "the secret itself"},
        {"columns": ["a"], "method": "truncate"},
        {"columns": [], "method": "redact"},
        {"columns": ["a"], "method": "rot13"},
    ],
)
def test_incomplete_options_are_refused(config):
    with pytest.raises(ValidationError):
        Mask.model_validate(config)


@pytest.mark.parametrize(("column", "key", "says"), [("n", "env:K", "n' is int64; only text"), ("a", "env:J", "missing or empty")])
def test_columns_and_keys_that_cannot_be_used_are_refused(column, key, says):
    stage = Mask.model_validate({"columns": column, "method": "keyed_hash", "key": key})
    with pytest.raises(SchemaMismatch, match=says):
        stage.output(rows({"a": ["x"], "n": [1]}).schema, SECRETS)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("4111-1111-1111-1234", "****-****-****-1234"),
        ("4111 1111 1111 12-34.", "**** **** **** 12-34."),
        ("1234", "****"),
        ("12-34", "**-**"),
        ("12", "**"),
        ("", ""),
        ("éa€bcde", "***bcde"),
        (None, None),
    ],
)
def test_keep_last_keeps_the_format_and_never_a_whole_value(value, shown):
    got, _ = apply(Mask.model_validate({"columns": ["a"], "keep_last": 4}), rows({"a": [value, "99999"]}))
    assert [row["a"] for row in got] == [shown, "*9999"]


@pytest.mark.parametrize("config", [{"keep_last": 0}, {"keep_last": 65}, {"keep_last": 4, "method": "redact"}])
def test_keep_last_needs_a_valid_number_and_no_other_method(config):
    with pytest.raises(ValidationError):
        Mask.model_validate({"columns": ["a"], **config})
