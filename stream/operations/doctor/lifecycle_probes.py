"""Checks of the lifecycle rules of buckets: whether one deletes, or archives, what workers and readers need."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from stream.aws.errors import AwsFatal, Call
from stream.aws.session import AwsSession
from stream.errors import DefinitionError, StreamError
from stream.operations.doctor.probe import Note, Probe, unseen_remedy
from stream.pipeline.model import Pipeline
from stream.pipeline.resources.fetching import is_remote
from stream.pipeline.units import format_duration
from stream.sink.iceberg import IcebergSinkConfig
from stream.sink.objects import SinkConfig
from stream.sink.redshift import RedshiftSinkConfig

_NO_RULES: Final = "NoSuchLifecycleConfiguration"
"""S3's error code for a bucket that has no rules."""

_ARCHIVES: Final = frozenset({"GLACIER", "DEEP_ARCHIVE"})
"""Storage classes whose objects must be restored before they can be read."""

_REMEDY: Final = 'change the rule or its prefix; docs/operate.md, "Lifecycle rules for the state", says what may expire'

_STATE: Final[Mapping[str, str]] = {
    "commits/": "without manifests the next worker would start from the beginning, and write every row again",
    "starts/": "without them the next worker would not know where to begin",
    "identities/": "another stream of that name could be taken for the one that the log is of",
    "checkpoints/": "without them a worker that starts would have to search for the end of the log",
    "pipelines/": "without definitions no unit in flight could be finished",
    "reference/": "without the tables no unit in flight could be finished",
    "pauses/": "what is paused would go on",
    "claims/": "objects and dead letters would be read twice",
    "compactions/": "rows would be compacted twice",
    "unreadable/": "`stream audit verify` would expect rows that were given up",
    "loads/": "nobody would know how far tables are loaded",
    "export/": "every unit would be exported again",
}
"""What each folder of the state is needed for. Folders that are not here may expire."""

_MAY_EXPIRE: Final = ("pauses/changes/", "/parked/")
"""Parts of these folders that may."""


@dataclass(frozen=True, slots=True)
class Kept:
    """Objects below ``prefix`` of a bucket, and what follows if they are gone. ``fatal``: a pipeline must not run with such a rule."""

    prefix: str
    loss: str
    fatal: bool


def lifecycle_probes(pipeline: Pipeline, session: AwsSession) -> Iterator[Probe]:
    """A probe for each bucket with objects of the pipeline."""
    for bucket, kept in kept_objects(pipeline).items():
        yield Probe("lifecycle", f"rules of bucket {bucket}", functools.partial(_examined, session, bucket, kept), _REMEDY)


def kept_objects(pipeline: Pipeline) -> dict[str, list[Kept]]:
    """What the pipeline needs, by bucket."""
    found: dict[str, list[Kept]] = {}

    def add(url: str, loss: str, *, fatal: bool, folder: str = "") -> None:
        if is_remote(url):
            parts = urlsplit(url)
            prefix = parts.path.strip("/")
            found.setdefault(parts.netloc, []).append(Kept(f"{prefix}/{folder}" if prefix else folder, loss, fatal))

    for folder, loss in _STATE.items():
        add(pipeline.state, loss, fatal=True, folder=f"{pipeline.application}/{folder}")
    for sink in pipeline.sinks:
        loss, fatal = _loss(sink)
        add(sink.url, loss, fatal=fatal)
    if pipeline.source.s3 is not None:
        add(pipeline.source.s3.url, "objects that are not read before that are lost", fatal=False)
    return found


def _loss(sink: SinkConfig) -> tuple[str, bool]:
    if isinstance(sink, IcebergSinkConfig):
        return f"they are the files of the table {sink.table}, which could not be read any more", True
    if isinstance(sink, RedshiftSinkConfig):
        kept = format_duration(sink.keep_staged)
        return f"a unit that waits longer for its load parks its shard; the loader removes files by itself, {kept} after that", False
    return "from then on `stream audit verify` needs --from, or reports them as missing", False


async def _examined(session: AwsSession, bucket: str, kept: Sequence[Kept]) -> str:
    try:
        call = Call("s3:GetLifecycleConfiguration", f"bucket {bucket}", session.region)
    except DefinitionError as error:
        raise Note(str(error), "set or correct what this names; nothing was asked of AWS") from error
    try:
        rules = (await session.ask("s3", "get_bucket_lifecycle_configuration", call, Bucket=bucket)).get("Rules", ())
    except StreamError as error:
        if isinstance(error, AwsFatal) and error.code == _NO_RULES:
            return "there are none"
        why = f"they could not be looked at, for which workers need no permission: {error}"
        raise Note(why, unseen_remedy(call, error)) from error
    found = [(rule, each) for rule in rules for each in kept if _concerns(rule, each.prefix)]
    fatal = [each for each in found if each[1].fatal]
    if fatal:
        raise DefinitionError(_told(fatal))
    if found:
        raise Note(_told(found))
    return f"none of {len(rules)} deletes or archives what is needed"


def _told(found: Sequence[tuple[Mapping[str, Any], Kept]]) -> str:
    """One sentence for each rule: what it does to which objects, and what follows from the first of them."""
    by_rule: dict[str, list[Kept]] = {}
    for rule, each in found:
        by_rule.setdefault(f"the rule {rule.get('ID', '')!r} {_effect(rule)}", []).append(each)
    return "; ".join(f"{what} below {_listed(several)}: {several[0].loss}" for what, several in by_rule.items())


def _listed(several: Sequence[Kept]) -> str:
    names = [each.prefix or "the whole bucket" for each in several]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _concerns(rule: Mapping[str, Any], prefix: str) -> bool:
    """Whether ``rule`` deletes or archives some of the objects below ``prefix``."""
    where = rule.get("Filter", rule)
    where = where.get("And", where)
    # Nothing that is written here has tags.
    if rule.get("Status") != "Enabled" or "Tag" in where or where.get("Tags") or not _effect(rule):
        return False
    chosen = str(where.get("Prefix", ""))
    if chosen.startswith(prefix) and any(part in chosen for part in _MAY_EXPIRE):
        return False
    return chosen.startswith(prefix) or prefix.startswith(chosen)


def _effect(rule: Mapping[str, Any]) -> str:
    """What ``rule`` does to current versions of objects, as the rest of a sentence; empty if nothing that matters here."""
    expiration = rule.get("Expiration", {})
    if "Days" in expiration or "Date" in expiration:
        return f"deletes objects {_when(expiration)}"
    for each in rule.get("Transitions", ()):
        if each.get("StorageClass") in _ARCHIVES:
            return f"moves objects to {each['StorageClass']}, from where they cannot be read, {_when(each)}"
    return ""


def _when(action: Mapping[str, Any]) -> str:
    if "Days" not in action:
        return f"on {action.get('Date')}"
    return "after a day" if action["Days"] == 1 else f"after {action['Days']} days"
