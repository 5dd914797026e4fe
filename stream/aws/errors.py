"""Translates AWS's errors: whether the call may be repeated, and if not, what has to be done."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

import aiohttp
from botocore.exceptions import BotoCoreError, ClientError

from stream.errors import Fatal, Retryable


@dataclass(frozen=True, slots=True)
class Call:
    """What was asked of AWS: ``action`` as IAM names it, ``resource`` as a person would, ``place`` region and endpoint."""

    action: str
    resource: str
    place: str

    def __str__(self) -> str:
        """For messages."""
        return f"{self.action} on {self.resource} ({self.place})"


class AwsRetryable(Retryable):
    """The same call may succeed later; ``code`` is AWS's error code."""

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code


class AwsFatal(Fatal):
    """The same call would fail again; ``code`` is AWS's error code, ``remedy`` what its message says to do, if anything."""

    def __init__(self, message: str, *, code: str, remedy: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.remedy = remedy


class AccessRefused(AwsFatal):
    """Access is refused: by a policy, because of a KMS key, or because of the credentials or the clock.

    The same call works once a person has corrected that, which needs no new process.
    """


class StreamMissing(AccessRefused):
    """There is no stream of that name. It may be created, which needs no new process, but then it has other records than one before it."""


class Kind(Enum):
    """Errors by what must happen next."""

    RETRY = auto()
    THROTTLED = auto()
    DENIED = auto()
    CREDENTIALS = auto()
    NOT_FOUND = auto()
    ENCRYPTION = auto()
    REFUSED = auto()


_ACCESS: Final = frozenset({Kind.DENIED, Kind.CREDENTIALS, Kind.ENCRYPTION})

EXPIRED_ITERATOR: Final = "ExpiredIteratorException"
INVALID_ARGUMENT: Final = "InvalidArgumentException"
NOT_FOUND: Final = "ResourceNotFoundException"
EXPIRED_TOKEN: Final = "ExpiredNextTokenException"  # noqa: S105 - AWS's name of an error
UNKNOWN: Final = "Unknown"
"""Our code for an error response without a code."""
CONNECTION: Final = "ConnectionError"
"""Our code for a call without a response."""

_EXPIRED: Final = frozenset({"ExpiredToken", "ExpiredTokenException"})
RENEW: Final = (
    ". Remedy: the credentials in use have ended; those of a role are renewed by themselves, keys in the environment are not: give the "
    "process new ones, or a role"
)

_LOGIN: Final = re.compile(r"(\b\w+://)[^/@\s'\"]+@")

_KINDS: Final[dict[str, Kind]] = {
    **dict.fromkeys(
        (
            "ProvisionedThroughputExceededException",
            "LimitExceededException",
            "ThrottlingException",
            "Throttling",
            "ThrottledException",
            "RequestLimitExceeded",
            "TooManyRequestsException",
            "RequestThrottled",
            "RequestThrottledException",
            "SlowDown",
            "KMSThrottlingException",
            "KMSThrottling",
            "KmsThrottled",
            "OverLimit",
        ),
        Kind.THROTTLED,
    ),
    **dict.fromkeys(
        (
            "InternalFailure",
            "InternalFailureException",
            "InternalServerError",
            "InternalServiceError",
            "InternalError",
            "ServiceUnavailable",
            "RequestTimeout",
            "RequestTimeoutException",
            "ResourceInUseException",
            "TransactionConflictException",
            "ReplicatedWriteConflictException",
            "ExpiredToken",
            "ExpiredTokenException",
            "IDPCommunicationError",
            EXPIRED_ITERATOR,
            EXPIRED_TOKEN,
            CONNECTION,
        ),
        Kind.RETRY,
    ),
    **dict.fromkeys(("AccessDenied", "AccessDeniedException", "AuthorizationError", "UnauthorizedOperation", "NotAuthorized"), Kind.DENIED),
    **dict.fromkeys(
        (
            "UnrecognizedClientException",
            "InvalidClientTokenId",
            "MissingAuthenticationToken",
            "MissingAuthenticationTokenException",
            "InvalidSignatureException",
            "SignatureDoesNotMatch",
            "IncompleteSignature",
            "IncompleteSignatureException",
            "RequestExpired",
            "OptInRequired",
        ),
        Kind.CREDENTIALS,
    ),
    **dict.fromkeys((NOT_FOUND, "NoSuchBucket", "NotFound", "QueueDoesNotExist"), Kind.NOT_FOUND),
    **dict.fromkeys(
        (
            "KMSAccessDeniedException",
            "KMSDisabledException",
            "KMSInvalidStateException",
            "KMSNotFoundException",
            "KMSOptInRequired",
            "KMSAccessDenied",
            "KMSDisabled",
            "KMSInvalidState",
            "KMSNotFound",
            "KmsAccessDenied",
            "KmsDisabled",
            "KmsInvalidState",
            "KmsNotFound",
            "KmsOptInRequired",
            "KmsInvalidKeyUsage",
            "DecryptionFailure",
        ),
        Kind.ENCRYPTION,
    ),
}


def classify(code: str, status: int = 0) -> Kind:
    """What an error ``code`` calls for; an unlisted code is judged by the HTTP ``status``."""
    if (kind := _KINDS.get(code)) is not None:
        return kind
    if status == 429:
        return Kind.THROTTLED
    return Kind.RETRY if status >= 500 or status == 408 else Kind.REFUSED


def explain(call: Call, code: str, message: str, status: int = 0) -> AwsRetryable | AwsFatal:
    """The exception to raise for an error response."""
    kind = classify(code, status)
    named = f"HTTP status {status}" if code == UNKNOWN else code
    answer = f"{named}: {message}".rstrip(". ") if message else named
    if kind in {Kind.RETRY, Kind.THROTTLED}:
        return AwsRetryable(f"{call} failed: {answer}{RENEW if code in _EXPIRED else ''}", code=code)
    remedy = {
        Kind.DENIED: f"allow {call.action} on {call.resource} to the role in use",
        Kind.CREDENTIALS: "check the credentials in use, their region, and this machine's clock",
        Kind.NOT_FOUND: "check the name, the region and the endpoint, or create it",
        Kind.ENCRYPTION: (
            "enable its KMS key and allow kms:Decrypt on it to the role in use, and to send to a topic kms:GenerateDataKey too"
        ),
        Kind.REFUSED: "the request itself is not acceptable; correct the configuration it was made from",
    }[kind]
    if code == UNKNOWN:
        remedy = "this is not an answer of AWS: check the endpoint, and proxies on the way to it"
    refused = AccessRefused if kind in _ACCESS else AwsFatal
    return refused(f"{call} was refused: {answer}. Remedy: {remedy}.", code=code, remedy=remedy)


def unreadable(call: Call, why: str) -> AwsRetryable:
    """The exception to raise for a response that is not as documented; ``why`` must be safe to log."""
    return AwsRetryable(f"{call} gave an answer that is not as documented: {why}", code="UnreadableAnswer")


def is_throttle(error: AwsRetryable) -> bool:
    """Whether the service asked for fewer calls."""
    return classify(error.code) is Kind.THROTTLED


def error_text(error: Exception) -> str:
    """A client library's message in one line, without the login in a proxy's URL, which must not be logged."""
    return _LOGIN.sub(r"\1", " ".join(str(error).split())) or type(error).__name__


def translate(call: Call, error: Exception) -> AwsRetryable | AwsFatal:
    """The exception to raise for what a client library raised while making ``call``.

    Raises:
        TypeError: ``error`` does not come from a client library; it is a defect of this package, and chained.
    """
    if isinstance(error, ClientError):
        said = error.response.get("Error", {})
        status, code = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0), str(said.get("Code", UNKNOWN))
        # If a response names no error, botocore uses its status as the name.
        return explain(call, UNKNOWN if code == str(status) else code, said.get("Message", ""), status)
    if isinstance(error, (BotoCoreError, aiohttp.ClientError, TimeoutError, OSError)):
        remedy = ". Remedy: check the region, the endpoint and the name server." if isinstance(error, socket.gaierror) else ""
        return AwsRetryable(f"{call} had no answer: {error_text(error)}{remedy}", code=CONNECTION)
    msg = f"{type(error).__name__} is not an error of an AWS client"
    raise TypeError(msg) from error
