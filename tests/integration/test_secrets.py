"""Secrets of Secrets Manager, from a real response to a masked column; nothing ever shows them."""

from __future__ import annotations

import asyncio

import boto3
import pytest

from stream.aws.secrets import read_secret
from stream.aws.session import AwsSession
from stream.errors import Fatal, Retryable


@pytest.fixture
def session(moto_url: str, aws_keys: None) -> AwsSession:
    return AwsSession(region="us-east-1", endpoints={"secretsmanager": moto_url})


def client(url: str, region: str = "us-east-1") -> object:
    return boto3.client("secretsmanager", endpoint_url=url, region_name=region)


def test_a_secret_is_read_as_text_or_bytes_by_name_or_arn(session: AwsSession, moto_url: str) -> None:
    at_home = client(moto_url)
    arn = at_home.create_secret(Name="prod/text", SecretString="the text")["ARN"]
    at_home.create_secret(Name="prod/bytes", SecretBinary=b"\x00\xff")
    assert asyncio.run(read_secret(session, "prod/text")) == b"the text"
    assert asyncio.run(read_secret(session, arn)) == b"the text"
    assert asyncio.run(read_secret(session, "prod/bytes")) == b"\x00\xff"
    at_home.close()


def test_an_arn_is_read_in_its_own_region(session: AwsSession, moto_url: str) -> None:
    elsewhere = client(moto_url, "eu-west-1")
    arn = elsewhere.create_secret(Name="far/away", SecretString="x")["ARN"]
    assert asyncio.run(read_secret(session, arn)) == b"x"
    with pytest.raises(Fatal):
        asyncio.run(read_secret(session, "far/away"))
    elsewhere.close()


def test_a_missing_secret_is_reported_with_the_call(session: AwsSession) -> None:
    with pytest.raises(Fatal, match=r"secretsmanager:GetSecretValue on prod/none \(us-east-1\).*check the name"):
        asyncio.run(read_secret(session, "prod/none"))


def test_a_call_without_an_answer_is_retryable(session: AwsSession) -> None:
    nobody = AwsSession(region="us-east-1", endpoints={"secretsmanager": "http://127.0.0.1:1"})
    with pytest.raises(Retryable, match="no answer"):
        asyncio.run(read_secret(nobody, "prod/text"))
