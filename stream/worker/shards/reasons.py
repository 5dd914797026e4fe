"""How the reason of a halt ends that needs nobody to start anything again."""

from __future__ import annotations

from typing import Final

WAITED_FOR: Final = "and goes on by itself as soon as that works; nothing is lost until then"
"""The end of the reason why something is halted that nobody has to start again."""

GOES_ON: Final = f"The shard is tried again every minute, {WAITED_FOR}"
LISTED_AGAIN: Final = f"The stream is tried again every half minute, {WAITED_FOR}"
LOOKED_FOR: Final = (
    "It is looked for every half minute, and read as soon as it is there. If it was deleted, its unread records went with it, and the log "
    "will say so before the first record of a new stream of that name"
)
