"""The list of behaviours that every Kinesis must have, filled by records.py and streams.py, and what these share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.contract.peers import Peer

BEHAVIOURS: dict[str, Callable[[Peer], None]] = {}
FIRST = "shardId-000000000000"
SECOND = "shardId-000000000001"
THIRD = "shardId-000000000002"
HALF = 2**127


def behaviour(check: Callable[[Peer], None]) -> Callable[[Peer], None]:
    """Add ``check`` to the list."""
    BEHAVIOURS[check.__name__] = check
    return check


def refused(code: str, call: Callable[..., Any], **arguments: Any) -> None:
    """Assert that the call is refused with that error code and status 400."""
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    assert caught.value.response["Error"]["Code"] == code
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
