"""Where the files of units are: at the sinks of this pipeline, and where sinks were when an unfinished unit was begun."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import msgspec

from stream.commit.manifest import FileEntry, Manifest
from stream.commit.naming import BESIDE_THE_LOG
from stream.contracts import ObjectStore
from stream.errors import Halted


class Places:
    """Object stores by the name of their sink, and by the URL that a manifest gives for it.

    ``stores`` has those of the pipeline. ``open_place`` opens a URL at which a sink was that has been moved or removed since.
    """

    def __init__(self, stores: Mapping[str, ObjectStore], open_place: Callable[[str], ObjectStore]) -> None:
        self._stores = stores
        self._open = open_place
        self._former: dict[str, ObjectStore] = {}

    def own(self, manifest: Manifest) -> Manifest:
        """``manifest`` with the URLs at which its files' sinks are in this pipeline."""
        return _with_targets(manifest, {sink: self._stores[sink].url for sink in _sinks(manifest) if sink in self._stores})

    def recorded(self, rendered: Manifest, intent: Mapping[str, str]) -> Manifest:
        """``rendered``, which takes the place of an intent, with the URLs of that: for one unit, a sink never moves.

        A sink of which the intent had no file is where the definition has it that both were made with, as ``rendered`` says.
        """
        own = self.own(rendered).targets
        made = {sink: url for sink, url in rendered.targets.items() if not _same(url, own.get(sink, ""))}
        return _with_targets(rendered, {**own, **made, **intent})

    def is_former(self, sink: str, url: str | None) -> bool:
        """Whether this pipeline has nothing at ``url``, where a manifest says that ``sink`` is."""
        return url is not None and sink not in BESIDE_THE_LOG and all(store.url != url for store in self._stores.values())

    def store(self, sink: str, url: str | None) -> ObjectStore:
        """The store at ``url`` for ``sink``; where the pipeline has that sink, if the manifest does not say where it was.

        Raises:
            Halted: that is unknown.
            DefinitionError: ``url`` names no store that can be opened here.
        """
        own = self._stores.get(sink)
        if own is not None and (url is None or url == own.url or sink in BESIDE_THE_LOG):
            return own
        shared = next((store for store in self._stores.values() if store.url == url), None)
        if shared is not None:
            return shared
        if url is None:
            msg = (
                f"an unfinished unit writes to the sink `{sink}`, which this pipeline does not have (it has "
                f"{', '.join(sorted(self._stores))}), and its manifest does not say where that sink was. Give a sink that name, or run "
                "the previous pipeline until the unit is sealed; nothing is read until then."
            )
            raise Halted(msg)
        if url not in self._former:
            self._former[url] = self._open(url)
        return self._former[url]


def _sinks(manifest: Manifest) -> Iterable[str]:
    files: tuple[FileEntry, ...] = (*manifest.files, *manifest.superseded)
    return {entry.sink for entry in files}


def _same(url: str, other: str) -> bool:
    return url.removesuffix("/") == other.removesuffix("/")


def _with_targets(manifest: Manifest, targets: Mapping[str, str]) -> Manifest:
    return msgspec.structs.replace(manifest, targets=dict(sorted(targets.items())))
