"""Manifests of the commit log, as the links of a chain that the audit checks."""

from __future__ import annotations

from collections.abc import Sequence

from stream.audit.chain import Link, LinkKind, StageRun
from stream.audit.ledger import LedgerObject
from stream.commit.manifest import FileEntry, Manifest, decode, digest, is_canonical, seal_of


def link_of(key: str, body: bytes, position: int | None) -> Link:
    """The manifest with the bytes ``body`` at ``key``, as the audit sees it.

    Raises:
        Halted: it is not a manifest.
    """
    manifest = decode(body, key)
    return Link(
        key=key,
        kind=LinkKind(manifest.kind.value),
        sealed=manifest.sealed,
        digest=digest(body),
        position=position,
        application=manifest.application,
        stream=manifest.stream,
        shard=manifest.shard,
        after=int(manifest.after),
        last=None if manifest.last is None else int(manifest.last),
        subsequence=manifest.subsequence,
        records=manifest.records,
        outcomes=manifest.outcomes,
        files=_files(manifest.files),
        superseded=_files(manifest.superseded),
        targets=manifest.targets,
        stages=tuple(StageRun(run.name, run.rows_in, run.rows_out, run.micros) for run in manifest.stages),
        previous=manifest.previous,
        pipeline=manifest.pipeline,
        build=manifest.build,
        start=str(manifest.start.timestamp or manifest.start.kind) if manifest.start else "",
        parents=manifest.parents,
        children=manifest.children,
        trigger=manifest.trigger,
        first_arrival=manifest.first_arrival,
        last_arrival=manifest.last_arrival,
        worker=manifest.worker,
        created_at=manifest.created_at,
        sealed_by=manifest.sealed_by,
        sealed_at=manifest.sealed_at,
        target=None if manifest.target is None else int(manifest.target),
        note=manifest.note,
        damage=_damage(manifest, body),
    )


def _files(entries: Sequence[FileEntry]) -> tuple[LedgerObject, ...]:
    return tuple(LedgerObject(entry.sink, entry.key, entry.rows, entry.size, entry.sha256) for entry in entries)


def _damage(manifest: Manifest, body: bytes) -> str:
    if not is_canonical(body):
        return "the manifest does not have the form in which the service writes it: it was edited"
    if manifest.sealed and seal_of(body) != manifest.seal:
        return "the manifest's seal does not match its content: it was edited after it was sealed"
    if not manifest.sealed and manifest.seal:
        return "the manifest carries a seal but says that it is an intent: it was edited"
    return ""
