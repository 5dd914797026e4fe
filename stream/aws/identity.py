"""The identity of this process in AWS: the token from Kubernetes, and the role that AWS derives from it.

A token is read here in order to report its faults earlier and more clearly than STS or the Pod Identity agent; they check its signature.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Final

from botocore.exceptions import ClientError

from stream.aws.errors import AwsFatal, Call, unreadable
from stream.aws.session import AwsSession
from stream.contracts import Clock
from stream.errors import DefinitionError

WEB_IDENTITY_FILE: Final = "AWS_WEB_IDENTITY_TOKEN_FILE"
POD_IDENTITY_FILE: Final = "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"
AUDIENCES: Final[Mapping[str, str]] = {WEB_IDENTITY_FILE: "sts.amazonaws.com", POD_IDENTITY_FILE: "pods.eks.amazonaws.com"}
"""Variables that name a token file, in the order in which botocore reads them, with the audience that each token needs."""

SOON: Final = timedelta(minutes=5)
"""A token with less time left than this is not being renewed: kubelet does so at 80 % of its life, which is at least ten minutes."""

SIGNATURE_LIFE: Final = timedelta(minutes=5)
"""How much the clocks may differ before a signature is refused (AWS Signature Version 4)."""

_INSTANCE: Final = re.compile(r"i-(?:[0-9a-f]{8}|[0-9a-f]{17})")
"""Session names that EC2 gives to the role of a node."""


@dataclass(frozen=True, slots=True)
class Claims:
    """The claims of a token."""

    audiences: tuple[str, ...]
    subject: str
    issuer: str
    expires: datetime


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem and its remedy; ``fatal``: calls cannot work."""

    what: str
    remedy: str
    fatal: bool = True


@dataclass(frozen=True, slots=True)
class Caller:
    """The identity of this process according to AWS, and AWS's time."""

    arn: str
    account: str
    time: datetime | None


def read_claims(token: str) -> Claims:
    """The claims of a JSON Web Token (RFC 7519).

    Raises:
        DefinitionError: ``token`` is not a token, or lacks a claim. The message contains nothing of it.
    """
    parts = token.strip().split(".")
    try:
        if len(parts) != 3:
            raise ValueError
        claims: Any = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        audience = claims["aud"]
        audiences = (audience,) if isinstance(audience, str) else tuple(str(each) for each in audience)
        return Claims(audiences, str(claims["sub"]), str(claims["iss"]), datetime.fromtimestamp(float(claims["exp"]), UTC))
    except (ValueError, KeyError, TypeError, OverflowError, OSError) as error:
        msg = "it is not a JSON Web Token with aud, sub, iss and exp"
        raise DefinitionError(msg) from error


def judge_claims(claims: Claims, audience: str, subject: str | None, now: datetime) -> list[Problem]:
    """What is wrong with a token for ``audience``; ``subject`` is the expected subject, if that is known."""
    problems = []
    if audience not in claims.audiences:
        found = ", ".join(claims.audiences)
        problems.append(
            Problem(
                f"the token is for {found}, not for {audience}",
                "let the annotation of the service account, the trust policy and --audience name the same audience",
            )
        )
    if subject is not None and claims.subject != subject:
        remedy = "run the pod as the service account that the role trusts, or name this one in the trust policy or the association"
        problems.append(Problem(f"the token is of {claims.subject}, not of {subject}", remedy))
    left = claims.expires - now
    if left <= timedelta(0):
        remedy = "check this machine's clock; if it is right, kubelet does not renew the token: restart the pod"
        problems.append(Problem(f"the token expired at {claims.expires.isoformat()}", remedy))
    elif left < SOON:
        remedy = "kubelet should have renewed it; check its log"
        problems.append(Problem(f"the token expires in {left.total_seconds():.0f} s", remedy, fatal=False))
    return problems


async def ask_caller(session: AwsSession, clock: Clock) -> Caller:
    """The identity of this process according to STS. Needs no permission.

    Raises:
        AwsFatal: STS refuses the credentials, or there are none.
        AwsRetryable: STS did not answer.
    """
    call = Call("sts:GetCallerIdentity", "the caller", session.region)
    try:
        answer = await session.ask("sts", "get_caller_identity", call, retries=1)
    except AwsFatal as error:
        refusal = error.__cause__
        if isinstance(refusal, ClientError) and (skew := skew_of(refusal.response, clock.now())) and abs(skew) > SIGNATURE_LIFE:
            raise _out_of_time(call, skew) from error
        raise
    if "Arn" not in answer or "Account" not in answer:
        raise unreadable(call, "it names nobody")
    return Caller(str(answer["Arn"]), str(answer["Account"]), server_time(answer))


def role_of(arn: str) -> str | None:
    """The name of the role in the ARN of a role or of its session; None if it is something else."""
    kind, _, rest = arn.rpartition(":")[2].partition("/")
    if kind == "assumed-role":
        return rest.partition("/")[0]
    return rest.rpartition("/")[2] if kind == "role" else None


def judge_caller(caller: Caller, expected: str | None) -> list[Problem]:
    """What is wrong with the identity ``caller``; ``expected`` is the role's ARN or name, if that is known."""
    problems = []
    session = caller.arn.rpartition("/")[2]
    if role_of(caller.arn) is not None and _INSTANCE.fullmatch(session):
        remedy = (
            "associate a role with the pod's service account, and set AWS_EC2_METADATA_DISABLED=true so that the node's stays out of reach"
        )
        problems.append(Problem(f"this is the role of the node {session}: {caller.arn}", remedy))
    if expected is not None:
        account = expected.split(":")[4] if expected.startswith("arn:") and expected.count(":") >= 5 else caller.account
        wanted = role_of(expected) if expected.startswith("arn:") else expected
        if role_of(caller.arn) != wanted or caller.account != account:
            remedy = "correct the association or the annotation of the service account; keys in the environment take precedence over both"
            problems.append(Problem(f"this is {caller.arn}, not the role {expected}", remedy))
    return problems


def server_time(answer: Mapping[str, Any]) -> datetime | None:
    """The time in the Date header of a response of botocore."""
    text = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    try:
        return None if text is None else parsedate_to_datetime(text)
    except ValueError:
        return None


def skew_of(answer: Mapping[str, Any], now: datetime) -> timedelta | None:
    """How far this machine's clock is ahead of AWS's."""
    server_now = server_time(answer)
    return None if server_now is None else now - server_now


def _out_of_time(call: Call, skew: timedelta) -> AwsFatal:
    msg = (
        f"{call} was refused: this machine's clock is {skew.total_seconds():+.0f} s off, and signatures are valid for 300 s. Set the clock."
    )
    return AwsFatal(msg, code="RequestTimeTooSkewed")
