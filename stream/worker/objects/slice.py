"""What one claim of objects says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from stream.source.objects import PinnedObject


class Slice(msgspec.Struct, frozen=True, omit_defaults=True):
    """Objects that were claimed together. ``worker`` and ``claimed_at`` tell claims apart.

    Either ``bounds`` divides them into shards that end, or a watched source appends them to shards that grow: then ``appended`` has, for
    each of those shards, how many objects it had before this claim and has after it, and the objects are in the order of the shards. A
    build that does not know of ``appended`` cannot read such a claim, since it takes ``bounds`` for required; so it reads nothing twice.

    ``url``: what their keys are relative to; empty in claims of builds that did not note it.
    """

    objects: tuple[PinnedObject, ...]
    worker: str
    claimed_at: str
    bounds: tuple[tuple[int, int], ...] = ()
    url: str = ""
    appended: tuple[tuple[int, int], ...] = ()

    def under(self, where: str) -> Iterator[tuple[str, PinnedObject]]:
        """Its objects by their keys under ``where``: their own URL, a parent or child of it, or a URL to which they moved."""
        here, own = (f"{url.removesuffix('/')}/" for url in (where, self.url or where))
        moved = not here.startswith(own) and not own.startswith(here)
        for item in self.objects:
            if moved:
                yield item.key, item
            elif f"{own}{item.key}".startswith(here):
                yield f"{own}{item.key}".removeprefix(here), item

    def begin(self, shard: int) -> int:
        """How many objects ``shard`` (from 1) had before this claim."""
        return self.appended[shard - 1][0] if shard <= len(self.appended) else 0

    def end(self, shard: int) -> int:
        """How many objects ``shard`` (from 1) has with this claim."""
        return self.appended[shard - 1][1] if shard <= len(self.appended) else 0

    def objects_of(self, shard: int) -> Sequence[PinnedObject]:
        """The objects that this claim appended to ``shard`` (from 1), in the order in which they are read."""
        first = sum(end - begin for begin, end in self.appended[: shard - 1])
        return self.objects[first : first + self.end(shard) - self.begin(shard)]
