from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from stream.aws.errors import AwsFatal
from stream.aws.session import AwsSession
from stream.errors import DefinitionError
from stream.storage.open import open_store
from stream.storage.s3 import S3Store

SHOWN_NEVER = "never-shown"


@pytest.fixture(autouse=True)
def _no_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (
        "AWS_PROFILE",
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
    ):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_KINESIS", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL_DYNAMODB"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))


def test_the_region_comes_from_argument_environment_or_profile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match="AWS_REGION"):
        assert AwsSession().region
    (tmp_path / "config").write_text("[profile p]\nregion = eu-north-1\n")
    assert AwsSession(profile="p").region == "eu-north-1"
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    assert AwsSession().region == "eu-west-1"
    assert AwsSession(region="eu-west-2").region == "eu-west-2"


def test_a_missing_profile_is_a_definition_error() -> None:
    with pytest.raises(DefinitionError, match=r"\(nobody\)"):
        assert AwsSession(profile="nobody").region


def test_endpoints_can_be_overridden_for_one_service_or_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    assert AwsSession(region="eu-west-1").endpoint_override("s3") is None
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_KINESIS", "http://127.0.0.1:2")
    session = AwsSession(region="eu-west-1", endpoints={"dynamodb": "http://127.0.0.1:3"})
    assert [session.endpoint_override(name) for name in ("s3", "kinesis", "dynamodb")] == [
        "http://127.0.0.1:1",
        "http://127.0.0.1:2",
        "http://127.0.0.1:3",
    ]
    assert session.endpoint("kinesis") == "http://127.0.0.1:2"


@pytest.mark.parametrize(
    ("url", "example"),
    [
        ("127.0.0.1:4566", "http://127.0.0.1:4566"),
        ("localhost:9000", "http://localhost:9000"),
        ("s3://lake", "http://127.0.0.1:4566"),
        ("http://", "http://127.0.0.1:4566"),
        ("http://[::1", "http://127.0.0.1:4566"),
        ("http://localhost:99999", "http://127.0.0.1:4566"),
    ],
)
def test_an_endpoint_that_is_no_url_is_refused_before_a_client_stumbles_over_it(monkeypatch: pytest.MonkeyPatch, url, example) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", url)
    says = re.escape(f"the endpoint of s3 is {url!r}, which is not a URL: write one such as {example}. It comes from AWS_ENDPOINT_URL_S3")
    for ask in (AwsSession.endpoint_override, AwsSession.endpoint, AwsSession.unusual_endpoint):
        with pytest.raises(DefinitionError, match=says):
            ask(AwsSession(region="eu-west-1"), "s3")
    assert AwsSession(region="eu-west-1").endpoint_override("kinesis") is None


@pytest.mark.parametrize(
    ("region", "url"),
    [
        ("eu-west-1", "https://kinesis.eu-west-1.amazonaws.com"),
        ("cn-north-1", "https://kinesis.cn-north-1.amazonaws.com.cn"),
    ],
)
def test_endpoints_follow_the_partition(region: str, url: str) -> None:
    assert AwsSession(region=region).endpoint("kinesis") == url


@pytest.mark.parametrize(
    ("region", "asked", "url"),
    [
        ("eu-west-1", "", None),
        ("us-east-1", "", None),
        ("us-gov-west-1", "", None),
        ("nowhere", "", None),
        ("cn-north-1", "", "https://s3.cn-north-1.amazonaws.com.cn"),
        ("us-iso-east-1", "", "https://s3.us-iso-east-1.c2s.ic.gov"),
        ("us-east-1", "FIPS", "https://s3-fips.us-east-1.amazonaws.com"),
        ("eu-west-1", "DUALSTACK", "https://s3.dualstack.eu-west-1.amazonaws.com"),
    ],
)
def test_the_s3_endpoint_follows_partition_fips_and_dual_stack(
    region: str, asked: str, url: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if asked:
        monkeypatch.setenv(f"AWS_USE_{asked}_ENDPOINT", "true")
    session = AwsSession(region=region)
    assert session.unusual_endpoint("s3") == url
    store = open_store("s3://lake/prefix", session)
    assert isinstance(store, S3Store)
    assert store.settings.get("endpoint") == url
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    assert session.unusual_endpoint("s3") == "http://127.0.0.1:1"


def test_credentials_come_from_the_profile_and_are_not_shown(tmp_path: Path) -> None:
    (tmp_path / "credentials").write_text(f"[default]\naws_access_key_id = AKIA1234\naws_secret_access_key = {SHOWN_NEVER}\n")
    found = asyncio.run(AwsSession(region="eu-west-1").credentials())
    assert (found.access_key, found.secret_key, found.token) == ("AKIA1234", SHOWN_NEVER, None)
    assert SHOWN_NEVER not in repr(found)
    assert SHOWN_NEVER not in f"{found}"


def test_missing_credentials_are_fatal_and_the_error_says_where_it_looked() -> None:
    with pytest.raises(AwsFatal, match="web identity"):
        asyncio.run(AwsSession(region="eu-west-1").credentials())
