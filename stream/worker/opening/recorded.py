"""Whether the definitions that a log holds are those that its units were made with."""

from __future__ import annotations

from typing import Final

import msgspec

from stream import __version__
from stream.commit.naming import pipeline_key, reference_key, sha256_hex, tables_key
from stream.contracts import ObjectStore
from stream.errors import DefinitionError
from stream.pipeline.digest import pipeline_digest, read_canonical

_RESTORE: Final = "restore its previous version: without it, an unfinished unit cannot be finished, nor a record be shown"


class RecordedDefinitions:
    """Looks at each definition once; ``store`` is that of the log."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._problems: dict[tuple[str, str], str] = {}

    async def problem(self, digest: str, build: str) -> str:
        """What is wrong with the definition called ``digest`` with which ``build`` made a unit; empty if nothing is.

        Only the build that gave a definition its name can say whether that is the right one: another one may know other options.
        """
        if (digest, build) not in self._problems:
            self._problems[digest, build] = await self._look(digest, build)
        return self._problems[digest, build]

    async def _look(self, digest: str, build: str) -> str:
        text, listed = await self._store.get(pipeline_key(digest)), await self._store.get(tables_key(digest))
        if text is None or listed is None:
            return f"the definition of the unit, {pipeline_key(digest) if text is None else tables_key(digest)}, is missing; {_RESTORE}"
        try:
            pipeline, tables = read_canonical(text.body.decode()), msgspec.json.decode(listed.body, type=dict[str, str])
        except (DefinitionError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            why = f"the definition of the unit, {pipeline_key(digest)}, cannot be read: {error}; {_RESTORE}"
            return why if build == __version__ else ""
        if build == __version__ and pipeline_digest(pipeline, tables, build) != digest:
            return f"the definition of the unit, {pipeline_key(digest)}, is not the one that was recorded under this name; {_RESTORE}"
        for url, sha256 in sorted(tables.items()):
            stored = await self._store.get(reference_key(sha256))
            if stored is None or sha256_hex(stored.body) != sha256:
                what = "is missing" if stored is None else "was changed"
                return f"the reference table {url} of the definition {digest}, {reference_key(sha256)}, {what}; {_RESTORE}"
        return ""
