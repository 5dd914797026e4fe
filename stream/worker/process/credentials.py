"""Renews AWS credentials even while they are not in use, and reports when they expire."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from stream import events
from stream.aws.errors import AwsFatal, AwsRetryable
from stream.aws.session import AwsSession, CredentialLife
from stream.contracts import Clock, Emit

LOOK_SECONDS: Final = 60.0
"""Seconds between checks. botocore tries to renew credentials in their last fifteen minutes, and must in the last ten."""

OVERDUE: Final = timedelta(minutes=13)
"""If credentials have less than this left to live, renewals have failed, which nothing else tells of before they end."""

FAR: Final = 0.0
"""Reported for credentials that do not expire."""


class CredentialKeeper:
    """Renews the credentials of ``session`` before they expire. A failed renewal is reported and retried, and ends nothing."""

    def __init__(self, session: AwsSession, clock: Clock, emit: Emit) -> None:
        self.session = session
        self.clock = clock
        self.emit = emit
        self._known: CredentialLife | None = None

    async def run(self) -> None:
        """Check the credentials at intervals, until cancelled."""
        while True:
            await self.check()
            await self.clock.sleep(LOOK_SECONDS)

    async def check(self) -> None:
        """Renew them if it is time, and report a changed expiry."""
        try:
            life = await self.session.credential_life()
        except (AwsRetryable, AwsFatal) as error:
            self.emit(events.CallRepeated("", "", "renew credentials", str(error), LOOK_SECONDS))
            return
        left = life.expires - self.clock.now() if life.expires else None
        if life == self._known and left is not None and left < OVERDUE:
            reason = f": {life.failure}" if life.failure else ""
            why = f"they end in {left.total_seconds():.0f} s, and {life.method} gives no new ones{reason}"
            self.emit(events.CallRepeated("", "", "renew credentials", why, LOOK_SECONDS))
        if life != self._known:
            self._known = life
            self.emit(events.CredentialsRenewed("", "", life.method, life.expires.timestamp() if life.expires else FAR))
