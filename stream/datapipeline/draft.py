"""A pipeline file under construction, and the notes about the definition's fields."""

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
from stream.datapipeline.run_times import INTERVAL
from stream.datapipeline.verdicts import Fate, Verdict

PIPELINE: Final = "pipeline.yaml"
VALUES: Final = "values.yaml"
OBJECTS: Final = "objects.txt"
TABLE: Final = "create-table.sql"
VIEW: Final = "view.sql"
_BUCKET: Final = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(/.*)?", re.DOTALL)


class Refused(Exception):
    """Why an activity has no pipeline file, and what to do, in words that fit after "no pipeline file: "."""


@dataclass(slots=True)
class Draft:
    """One activity's pipeline so far. Its notes take effect only once the pipeline is written."""

    name: str
    application: str
    """Names its state. Definitions made from one template have activities of the same ids, so the file's name is part of it."""
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
    """Stages in a dialect that may not be understood, with the field that they come from; they go after ``stages``."""
    sink: dict[str, Any] = field(default_factory=dict)
    requires: list[str] = field(default_factory=list)
    notify: str = ""
    state: str = ""
    values: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    suspended: bool = False
    """Whether runs start only by hand: the definition says so, or something must be checked first."""
    interval: tuple[str, str] = INTERVAL
    """Begin and end of a run's interval, as named in Airflow templates."""

    def where(self, key: str, file: str = PIPELINE) -> str:
        """A place in one of its files, as the report names it."""
        return f"`{self.name}/{file}`: `{key}`"

    def taken_over(self, slot: Slot, key: str, file: str = PIPELINE) -> None:
        """Note that the field was taken over to ``key``."""
        self.notes.append((slot, Verdict(Fate.TAKEN_OVER, self.where(key, file))))

    def not_needed(self, slot: Slot, why: str) -> None:
        """Note that the field is not needed."""
        self.notes.append((slot, Verdict(Fate.NOT_NEEDED, why)))

    def to_do(self, slot: Slot, cure: str) -> None:
        """Note that the field cannot be taken over, also at the top of the pipeline file. Does nothing if the field has no values."""
        if not slot.values:
            return
        self.notes.append((slot, Verdict(Fate.TO_DO, cure)))
        entry = f"{slot.field} of {slot.owner}: {cure}"
        if entry not in self.todo:
            self.todo.append(entry)

    def text(self, obj: ResolvedObject, name: str, node: ResolvedObject | None = None) -> Text | None:
        """The first value of a field; None if it has none.

        Raises:
            Refused: it has no value before the run.
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

    def plain(self, obj: ResolvedObject, name: str) -> str:
        """The first value of a field as a plain text, empty if it has none.

        Raises:
            Refused: it has no value before the run.
        """
        found = self.text(obj, name)
        try:
            return found.plain.strip() if found is not None else ""
        except Untranslatable as error:
            msg = f"`{name}` of `{obj.id}` {error}"
            raise Refused(msg) from error

    def plains(self, obj: ResolvedObject, name: str) -> list[str]:
        """Every value of a field as a plain text.

        Raises:
            Refused: one has no value before the run.
        """
        try:
            return [each.plain for each in texts_of(obj.slot(name), self._scope(obj, None))]
        except Untranslatable as error:
            msg = f"`{name}` of `{obj.id}` {error}"
            raise Refused(msg) from error

    def plain_or_noted(self, obj: ResolvedObject, name: str) -> str:
        """As ``plain``, but an unknown value is noted as left to do, and is empty here."""
        try:
            return self.plain(obj, name)
        except Refused as refused:
            self.to_do(obj.slot(name), f"{refused}")
            return ""

    def _scope(self, obj: ResolvedObject, node: ResolvedObject | None) -> Scope:
        return Scope(self.definition, obj, node, 0, self.used)


def bucket_of(url: str) -> str | None:
    """The bucket of an S3 URL; None if it is none, or its bucket has a name that S3 does not allow."""
    found = _BUCKET.fullmatch(url)
    return found[1] if found else None


def s3_text(draft: Draft, obj: ResolvedObject, name: str, node: ResolvedObject | None = None) -> Text | None:
    """A field with an S3 URL; None if it has no value.

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
    """The columns as a pipeline's schema; all but ``never_null`` are nullable."""
    return {each.name: each.type if each.name in never_null else f"{each.type}?" for each in columns}
