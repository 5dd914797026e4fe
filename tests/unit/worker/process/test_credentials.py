from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from stream import events
from stream.aws.errors import AwsRetryable
from stream.aws.session import AwsSession, CredentialLife
from stream.worker.process.credentials import LOOK_SECONDS, CredentialKeeper
from tests.unit.metrics.every_event import FixedClock

FIRST, SECOND = (CredentialLife("container-role", datetime(2026, 11, 22, hour, tzinfo=UTC)) for hour in (6, 12))


class Session(AwsSession):
    """Returns the scripted credentials one after the other, then ends the task."""

    def __init__(self, *answers):
        super().__init__(region="us-east-1")
        self.answers = list(answers)

    async def credential_life(self):
        if not self.answers:
            raise asyncio.CancelledError
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def kept(*answers):
    seen, clock = [], FixedClock()
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(CredentialKeeper(Session(*answers), clock, seen.append).run())
    assert clock.seconds == 1000.0 + LOOK_SECONDS * len(answers)
    return seen


def test_an_expiry_is_reported_when_it_changes():
    assert kept(FIRST, FIRST, SECOND) == [
        events.CredentialsRenewed("", "", "container-role", FIRST.expires.timestamp()),
        events.CredentialsRenewed("", "", "container-role", SECOND.expires.timestamp()),
    ]


def test_credentials_without_an_expiry_are_reported():
    assert kept(CredentialLife("env", None)) == [events.CredentialsRenewed("", "", "env", 0.0)]


def test_a_failed_renewal_is_reported_and_repeated():
    refused = AwsRetryable("no answer", code="CredentialsUnavailable")
    assert kept(refused, FIRST) == [
        events.CallRepeated("", "", "renew credentials", "no answer", LOOK_SECONDS),
        events.CredentialsRenewed("", "", "container-role", FIRST.expires.timestamp()),
    ]


def test_keys_that_expire_soon_without_renewal_are_reported_while_still_valid():
    ends = datetime.fromtimestamp(1000.0, UTC) + timedelta(minutes=13, seconds=30)
    seen = kept(*(CredentialLife("web-identity", ends),) * 2)
    assert seen[1:] == [
        events.CallRepeated("", "", "renew credentials", "they end in 750 s, and web-identity gives no new ones", LOOK_SECONDS)
    ]
