"""Rules that a new definition must keep, and one that is recorded in the commit log need not.

A unit is finished with the definition with which it was begun, perhaps by a later version that knows better: that a comparison with NULL
is never true, or that an expression fails on every row. Such a rule protects whoever writes a definition. A recorded one has been accepted,
and refusing it would halt every shard that has an unfinished unit of it. So a check that refuses what could be run asks ``is_recorded``
first; a check without which nothing could be run does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_RECORDED: ContextVar[bool] = ContextVar("recorded", default=False)


@contextmanager
def as_recorded() -> Iterator[None]:
    """Within this block, and in threads that ``asyncio.to_thread`` starts from it, definitions are those of the commit log."""
    token = _RECORDED.set(True)
    try:
        yield
    finally:
        _RECORDED.reset(token)


def is_recorded() -> bool:
    """Whether the definition at hand comes from the commit log, so that rules for new ones do not apply."""
    return _RECORDED.get()
