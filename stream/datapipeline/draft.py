"""The pipeline that one activity is translated to, while it is being put together, with notes on what became of each field."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from stream.datapipeline.definition import is_secret
from stream.datapipeline.evaluated_text import RunTimes, Text, Untranslatable
from stream.datapipeline.expressions import Scope, evaluated, texts_of
from stream.datapipeline.formats import Column
from stream.datapipeline.resolve import Definition, ResolvedObject, Slot
from stream.datapipeline.run_times import INTERVAL, ScheduledTime
from stream.datapipeline.verdicts import Fate, Verdict

PIPELINE: Final = "pipeline.yaml"
VALUES: Final = "values.yaml"
OBJECTS: Final = "objects.txt"
TABLE: Final = "create-table.sql"
VIEW: Final = "view.sql"
_BUCKET: Final = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(/.*)?", re.DOTALL)


class Refused(Exception):
    """The activity cannot become a pipeline. The message says why and what to do, and continues the words "no pipeline file: "."""


@dataclass(slots=True)
class Draft:
    """The pipeline of one activity so far. Its notes reach the report only if the pipeline is written in the end."""

    name: str
    application: str
    """Name of the application, and so of its state. It includes the name of the definition file, since definitions that were made from
    one template have activities with the same ids."""
    activity: ResolvedObject
    definition: Definition
    run_times: RunTimes = field(default_factory=RunTimes)
    notes: list[tuple[Slot, Verdict]] = field(default_factory=list)
    todo: list[str] = field(default_factory=list)
    used: set[tuple[str, str]] = field(default_factory=set)
    source: dict[str, Any] = field(default_factory=dict)
    columns: tuple[Column, ...] = ()
    stages: list[Any] = field(default_factory=list)
    unverified_stages: list[tuple[Slot, Any]] = field(default_factory=list)
    """Stages with SQL of another dialect, which `stream check` may refuse, and the field of each. They come after ``stages``."""
    sink: dict[str, Any] = field(default_factory=dict)
    requires: list[str] = field(default_factory=list)
    notify: str = ""
    state: str = ""
    values: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    suspended: bool = False
    """Whether the schedule is suspended: the definition starts runs on demand, or a person has to check something first."""
    interval: tuple[str, str] = INTERVAL
    """Airflow expressions for the beginning and the end of a run's interval."""
    input_time: tuple[ScheduledTime, str] | None = None
    """The time that the keys of the input name, and `source.s3.time`, by which they do; None if they name none."""

    def where(self, key: str, file: str = PIPELINE) -> str:
        """The place ``key`` in one of its files, as the report names it."""
        return f"`{self.name}/{file}`: `{key}`"

    def taken_over(self, slot: Slot, key: str, file: str = PIPELINE) -> None:
        """Note that the field became ``key``."""
        self.notes.append((slot, Verdict(Fate.TAKEN_OVER, self.where(key, file))))

    def not_needed(self, slot: Slot, why: str) -> None:
        """Note that the field is not needed."""
        self.notes.append((slot, Verdict(Fate.NOT_NEEDED, why)))

    def to_do(self, slot: Slot, remedy: str) -> None:
        """Note, also at the top of the pipeline file, that something about the field is left to do.

        Does nothing if the field has no values.
        """
        if not slot.values:
            return
        self.notes.append((slot, Verdict(Fate.TO_DO, remedy)))
        entry = f"{slot.field} of {slot.owner}: {remedy}"
        if entry not in self.todo:
            self.todo.append(entry)

    def text(self, obj: ResolvedObject, name: str, node: ResolvedObject | None = None) -> Text | None:
        """The first value of a field, evaluated; None if the field has no value. ``node``: what `#{node...}` stands for in its expressions.

        Raises:
            Refused: the value is secret, or known only at run time.
        """
        slot = obj.slot(name)
        if not slot.text:
            return None
        if is_secret(name):
            msg = f"`{name}` of `{obj.id}` is a secret, which stream never writes to a file"
            raise Refused(msg)
        try:
            return evaluated(slot.text, self._scope(obj, node))
        except Untranslatable as error:
            msg = f"`{name}` of `{obj.id}` {error}"
            raise Refused(msg) from error

    def fixed_text(self, obj: ResolvedObject, name: str) -> str:
        """The first value of a field, which must not depend on the run; empty if the field has no value.

        Raises:
            Refused: the value is secret, or known only at run time.
        """
        found = self.text(obj, name)
        try:
            return found.plain.strip() if found is not None else ""
        except Untranslatable as error:
            msg = f"`{name}` of `{obj.id}` {error}"
            raise Refused(msg) from error

    def fixed_texts(self, obj: ResolvedObject, name: str) -> list[str]:
        """Every value of a field; none may depend on the run.

        Raises:
            Refused: a value is known only at run time.
        """
        try:
            return [each.plain for each in texts_of(obj.slot(name), self._scope(obj, None))]
        except Untranslatable as error:
            msg = f"`{name}` of `{obj.id}` {error}"
            raise Refused(msg) from error

    def fixed_text_or_empty(self, obj: ResolvedObject, name: str) -> str:
        """As ``fixed_text``, but a value that cannot be known is noted as left to do, and empty here."""
        try:
            return self.fixed_text(obj, name)
        except Refused as refused:
            self.to_do(obj.slot(name), f"{refused}")
            return ""

    def _scope(self, obj: ResolvedObject, node: ResolvedObject | None) -> Scope:
        return Scope(self.definition, obj, node, 0, self.used)


def bucket_of(url: str) -> str | None:
    """The bucket of ``url``; None if that is not an S3 URL, or if S3 does not allow such a bucket name."""
    found = _BUCKET.fullmatch(url)
    return found[1] if found else None


def s3_text(draft: Draft, obj: ResolvedObject, name: str, node: ResolvedObject | None = None) -> Text | None:
    """The value of a field that is an S3 URL; None if the field has no value.

    Raises:
        Refused: the value is not an S3 URL.
    """
    found = draft.text(obj, name, node)
    if found is None:
        return None
    pieces = [found.pieces[0].strip(), *found.pieces[1:]] if found.pieces and isinstance(found.pieces[0], str) else list(found.pieces)
    for old in ("s3n://", "s3a://"):
        if pieces and isinstance(pieces[0], str) and pieces[0].startswith(old):
            pieces[0] = "s3://" + pieces[0].removeprefix(old)
    text = Text.of(pieces)
    start = "".join(each if isinstance(each, str) else getattr(each, "value", "\0") for each in text.pieces)
    if bucket_of(start.partition("\0")[0]) is None and bucket_of(start) is None:
        msg = (
            f"`{name}` of `{obj.id}` names no S3 bucket (s3://bucket/..., with 3 to 63 characters of a-z 0-9 . -); correct it, and "
            "import again"
        )
        raise Refused(msg)
    return text


def schema_of(columns: Sequence[Column], never_null: Collection[str]) -> dict[str, str]:
    """The columns as the schema of a pipeline file. Those in ``never_null`` may not be null; all others may."""
    return {each.name: each.type if each.name in never_null else f"{each.type}?" for each in columns}
