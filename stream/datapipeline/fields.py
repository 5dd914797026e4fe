"""Collects what became of each field of each object while the definition is translated."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from stream.datapipeline.common_fields import COMMON_FIELDS, IDENTITY_FIELDS
from stream.datapipeline.definition import DEFAULT, Parameter, is_secret
from stream.datapipeline.object_types import OBJECT_TYPES, ObjectType
from stream.datapipeline.resolve import Definition, ResolvedObject, Slot
from stream.datapipeline.verdicts import Fate, Verdict

ABOUT_SECRETS = (
    "stream never writes a secret to a file: keep it in AWS Secrets Manager, and change it, because the definition file contained it"
)
UNUSED = "no pipeline that was written uses this object"


@dataclass(frozen=True, slots=True)
class FieldRow:
    """What became of one field of one object; ``text`` has a sentence for each use of the field."""

    object: str
    type: str
    field: str
    fate: Fate
    text: str


@dataclass(slots=True)
class FieldNotes:
    """Notes by object and field. At the end, a field without notes gets the verdict that its object type prescribes."""

    definition: Definition
    notes: dict[tuple[str, str], list[Verdict]] = field(default_factory=dict)

    def taken_over(self, slot: Slot, where: str) -> None:
        """Note that the field became ``where``."""
        self.note(slot, Verdict(Fate.TAKEN_OVER, where))

    def not_needed(self, slot: Slot, why: str) -> None:
        """Note that the field is not needed, and ``why``."""
        self.note(slot, Verdict(Fate.NOT_NEEDED, why))

    def to_do(self, slot: Slot, remedy: str) -> None:
        """Note that something is left to do; ``remedy`` says why, and what."""
        self.note(slot, Verdict(Fate.TO_DO, remedy))

    def note(self, slot: Slot, verdict: Verdict) -> None:
        """Add ``verdict`` to the notes on the field; do nothing if no object has the field."""
        if not slot.values:
            return
        known = self.notes.setdefault((slot.owner, slot.field), [])
        if verdict not in known:
            known.append(verdict)

    def rows(self, read: Iterable[tuple[str, str]]) -> list[FieldRow]:
        """A row for every field of every object, in the order of the file. ``read``: fields and parameters that expressions have read."""
        used = set(read)
        made = []
        for item in self.definition.items.values():
            obj = self.definition.objects[item.id]
            for name in item.fields:
                verdicts = self.notes.get((item.id, name)) or [self._judged(obj, name, used=(item.id, name) in used)]
                fate = max((each.fate for each in verdicts), key=list(Fate).index)
                text = ". ".join(_sentence(each, fate, first=each is verdicts[0]) for each in verdicts)
                made.append(FieldRow(item.id, obj.type or _untyped(item.id), name, fate, text))
        for parameter in self.definition.parameters.values():
            for name in dict.fromkeys((*parameter.fields, *(["value"] if parameter.given else []))):
                verdict = _of_parameter(parameter, name, used=("", parameter.name) in used)
                made.append(FieldRow(parameter.name, "parameter", name, verdict.fate, verdict.text))
        return made

    def _judged(self, obj: ResolvedObject, name: str, *, used: bool) -> Verdict:
        """The verdict on a field without notes."""
        kind = OBJECT_TYPES.get(obj.type)
        if name in IDENTITY_FIELDS:
            made = IDENTITY_FIELDS[name]
        elif name.startswith("@"):
            made = Verdict(Fate.NOT_NEEDED, "AWS Data Pipeline set it at run time")
        elif is_secret(name):
            made = Verdict(Fate.TO_DO, ABOUT_SECRETS)
        elif (found := _field(kind, name)) is not None:
            made = found
        elif used:
            made = Verdict(Fate.TAKEN_OVER, "its value was filled in where expressions refer to it")
        elif kind is not None and name in kind.translated:
            made = Verdict(Fate.NOT_NEEDED, UNUSED)
        elif name.startswith("my"):
            made = Verdict(Fate.NOT_NEEDED, "a field of your own; nothing that was taken over refers to it")
        else:
            what = f"`{obj.type}` has no such field" if kind is not None else "no object that inherits this field has one of that name"
            made = Verdict(Fate.TO_DO, f"{what}: remove it, or correct its name and import again")
        return made


def _field(kind: ObjectType | None, name: str) -> Verdict | None:
    own = kind.fields.get(name) if kind is not None else None
    return own or COMMON_FIELDS.get(name)


def _untyped(name: str) -> str:
    return "defaults" if name == DEFAULT else "base"


def _sentence(verdict: Verdict, fate: Fate, *, first: bool) -> str:
    """The text of ``verdict``, preceded by its own fate if the row has a more severe one; all but the ``first`` begin with a capital."""
    text = verdict.text if verdict.fate is fate else f"{verdict.fate}: {verdict.text}"
    return text if first else text[:1].upper() + text[1:]


def _of_parameter(parameter: Parameter, name: str, *, used: bool) -> Verdict:
    if name == "id":
        return IDENTITY_FIELDS["id"]
    if name not in {"default", "value"}:
        return Verdict(Fate.NOT_NEEDED, "pipeline files do not describe their environment variables")
    if parameter.secret:
        return Verdict(Fate.TO_DO, ABOUT_SECRETS)
    if not used:
        return Verdict(Fate.NOT_NEEDED, "nothing that was taken over refers to it")
    if name == "default" and parameter.given:
        return Verdict(Fate.NOT_NEEDED, "the definition gives another value, so the default is not used")
    return Verdict(
        Fate.TAKEN_OVER,
        f"its value is in the pipeline files; where it is written as `${{{parameter.name}:-...}}`, an environment variable can override it",
    )
