from __future__ import annotations

import socket

import aiohttp
import pytest
from botocore.exceptions import ClientError, ConnectTimeoutError

from stream.aws.errors import AccessRefused, AwsFatal, AwsRetryable, Call, Kind, classify, explain, is_throttle, translate

CALL = Call("kinesis:GetRecords", "stream flights", "region eu-west-1, endpoint https://k/")


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("ProvisionedThroughputExceededException", 400, Kind.THROTTLED),
        ("KMSThrottlingException", 400, Kind.THROTTLED),
        ("NeverHeardOf", 429, Kind.THROTTLED),
        ("ExpiredIteratorException", 400, Kind.RETRY),
        ("ExpiredTokenException", 400, Kind.RETRY),
        ("TransactionConflictException", 400, Kind.RETRY),
        ("ReplicatedWriteConflictException", 400, Kind.RETRY),
        ("NeverHeardOf", 500, Kind.RETRY),
        ("NeverHeardOf", 408, Kind.RETRY),
        ("NeverHeardOf", 400, Kind.REFUSED),
        ("NeverHeardOf", 0, Kind.REFUSED),
        ("AccessDeniedException", 400, Kind.DENIED),
        ("UnrecognizedClientException", 400, Kind.CREDENTIALS),
        ("ResourceNotFoundException", 400, Kind.NOT_FOUND),
        ("KMSAccessDeniedException", 400, Kind.ENCRYPTION),
    ],
)
def test_error_codes_are_classified_by_what_must_happen(code: str, status: int, kind: Kind) -> None:
    assert classify(code, status) is kind


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("AccessDeniedException", "allow kinesis:GetRecords on stream flights"),
        ("ResourceNotFoundException", "check the name, the region and the endpoint"),
        ("InvalidSignatureException", "this machine's clock"),
        ("KMSDisabledException", "KMS key"),
        ("ValidationException", "correct the configuration"),
    ],
)
def test_a_fatal_error_names_action_resource_endpoint_and_remedy(code: str, words: str) -> None:
    error = explain(CALL, code, "no", 400)
    assert isinstance(error, AwsFatal)
    assert error.code == code
    for part in (words, "kinesis:GetRecords on stream flights", "region eu-west-1", "https://k/", f"{code}: no"):
        assert part in str(error)


@pytest.mark.parametrize(
    ("code", "access"),
    [
        ("AccessDeniedException", True),
        ("KMSDisabledException", True),
        ("InvalidSignatureException", True),
        ("ResourceNotFoundException", False),
        ("ValidationException", False),
    ],
)
def test_access_that_somebody_can_allow_again_is_distinguished_from_other_refusals(code: str, access: bool) -> None:
    assert isinstance(explain(CALL, code, "no", 400), AccessRefused) is access


def test_an_answer_that_is_not_from_aws_is_reported_as_such() -> None:
    error = explain(CALL, "Unknown", "<html>Sign in first</html>", 403)
    assert isinstance(error, AwsFatal)
    expected = "HTTP status 403: <html>Sign in first</html>. Remedy: this is not an answer of AWS: check the endpoint, and proxies"
    assert expected in str(error)


def test_throttling_is_distinguished_from_other_failures() -> None:
    throttled, failed = explain(CALL, "LimitExceededException", ""), explain(CALL, "InternalFailure", "")
    assert isinstance(throttled, AwsRetryable)
    assert isinstance(failed, AwsRetryable)
    assert is_throttle(throttled)
    assert not is_throttle(failed)


def test_errors_of_botocore_and_aiohttp_are_translated() -> None:
    response = {"Error": {"Code": "AccessDenied", "Message": "m"}, "ResponseMetadata": {"HTTPStatusCode": 403}}
    assert isinstance(translate(CALL, ClientError(response, "GetItem")), AwsFatal)  # type: ignore[arg-type]
    assert isinstance(translate(CALL, ClientError({}, "GetItem")), AwsFatal)
    for error in (
        ConnectTimeoutError(endpoint_url="https://k/"),
        aiohttp.ServerDisconnectedError(),
        TimeoutError(),
        ConnectionResetError(),
    ):
        translated = translate(CALL, error)
        assert isinstance(translated, AwsRetryable)
        assert "had no answer" in str(translated)


def test_a_host_that_has_no_address_has_a_remedy() -> None:
    assert str(translate(CALL, socket.gaierror(-2, "Name or service not known"))).endswith(
        "had no answer: [Errno -2] Name or service not known. Remedy: check the region, the endpoint and the name server."
    )


def test_an_unexpected_error_is_not_mistaken_for_an_answer() -> None:
    with pytest.raises(TypeError, match="KeyError"):
        translate(CALL, KeyError("x"))


@pytest.mark.parametrize("code", ["ExpiredToken", "ExpiredTokenException"])
def test_keys_that_have_ended_are_reported_with_what_to_do(code):
    error = explain(Call("kinesis:GetRecords", "stream s", "region r"), code, "The security token is expired", 400)
    assert isinstance(error, AwsRetryable)
    assert "is expired. Remedy: the credentials in use have ended; those of a role are renewed" in str(error)
