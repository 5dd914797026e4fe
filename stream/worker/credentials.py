"""Keeps AWS credentials fresh while nobody asks for them, and says until when they are good."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from stream import events
from stream.aws.errors import AwsFatal, AwsRetryable
from stream.aws.session import AwsSession, CredentialLife
from stream.contracts import Clock, Emit

LOOK_SECONDS: Final = 60.0
"""Between looks. botocore renews in the last fifteen minutes and insists in the last ten, so that a quiet worker has many tries."""

OVERDUE: Final = timedelta(minutes=13)
"""Of a credential that has no more left to live than this, renewals have failed; botocore says so only once it is too late."""

FAR: Final = 0.0
"""For credentials without an end."""


@dataclass(slots=True)
class CredentialKeeper:
    """Renews the credentials of ``session`` ahead of their end; a renewal that fails is told and tried again, and ends nothing."""

    session: AwsSession
    clock: Clock
    emit: Emit
    _known: CredentialLife | None = None

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.look()
            await self.clock.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Renew them if it is time to, and tell of an end that has changed."""
        try:
            life = await self.session.credential_life()
        except (AwsRetryable, AwsFatal) as error:
            self.emit(events.CallRepeated("", "", "renew credentials", str(error), LOOK_SECONDS))
            return
        left = life.expires - self.clock.now() if life.expires else None
        if life == self._known and left is not None and left < OVERDUE:
            why = f"they end in {left.total_seconds():.0f} s, and {life.method} gives no new ones"
            self.emit(events.CallRepeated("", "", "renew credentials", why, LOOK_SECONDS))
        if life != self._known:
            self._known = life
            self.emit(events.CredentialsRenewed("", "", life.method, life.expires.timestamp() if life.expires else FAR))
