"""Keeps AWS credentials fresh while nobody asks for them, and says until when they are good."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from stream import events
from stream.aws.errors import AwsFatal, AwsRetryable
from stream.aws.session import AwsSession, CredentialLife
from stream.contracts import Clock, Emit

LOOK_SECONDS: Final = 60.0
"""Between looks. botocore renews in the last fifteen minutes and insists in the last ten, so that a quiet worker has many tries."""

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
        if life != self._known:
            self._known = life
            self.emit(events.CredentialsRenewed("", "", life.method, life.expires.timestamp() if life.expires else FAR))
