"""Who this process is to AWS: the token that Kubernetes gave it, and the role that AWS made of it.

A token is read here to say early and in plain words what STS or the Pod Identity agent would say late and in few; its signature is
theirs to check.
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
"""Variables that name a token's file, in the order in which botocore looks at them, with the audience that each token needs."""

SOON: Final = timedelta(minutes=5)
"""A token that lives less long than this is not being renewed: kubelet does so at 80 % of its life, which is ten minutes at least."""

SIGNATURE_LIFE: Final = timedelta(minutes=5)
"""How far the clocks may be apart before a signature is refused (AWS Signature Version 4)."""

_INSTANCE: Final = re.compile(r"i-(?:[0-9a-f]{8}|[0-9a-f]{17})")
"""Name of the session that EC2 gives to the role of a node."""


@dataclass(frozen=True, slots=True)
class Claims:
    """What a token says of itself."""

    audiences: tuple[str, ...]
    subject: str
    issuer: str
    expires: datetime


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, and what to do; ``fatal``: it cannot work like this."""

    what: str
    remedy: str
    fatal: bool = True


@dataclass(frozen=True, slots=True)
class Caller:
    """Who AWS says this process is, and what time it is there."""

    arn: str
    account: str
    time: datetime | None


def read_claims(token: str) -> Claims:
    """The claims of a JSON Web Token (RFC 7519).

    Raises:
        DefinitionError: ``token`` is none, or lacks a claim. The message holds nothing of it.
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
        msg = "it is no JSON Web Token with aud, sub, iss and exp"
        raise DefinitionError(msg) from error


def judge_claims(claims: Claims, audience: str, subject: str | None, now: datetime) -> list[Problem]:
    """What is wrong with a token that is to be taken for ``audience``; ``subject`` is whose it must be, where that is known."""
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
    """Who STS says this process is. Needs no permission.

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
    """What is wrong with being ``caller``; ``expected`` is the role's ARN or name, where that is known."""
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
            remedy = "correct the association or the annotation of the service account; keys in the environment go before both"
            problems.append(Problem(f"this is {caller.arn}, not the role {expected}", remedy))
    return problems


def server_time(answer: Mapping[str, Any]) -> datetime | None:
    """The time in the Date header of an answer of botocore's."""
    text = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    try:
        return None if text is None else parsedate_to_datetime(text)
    except ValueError:
        return None


def skew_of(answer: Mapping[str, Any], now: datetime) -> timedelta | None:
    """By how much this machine's clock is ahead of the far side's."""
    there = server_time(answer)
    return None if there is None else now - there


def _out_of_time(call: Call, skew: timedelta) -> AwsFatal:
    msg = (
        f"{call} was refused: this machine's clock is {skew.total_seconds():+.0f} s off, and signatures are good for 300 s. Set the clock."
    )
    return AwsFatal(msg, code="RequestTimeTooSkewed")
