"""The object stores of one pipeline: its state, and what each sink writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from stream.audit import ledger
from stream.audit.objects import Area
from stream.aws.session import AwsSession
from stream.contracts import ObjectStore
from stream.pipeline.model import Pipeline
from stream.sink import rejects
from stream.sink.redshift import COPY_MANIFESTS
from stream.storage.directory import DirectoryStore
from stream.storage.open import open_store
from stream.storage.prefixed import PrefixedStore
from stream.worker.opening.places import kms_key, located


@dataclass(frozen=True, slots=True)
class Stores:
    """The stores of one pipeline. ``targets``: the store of every sink by name, including ledger and rejects.

    ``roots``: those that are no folder of another one.
    """

    state: ObjectStore
    targets: Mapping[str, ObjectStore]
    roots: tuple[ObjectStore, ...] = ()

    @staticmethod
    def open(pipeline: Pipeline, base: Path, session: AwsSession) -> Stores:
        """Open the stores, without reading anything yet; relative paths start at ``base``.

        Raises:
            DefinitionError: a URL does not name a store.
        """
        return Stores.over(pipeline, base, partial(open_store, session=session, key=kms_key(pipeline)))

    @staticmethod
    def over(pipeline: Pipeline, base: Path, open_place: Callable[[str], ObjectStore]) -> Stores:
        """The stores at the pipeline's URLs, each opened by ``open_place``."""
        root = open_place(located(pipeline.state, base))
        state = PrefixedStore(root, f"{pipeline.application}/")
        targets: dict[str, ObjectStore] = {config.name: open_place(located(config.url, base)) for config in pipeline.sinks}
        roots = (root, *targets.values())
        targets[rejects.NAME] = PrefixedStore(state, "rejects/")
        targets[ledger.NAME] = PrefixedStore(state, "ledger/v1/")
        return Stores(state, targets, roots)

    async def prove_writable(self) -> None:
        """Make sure that directories of this machine can be written to, before records are read that could not be committed.

        Buckets are not tried: that would take requests, and permissions for keys that workers do not use.

        Raises:
            Fatal: one of them cannot be.
            Retryable: no space is left on one, or its file system does not answer.
        """
        for store in self.roots:
            if isinstance(store, DirectoryStore):
                await store.prove_writable()

    def areas(self, state_url: str, stream: str) -> dict[str, Area]:
        """Where the files of each target are. If the state is under a sink's prefix, it does not count as that sink's files."""
        own = {rejects.NAME, ledger.NAME}
        return {
            name: Area(name, store, f"{stream}/" if name in own else "", () if name in own else self._foreign(store, state_url))
            for name, store in self.targets.items()
        }

    @staticmethod
    def _foreign(store: ObjectStore, state_url: str) -> tuple[str, ...]:
        return state_url, f"{store.url.removesuffix('/')}/{COPY_MANIFESTS}"
