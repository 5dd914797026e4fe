"""Resolves inheritance and references of objects. Broken references and unknown types are found before anything is translated."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from stream.datapipeline.definition import DEFAULT, Parameter, ParsedFiles, Ref, Value, WrittenObject, refuse


@dataclass(frozen=True, slots=True)
class Slot:
    """The values of one field of an object. ``owner``: id of the object that defines them, which may be an ancestor."""

    owner: str
    field: str
    values: tuple[Value, ...]

    @property
    def text(self) -> str:
        """Its first text; empty if there is none."""
        return next((each for each in self.values if isinstance(each, str)), "")

    @property
    def texts(self) -> tuple[str, ...]:
        """All its texts."""
        return tuple(each for each in self.values if isinstance(each, str))

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the objects it refers to."""
        return tuple(each.id for each in self.values if isinstance(each, Ref))


@dataclass(frozen=True, slots=True)
class ResolvedObject:
    """An object with all its fields, inherited ones included."""

    id: str
    type: str
    slots: Mapping[str, Slot]

    def slot(self, field: str) -> Slot:
        """The field, or one without values."""
        return self.slots.get(field) or Slot(self.id, field, ())

    def has(self, field: str) -> bool:
        """Whether the field has a value."""
        return bool(self.slot(field).values)


@dataclass(frozen=True, slots=True)
class Definition:
    """A definition in which every reference is valid and inheritance is resolved."""

    items: Mapping[str, WrittenObject]
    objects: Mapping[str, ResolvedObject]
    parameters: Mapping[str, Parameter]

    def of(self, slot: Slot) -> list[ResolvedObject]:
        """The objects that a field refers to."""
        return [self.objects[each] for each in slot.ids]

    def one(self, slot: Slot) -> ResolvedObject | None:
        """The first object that a field refers to."""
        return next(iter(self.of(slot)), None)


def resolve(written: ParsedFiles, name: str, types: Iterable[str]) -> Definition:
    """The objects of ``written``, from the file ``name``, with inherited fields. ``types``: the known types.

    Raises:
        DefinitionError: a reference is broken, inheritance is circular, or a type is unknown.
    """
    refuse(list(_dangling(written.items, name)))
    faults = list(_circles(written.items, name))
    refuse(faults)
    known = list(types)
    parents = {each for item in written.items.values() for each in item.refs("parent")}
    objects = {}
    for item in written.items.values():
        slots = _inherited(item, written.items)
        given = slots.get("type")
        kind = given.text if given else ""
        if kind and kind not in known:
            faults.append(f"{name}: object `{item.id}`: there is no type `{kind}`{_near(kind, known)}")
        if not kind and item.id != DEFAULT and item.id not in parents:
            faults.append(f"{name}: object `{item.id}`: has no type; write one of {', '.join(sorted(known))}")
        objects[item.id] = ResolvedObject(item.id, kind, slots)
    refuse(faults)
    return Definition(written.items, objects, written.parameters)


def _near(word: str, known: Iterable[str]) -> str:
    names = sorted(known)
    close = [each for each in names if each.lower() == word.lower()] or difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    return f"; did you mean `{close[0]}`?" if close else f"; known: {', '.join(names)}"


def _dangling(items: Mapping[str, WrittenObject], name: str) -> Iterator[str]:
    for item in items.values():
        for field, values in item.fields.items():
            for each in values:
                if isinstance(each, Ref) and each.id not in items:
                    place = f"{name}: object `{item.id}`, field `{field}`"
                    yield f"{place}: there is no object `{each.id}`{_near(each.id, items)}; add it, or correct the ref"


def _circles(items: Mapping[str, WrittenObject], name: str) -> Iterator[str]:
    for item in items.values():
        seen = [item.id]
        while (parent := _parent(items[seen[-1]], items)) is not None and parent not in seen:
            seen.append(parent)
        if parent == item.id:
            yield (
                f"{name}: object `{item.id}`, field `parent`: the parents form a circle: {' -> '.join([*seen, item.id])}; remove one of "
                "these refs"
            )


def _parent(item: WrittenObject, items: Mapping[str, WrittenObject]) -> str | None:
    named = item.refs("parent")
    if named:
        return named[0]
    return DEFAULT if item.id != DEFAULT and DEFAULT in items else None


def _inherited(item: WrittenObject, items: Mapping[str, WrittenObject]) -> dict[str, Slot]:
    slots: dict[str, Slot] = {}
    at: WrittenObject | None = item
    while at is not None:
        for field, values in at.fields.items():
            if field not in slots and (at is item or field not in {"id", "name", "parent"}):
                slots[field] = Slot(at.id, field, values)
        parent = _parent(at, items)
        at = items[parent] if parent is not None else None
    return slots
