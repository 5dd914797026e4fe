from __future__ import annotations

import asyncio

import pytest

from stream.errors import DefinitionError
from stream.pipeline.model import Pipeline
from stream.pipeline.resources.secrets import find_headers, find_secret, local_secret, references
from tests.unit.pipeline.definitions import least

SECRET = b'{"key": "hidden-value", "number": 5}'


async def managed(name):
    return {"prod/mask": SECRET, "prod/empty": b""}[name]


def find(name, tmp_path):
    return asyncio.run(find_secret(name, {"K": "v"}, tmp_path, managed))


def test_secrets_of_every_kind_are_found(tmp_path):
    assert find("env:K", tmp_path) == b"v"
    assert find("secrets_manager:prod/mask", tmp_path) == SECRET
    assert find("secrets_manager:prod/mask#key", tmp_path) == b"hidden-value"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("secrets_manager:prod/mask#none", "not a JSON object with the text 'none'"),
        ("secrets_manager:prod/mask#number", "not a JSON object with the text 'number'"),
        ("secrets_manager:prod/empty#key", "not a JSON object"),
        ("secrets_manager:prod/empty", "is empty"),
    ],
)
def test_unusable_managed_secrets_are_refused_without_being_shown(name, says, tmp_path):
    with pytest.raises(DefinitionError, match=says) as caught:
        find(name, tmp_path)
    assert "hidden-value" not in str(caught.value)


def test_a_command_without_aws_reports_that_it_cannot_read_a_managed_secret(tmp_path):
    with pytest.raises(DefinitionError, match="this command does not read"):
        asyncio.run(find_secret("secrets_manager:prod/mask", {}, tmp_path))


def test_references_come_from_stages_and_headers():
    mask = {"mask": {"columns": ["carrier"], "method": "keyed_hash", "key": {"secrets_manager": "prod/mask#key"}}}
    otlp = {"endpoint": "http://127.0.0.1:4318", "headers": {"authorization": {"env": "TOKEN"}}}
    pipeline = Pipeline.model_validate(least(stages=[mask, mask], audit={"otlp": otlp}))
    assert references(pipeline) == ("secrets_manager:prod/mask#key", "env:TOKEN")


def test_local_secrets_are_read_without_a_trailing_line_break(tmp_path):
    (tmp_path / "key").write_bytes(b"from a file\r\n")
    assert local_secret("env:K", {"K": "v"}, tmp_path) == b"v"
    assert local_secret("file:key", {}, tmp_path) == b"from a file"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("env:K", "not set"),
        ("env:EMPTY", "empty"),
        ("file:none", "cannot be read"),
        ("vault:k", "does not refer to a secret"),
        ("plain", "does not refer to a secret"),
    ],
)
def test_unavailable_secrets_are_refused(name, says, tmp_path):
    with pytest.raises(DefinitionError, match=says):
        local_secret(name, {"EMPTY": ""}, tmp_path)


def test_a_header_carries_a_secret_without_its_trailing_line_break(tmp_path):
    found = asyncio.run(
        find_headers({"authorization": "env:A", "x-key": "secrets_manager:prod/mask#key"}, {"A": "Bearer t\r\n"}, tmp_path, managed)
    )
    assert found == {"authorization": "Bearer t", "x-key": "hidden-value"}


@pytest.mark.parametrize("value", ["Bearer a\nx-admin: yes", "ключ", "\0", "a\tb"])
def test_a_secret_that_no_header_can_carry_is_refused_without_being_shown(tmp_path, value):
    with pytest.raises(DefinitionError, match="the secret env:A cannot be sent as the header authorization") as found:
        asyncio.run(find_headers({"authorization": "env:A"}, {"A": value}, tmp_path))
    assert value not in str(found.value)


def test_a_header_of_only_a_line_break_is_empty(tmp_path):
    with pytest.raises(DefinitionError, match="env:A is empty"):
        asyncio.run(find_headers({"authorization": "env:A"}, {"A": "\n"}, tmp_path))
