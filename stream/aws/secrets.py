"""Secrets of AWS Secrets Manager."""

from __future__ import annotations

from typing import Final

from botocore.exceptions import ClientError

from stream.aws.errors import UNANSWERED, UNKNOWN, Call, explain, translate
from stream.aws.session import AwsSession

_SERVICE: Final = "secretsmanager"
_RETRIES: Final = 2


async def read_secret(session: AwsSession, name: str) -> bytes:
    """The current value of the secret with that name or ARN. An ARN's own region is asked, whatever the session's.

    Raises:
        AwsFatal: no such secret, or it may not be read.
        AwsRetryable: there was no answer, three times.
    """
    region = name.split(":")[3] if name.startswith("arn:") and name.count(":") >= 6 else None
    if region and region != session.region:
        session = session.elsewhere(region)
    call = Call("secretsmanager:GetSecretValue", name, session.region)
    try:
        async with session.client(_SERVICE, retries=_RETRIES) as client:
            found = await client.get_secret_value(SecretId=name)
    except (ClientError, *UNANSWERED) as error:
        raise translate(call, error) from error
    text, binary = found.get("SecretString"), found.get("SecretBinary")
    if text is None and binary is None:
        raise explain(call, UNKNOWN, "", found.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    return bytes(binary) if text is None else str(text).encode()
