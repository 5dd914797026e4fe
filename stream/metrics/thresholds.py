"""Figures from which on a pipeline needs a person. The alert rules and ``stream status`` both use them, so that the two cannot disagree."""

from __future__ import annotations

from typing import Final

BEHIND_SECONDS: Final = 300.0
"""How long a record may wait to be read: several times what an orderly restart, or a reshard, takes."""

RETENTION_SHARE: Final = 0.25
"""The share of the retention that may be used up. The rest is the time in which somebody has to wake up and act."""

UNSEALED_SECONDS: Final = 900.0
"""How long a shard with unread records may go without a commit."""

DEAD_LETTER_SHARE: Final = 0.01
"""The share of records that may become dead letters."""

COMMIT_SECONDS: Final = 30.0
"""How long the commit of a unit, from its intent to its seal, may take."""

EXPORT_LAG_SECONDS: Final = 900.0
"""How long a sealed unit may wait until its spans are exported."""

LOAD_LAG_SECONDS: Final = 1800.0
"""How long a sealed unit may wait to be loaded into a table."""
