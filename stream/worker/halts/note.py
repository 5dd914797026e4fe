"""What the note beside the commit log says of a shard that stands still."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import msgspec

WHOLE_STREAM: Final = "stream"
"""In place of a shard's name: the note about a stream that cannot be read at all."""


class Halt(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why a shard stands still, after ``position`` (decimal text; None if it halted before its position was known).

    ``since``: when it first halted there, by the clock of the worker that noticed. ``worker``: the one that halted last.
    """

    reason: str
    worker: str
    since: datetime
    position: str | None = None

    def is_over(self, position: int) -> bool:
        """Whether the shard has got further than it was when it halted, now that it is sealed up to ``position``."""
        return self.position is not None and int(self.position) < position
