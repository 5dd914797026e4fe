"""Parses AWS Data Pipeline definition files into objects, parameters and values. Reports every error at once, with place and remedy."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from stream.errors import DefinitionError

MAX_BYTES: Final = 4 * 1024 * 1024
"""Bytes of the largest file that is read; far above the limit of AWS Data Pipeline, 100 objects of 20 KB."""

DEFAULT: Final = "Default"
"""Id of the object whose fields are inherited by all objects without a parent."""

MAX_SHOWN: Final = 20
MAX_LINE: Final = 2000
"""The number of errors that are reported, and the characters of each."""
_LOOKS_SECRET: Final = re.compile(r"SECRET|PASSWORD|PASSWD|TOKEN|CREDENTIAL|PRIVATE_?KEY|API_?KEY|ACCESS_?KEY", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Ref:
    """A value that refers to another object, by its id."""

    id: str


Value: TypeAlias = str | Ref


@dataclass(frozen=True, slots=True)
class WrittenObject:
    """One object as the file has it. ``fields``: its own fields without inherited ones, each with one or more values."""

    id: str
    fields: Mapping[str, tuple[Value, ...]]

    def text(self, field: str) -> str | None:
        """The first text among the values of ``field``; None if there is none."""
        return next((each for each in self.fields.get(field, ()) if isinstance(each, str)), None)

    def refs(self, field: str) -> tuple[str, ...]:
        """The ids of the objects to which ``field`` refers."""
        return tuple(each.id for each in self.fields.get(field, ()) if isinstance(each, Ref))


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter `my...`. ``fields``: the attributes that describe it.

    ``values`` may be empty if the parameter is optional. ``given``: the values were given, and are not just the default. The values of a
    ``secret`` parameter are never written anywhere.
    """

    name: str
    fields: tuple[str, ...]
    values: tuple[str, ...]
    given: bool
    secret: bool


@dataclass(frozen=True, slots=True)
class ParsedFiles:
    """The content of a definition file and of the files with further values."""

    items: Mapping[str, WrittenObject]
    parameters: Mapping[str, Parameter]


def is_secret(name: str) -> bool:
    """Whether a field or parameter is secret: marked with ``*``, or with a name that sounds like a secret."""
    return name.startswith("*") or _LOOKS_SECRET.search(name) is not None


def parse(text: bytes, name: str, more: Iterable[tuple[str, bytes]] = ()) -> ParsedFiles:
    """The objects of the definition ``text``, called ``name``; ``more`` are files with further `parameters` and `values`.

    Reads what the AWS CLI writes (`objects`, `parameters`, `values`) and what the API returns (`pipelineObjects`, ...).

    Raises:
        DefinitionError: it is not such a file; the message lists every error with its place and a remedy.
    """
    faults: list[str] = []
    document = _document(text, name)
    parts = [(name, document), *((called, _document(body, called)) for called, body in more)]
    items = _items(document, name, faults)
    parameters: dict[str, dict[str, Any]] = {}
    values: dict[str, tuple[str, ...]] = {}
    marked: set[str] = set()
    for called, part in parts:
        parameters.update(_parameters(part, called, faults))
        for key, value in _values(part, called, faults).items():
            values[key.lstrip("*")] = value
            marked |= {key.lstrip("*")} if key.startswith("*") else set()
    made = [_bound(each, parameters, values, marked) for each in sorted({*parameters, *values})]
    faults += _missing_values(made, parameters, items, name)
    refuse(faults)
    return ParsedFiles(items, {each.name: each for each in made})


def refuse(faults: list[str]) -> None:
    """Raise an error if ``faults`` is not empty.

    Raises:
        DefinitionError: there are faults; the message has one per line.
    """
    if faults:
        left = len(faults) - MAX_SHOWN
        shown = [_on_one_line(each) for each in faults[:MAX_SHOWN]]
        raise DefinitionError("\n".join([*shown, *([f"and {left} more"] if left > 0 else [])]))


def _on_one_line(fault: str) -> str:
    """``fault`` on one line, shortened in the middle if it is very long."""
    text = " ".join(fault.split())
    return text if len(text) <= MAX_LINE else f"{text[: MAX_LINE // 2]} ... {text[-MAX_LINE // 2 :]}"


class _Repeated(tuple[Any, ...]):
    """The values of a key that occurs more than once in an object; these files write lists that way."""

    __slots__ = ()


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, value in pairs:
        made[key] = _Repeated((*_as_tuple(made[key]), *_as_tuple(value))) if key in made else value
    return made


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (list, _Repeated)) else (value,)


def _document(text: bytes, name: str) -> Mapping[str, Any]:
    what = "AWS Data Pipeline definitions are JSON: `aws datapipeline get-pipeline-definition --pipeline-id ID > FILE` writes one"
    if len(text) > MAX_BYTES:
        msg = f"{name}: {len(text)} bytes; a definition has at most {MAX_BYTES}. {what}"
        raise DefinitionError(msg)
    try:
        document = json.loads(text.decode("utf-8-sig"), object_pairs_hook=_pairs)
    except UnicodeDecodeError as error:
        msg = f"{name}: byte {error.start + 1} is not UTF-8; save the file as UTF-8"
        raise DefinitionError(msg) from error
    except json.JSONDecodeError as error:
        msg = f"{name}:{error.lineno}:{error.colno}: not JSON: {error.msg}. {what}"
        raise DefinitionError(msg) from error
    except (RecursionError, ValueError) as error:  # too deep, or a number with thousands of digits
        msg = f"{name}: is nested too deeply, or contains a number with thousands of digits. {what}"
        raise DefinitionError(msg) from error
    if re.search(r"\\ud[89a-f]", text.decode("utf-8-sig"), re.IGNORECASE) and not _is_text(document):
        msg = f"{name}: contains half a character (a lone surrogate such as \\ud800), which cannot be written to a file; remove it"
        raise DefinitionError(msg)
    if not isinstance(document, dict):
        msg = f"{name}: contains {_kind_of(document)}; allowed: one JSON object with the list `objects`. {what}"
        raise DefinitionError(msg)
    return document


def _is_text(document: Any) -> bool:
    try:
        json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _kind_of(value: Any) -> str:
    names = {dict: "an object", list: "a list", _Repeated: "a repeated key", str: "a text", bool: "true or false"}
    return "nothing (null)" if value is None else names.get(type(value), "a number")


def _items(document: Mapping[str, Any], name: str, faults: list[str]) -> dict[str, WrittenObject]:
    key = "pipelineObjects" if "pipelineObjects" in document and "objects" not in document else "objects"
    listed = document.get(key)
    if not isinstance(listed, (list, _Repeated)) or not listed:
        found = "is missing" if key not in document else f"is {_kind_of(listed)}" if listed else "is empty"
        msg = f"{name}: `{key}` {found}; allowed: a list of objects with id and type. Pass a file that only has values with --values"
        raise DefinitionError(msg)
    items: dict[str, WrittenObject] = {}
    for index, entry in enumerate(listed):
        item = _item(entry, f"{name}: {key}[{index}]", faults)
        if item is not None and item.id in items:
            faults.append(
                f"{name}: {key}[{index}]: the id `{item.id}` is used twice; give one of the two another id, and correct the refs to it"
            )
        elif item is not None:
            items[item.id] = item
    return items


def _item(entry: Any, place: str, faults: list[str]) -> WrittenObject | None:
    if not isinstance(entry, dict):
        faults.append(f"{place}: is {_kind_of(entry)}; write an object with id and type")
        return None
    given = entry.get("id")
    if not isinstance(given, str) or not given.strip():
        found = "has no id" if "id" not in entry else f"has as its id {_kind_of(given) if not isinstance(given, str) else 'an empty text'}"
        faults.append(f"{place}: {found}; write an id that no other object has")
        return None
    pairs = _of_api(entry, f"{place} (`{given}`)", faults) if isinstance(entry.get("fields"), (list, _Repeated)) else entry
    fields = {}
    for field, value in pairs.items():
        fields[field] = tuple(_field(value, f"{place} (`{given}`), field `{field}`", faults))
    return WrittenObject(given, fields)


def _of_api(entry: Mapping[str, Any], place: str, faults: list[str]) -> dict[str, Any]:
    """The fields of an object as the API gives them, `[{key, stringValue | refValue}]`, in the form of the CLI."""
    pairs: list[tuple[str, Any]] = [(key, value) for key, value in entry.items() if key != "fields"]
    for index, each in enumerate(entry["fields"]):
        if not isinstance(each, dict) or not isinstance(each.get("key"), str) or not ("stringValue" in each or "refValue" in each):
            faults.append(f"{place}, fields[{index}]: write an object with key and stringValue or refValue")
            continue
        pairs.append((each["key"], {"ref": each["refValue"]} if "refValue" in each else each["stringValue"]))
    return _pairs(pairs)


def _field(value: Any, place: str, faults: list[str]) -> Iterator[Value]:
    for each in _as_tuple(value):
        if isinstance(each, bool):
            yield str(each).lower()
        elif isinstance(each, (str, int, float)):
            yield str(each)
        elif isinstance(each, dict) and list(each) == ["ref"] and isinstance(each["ref"], str):
            yield Ref(each["ref"])
        else:
            faults.append(f'{place}: is {_kind_of(each)}; allowed: a text, a number, {{"ref": "ID"}}, or a list of these')


def _parameters(document: Mapping[str, Any], name: str, faults: list[str]) -> dict[str, dict[str, Any]]:
    listed = document.get("parameters", document.get("parameterObjects", []))
    found: dict[str, dict[str, Any]] = {}
    for index, entry in enumerate(_as_tuple(listed)):
        if not isinstance(entry, dict) or not isinstance(entry.get("id"), str) or not entry["id"].lstrip("*"):
            faults.append(f"{name}: parameters[{index}]: write an object with the id of the parameter")
            continue
        found[entry["id"].lstrip("*")] = _attributes(entry)
    return found


def _attributes(entry: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(entry.get("attributes"), list):
        return dict(entry)
    pairs = [(each["key"], each.get("stringValue")) for each in entry["attributes"] if isinstance(each, dict) and "key" in each]
    return {"id": entry["id"], **_pairs([(str(key), value) for key, value in pairs])}


def _values(document: Mapping[str, Any], name: str, faults: list[str]) -> dict[str, tuple[str, ...]]:
    given = document.get("values", document.get("parameterValues", {}))
    if isinstance(given, (list, _Repeated)):
        given = _pairs([(str(each["id"]), each.get("stringValue")) for each in given if isinstance(each, dict) and "id" in each])
    if not isinstance(given, dict):
        faults.append(f"{name}: `values` is {_kind_of(given)}; allowed: an object with a value for each parameter")
        return {}
    found = {}
    for key, value in given.items():
        texts = tuple(_field(value, f"{name}: values, `{key}`", faults))
        found[key] = tuple(each for each in texts if isinstance(each, str))
    return found


def _bound(name: str, parameters: Mapping[str, dict[str, Any]], values: Mapping[str, tuple[str, ...]], marked: set[str]) -> Parameter:
    """A parameter with its values. ``marked``: parameters whose values are marked as secret with a star."""
    known = parameters.get(name, {})
    default = [str(each) for each in _as_tuple(known["default"]) if isinstance(each, (str, int, float))] if "default" in known else ()
    secret = name in marked or is_secret(str(known.get("id", name))) or is_secret(name)
    return Parameter(name, tuple(known), tuple(values.get(name, default)), name in values, secret)


def _missing_values(
    made: Iterable[Parameter], parameters: Mapping[str, dict[str, Any]], items: Mapping[str, WrittenObject], name: str
) -> Iterator[str]:
    """Errors for parameters that are used but have no value, and are neither optional nor secret."""
    own = {field.lstrip("*") for item in items.values() for field in item.fields}
    settled = {each.name for each in made if each.given or each.secret}
    settled |= {each for each, known in parameters.items() if "default" in known or str(known.get("optional")).lower() == "true"}
    for each in sorted({each for item in items.values() for each in _mentioned(item)} - own - settled):
        if not is_secret(each):
            yield f"{name}: the parameter `{each}` has no value; write one under `values`, or pass the file that has it with --values"


_IN_EXPRESSION: Final = re.compile(r"#\{([^}]*)\}")
_WORD: Final = re.compile(r"(?<![.A-Za-z0-9_@])\*?(my[A-Za-z0-9_]*)")
_QUOTED: Final = re.compile(r"'[^']*'|\"[^\"]*\"")


def _mentioned(item: WrittenObject) -> Iterator[str]:
    for values in item.fields.values():
        for each in values:
            if isinstance(each, str):
                yield from (word for found in _IN_EXPRESSION.findall(each) for word in _WORD.findall(_QUOTED.sub("", found)))
