"""Keeps AWS credentials fresh while nobody uses them, and reports when they expire."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from stream import events
from stream.aws.errors import AwsFatal, AwsRetryable
from stream.aws.session import AwsSession, CredentialLife
from stream.contracts import Clock, Emit

LOOK_SECONDS: Final = 60.0
"""Seconds between checks. botocore tries to renew in the last fifteen minutes and must in the last ten: a quiet worker has many tries."""

FAR: Final = 0.0
"""Reported for credentials that do not expire."""


@dataclass(slots=True)
class CredentialKeeper:
    """Renews the credentials of ``session`` before they expire. A renewal that fails is reported and tried again; it ends nothing."""

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
        """Renew them if it is time, and report a changed expiry."""
        try:
            life = await self.session.credential_life()
        except (AwsRetryable, AwsFatal) as error:
            self.emit(events.CallRepeated("", "", "renew credentials", str(error), LOOK_SECONDS))
            return
        if life != self._known:
            self._known = life
            self.emit(events.CredentialsRenewed("", "", life.method, life.expires.timestamp() if life.expires else FAR))
