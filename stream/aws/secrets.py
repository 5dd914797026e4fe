"""Secrets of AWS Secrets Manager."""

from __future__ import annotations

from typing import Final

from stream.aws.errors import Call, unreadable
from stream.aws.session import AwsSession

_SERVICE: Final = "secretsmanager"
_RETRIES: Final = 2


async def read_secret(session: AwsSession, name: str) -> bytes:
    """The current value of the secret with that name or ARN. The region in an ARN takes precedence over the session's.

    Raises:
        AwsFatal: no such secret, or it may not be read.
        AwsRetryable: three attempts had no readable response.
    """
    region = name.split(":")[3] if name.startswith("arn:") and name.count(":") >= 6 else None
    if region and region != session.region:
        session = session.elsewhere(region)
    call = Call("secretsmanager:GetSecretValue", name, session.region)
    found = await session.ask(_SERVICE, "get_secret_value", call, retries=_RETRIES, SecretId=name)
    if (text := found.get("SecretString")) is not None:
        return str(text).encode()
    if (content := found.get("SecretBinary")) is not None:
        return bytes(content)
    raise unreadable(call, "there is no secret in it")
