"""Collects what became of each field of each object while the definition is translated."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from stream.datapipeline.definition import DEFAULT, Parameter, is_secret
from stream.datapipeline.object_types import COMMON, KINDS, MARKS, Kind
from stream.datapipeline.resolve import Definition, Slot, Thing
from stream.datapipeline.verdicts import Fate, Verdict

KEPT_BACK = (
    "stream never writes a secret to a file: keep it in AWS Secrets Manager, and change it, because the definition file contained it"
)
NOBODY = "no pipeline that was written uses this object"


@dataclass(frozen=True, slots=True)
class Row:
    """What became of one field of one object, in one sentence for each use of it."""

    object: str
    type: str
    field: str
    fate: Fate
    text: str


@dataclass(slots=True)
class Fields:
    """Notes by object and field. Fields without notes get a verdict by their kind at the end."""

    definition: Definition
    notes: dict[tuple[str, str], list[Verdict]] = field(default_factory=dict)

    def taken(self, slot: Slot, where: str) -> None:
        """The field went ``where``."""
        self.note(slot, Verdict(Fate.TAKEN, where))

    def unneeded(self, slot: Slot, why: str) -> None:
        """The field has no use here."""
        self.note(slot, Verdict(Fate.UNNEEDED, why))

    def open(self, slot: Slot, cure: str) -> None:
        """The field cannot be taken over; ``cure`` says why, and what to do."""
        self.note(slot, Verdict(Fate.OPEN, cure))

    def note(self, slot: Slot, verdict: Verdict) -> None:
        """One thing that became of a field; nothing, if no object has that field."""
        if not slot.values:
            return
        known = self.notes.setdefault((slot.owner, slot.field), [])
        if verdict not in known:
            known.append(verdict)

    def rows(self, read: Iterable[tuple[str, str]]) -> list[Row]:
        """A row for every field of every object, in the order of the file; ``read`` are fields and parameters that have been read."""
        used = set(read)
        made = []
        for item in self.definition.items.values():
            thing = self.definition.things[item.id]
            for name in item.fields:
                verdicts = self.notes.get((item.id, name)) or [self._judged(thing, name, (item.id, name) in used)]
                fate = max((each.fate for each in verdicts), key=list(Fate).index)
                text = "; ".join(_worded(each, fate) for each in verdicts)
                made.append(Row(item.id, thing.type or _untyped(item.id), name, fate, text))
        for parameter in self.definition.parameters.values():
            for name in dict.fromkeys((*parameter.fields, *(["value"] if parameter.given else []))):
                verdict = _of_parameter(parameter, name, ("", parameter.name) in used)
                made.append(Row(parameter.name, "parameter", name, verdict.fate, verdict.text))
        return made

    def _judged(self, thing: Thing, name: str, used: bool) -> Verdict:
        """The verdict on a field without notes."""
        kind = KINDS.get(thing.type)
        if name in MARKS:
            made = MARKS[name]
        elif name.startswith("@"):
            made = Verdict(Fate.UNNEEDED, "AWS Data Pipeline set it at run time")
        elif is_secret(name):
            made = Verdict(Fate.OPEN, KEPT_BACK)
        elif (found := _field(kind, name)) is not None:
            made = found
        elif used:
            made = Verdict(Fate.TAKEN, "its value was filled in where expressions refer to it")
        elif kind is not None and name in kind.translated:
            made = Verdict(Fate.UNNEEDED, NOBODY)
        elif name.startswith("my"):
            made = Verdict(Fate.UNNEEDED, "a field of your own; nothing that was taken over refers to it")
        else:
            what = f"`{thing.type}` has no such field" if kind is not None else "no object that inherits this field has one of that name"
            made = Verdict(Fate.OPEN, f"{what}: remove it, or correct its name and import again")
        return made


def _field(kind: Kind | None, name: str) -> Verdict | None:
    own = kind.fields.get(name) if kind is not None else None
    return own or COMMON.get(name)


def _untyped(name: str) -> str:
    return "defaults" if name == DEFAULT else "base"


def _worded(verdict: Verdict, fate: Fate) -> str:
    """The text of ``verdict``, preceded by its own fate if the row has a more severe one."""
    return verdict.text if verdict.fate is fate else f"{verdict.fate}: {verdict.text}"


def _of_parameter(parameter: Parameter, name: str, used: bool) -> Verdict:
    if name == "id":
        return MARKS["id"]
    if name not in {"default", "value"}:
        return Verdict(Fate.UNNEEDED, "pipeline files do not describe their environment variables")
    if parameter.secret:
        return Verdict(Fate.OPEN, KEPT_BACK)
    if not used:
        return Verdict(Fate.UNNEEDED, "nothing that was taken over refers to it")
    if name == "default" and parameter.given:
        return Verdict(Fate.UNNEEDED, "the definition gives another value, so the default is not used")
    return Verdict(
        Fate.TAKEN,
        f"its value is in the pipeline files; where it is written as `${{{parameter.name}:-...}}`, an environment variable can override it",
    )
