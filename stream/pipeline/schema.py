"""The pipeline file as a JSON Schema for editors, with the docstrings as descriptions.

It accepts whatever the loader accepts and is laxer in places, such as shorthand forms; ``stream check`` has the last word.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from stream.pipeline.components import DECODERS, SINKS, STAGES, stage_class, stage_names
from stream.pipeline.coordination import Coordination
from stream.pipeline.model import Pipeline
from stream.transform.types import NAMES

DIALECT: Final = "http://json-schema.org/draft-07/schema#"
"""The draft that yaml-language-server, and so most editors, support."""

_DEFS: Final = "#/definitions/"
_ENV: Final = {"type": "string", "pattern": r"\$\{", "description": "A reference to the environment, ${NAME} or ${NAME:-default}."}
_TEXT: Final = {"type": "string"}
_TEXTS: Final = {"type": "array", "items": _TEXT}
_NAMED: Final = {"type": "object", "additionalProperties": _TEXT}
_BOUNDS: Final = {"ge": "minimum", "le": "maximum", "gt": "exclusiveMinimum", "lt": "exclusiveMaximum"}
"""Keywords that the library adds by itself after a validator."""

SHORT: Final[Mapping[str, tuple[dict[str, Any], ...]]] = {
    "cast": (_NAMED,),
    "dedupe": (_TEXT, _TEXTS),
    "derive": (_NAMED,),
    "explode": (_TEXT,),
    "filter": (_TEXT,),
    "flatten": (_TEXT, _TEXTS),
    "python": (_TEXT,),
    "rename": (_NAMED,),
    "select": (_TEXT, _TEXTS),
    "sql": (_TEXT,),
}
"""Short forms of a stage's options."""

_FORMS: Final[Mapping[tuple[str, str], tuple[dict[str, Any], ...]]] = {
    ("Lookup", "on"): (_TEXT, _TEXTS),
    ("Lookup", "take"): (_TEXT, _TEXTS),
    ("Enrich", "on"): (_TEXT, _TEXTS),
    ("Enrich", "take"): (_TEXT, _TEXTS),
    ("KinesisSource", "streams"): ({"type": "array", "items": {"anyOf": [_TEXT, {"$ref": f"{_DEFS}StreamEntry"}]}},),
    ("Pipeline", "coordination"): ({"enum": list(Coordination.model_fields)},),
    ("Pipeline", "sensitive"): (_TEXT, _TEXTS),
    ("Parse", "url"): ({"type": "boolean"},),
    ("Validate", "columns"): ({"type": "null"},),
    ("ObjectsSinkConfig", "partition_by"): (_TEXT, _NAMED),
    ("RedshiftSinkConfig", "quiet"): (_TEXT,),
    ("IcebergSinkConfig", "quiet"): (_TEXT,),
    ("IcebergSinkConfig", "partition_by"): (_TEXT,),
}
"""What an option takes besides what its type says."""


def json_schema(stages: Mapping[str, type[BaseModel]] | None = None) -> dict[str, Any]:
    """The schema of a pipeline file, with ``stages`` (the built-in ones unless given) by the name they have in it."""
    known = STAGES if stages is None else stages
    models: list[type[BaseModel]] = [Pipeline, *known.values(), *DECODERS.values(), *SINKS.values()]
    keys = list(dict.fromkeys(models))
    refs, defined = models_json_schema([(model, "validation") for model in keys], by_alias=True, ref_template=_DEFS + "{model}")
    definitions = {name: _relaxed(name, body, defined["$defs"]) for name, body in defined["$defs"].items()}
    at = {model: refs[model, "validation"]["$ref"] for model in keys}
    definitions["secret"] = _secret()
    definitions["stage"] = _component(known, at, SHORT)
    definitions["decoder"] = _component(DECODERS, at, {}, bare=True)
    definitions["sink"] = _component(SINKS, at, {})
    definitions["columns"] = _columns()
    _mask(definitions)
    _source(definitions["Source"])
    top = definitions.pop(at[Pipeline].removeprefix(_DEFS))
    return {"$schema": DIALECT, "title": "A pipeline of `stream`", **top, "definitions": dict(sorted(definitions.items()))}


def installed_stages() -> dict[str, type[BaseModel]]:
    """The built-in stages and those of installed packages.

    Raises:
        DefinitionError: an installed package's entry point leads to no stage.
    """
    return {name: found for name in stage_names() if (found := stage_class(name)) is not None}


def _component(
    named: Mapping[str, type[BaseModel]], at: Mapping[type[BaseModel], str], short: Mapping[str, Any], *, bare: bool = False
) -> dict[str, Any]:
    """One key, the component's name, with its options; or the name alone where it needs none."""
    forms: list[dict[str, Any]] = []
    for name, model in named.items():
        description = _first_paragraph(model)
        options: list[dict[str, Any]] = [{"$ref": at[model]}, *short.get(name, ())]
        if not any(field.is_required() for field in model.model_fields.values()):
            options.append({"type": "null"})
        value = {"description": description, "anyOf": options}
        forms.append({"type": "object", "properties": {name: value}, "required": [name], "additionalProperties": False})
    if bare:
        forms.append({"enum": list(named)})
        forms.append(_ENV)
    return {"anyOf": forms}


def _first_paragraph(model: type[BaseModel]) -> str:
    return " ".join(inspect.cleandoc(model.__doc__ or "").split("\n\n")[0].split()).replace("``", "`")


def _source(definition: dict[str, Any]) -> None:
    """Exactly one of the sources is named; the model fills in the other one's name by itself."""
    del definition["required"]
    definition["oneOf"] = [{"required": ["kinesis"]}, {"required": ["s3"]}]


def _relaxed(model: str, body: dict[str, Any], defined: Mapping[str, Any]) -> dict[str, Any]:
    """A definition that also takes environment references, and the short forms of lists."""
    if "description" in body:
        body = {**body, "description": " ".join(body["description"].split()).replace("``", "`")}
    if "properties" not in body:
        return _loose(body)
    properties = {}
    for name, value in body["properties"].items():
        described = {key: value[key] for key in ("description", "default") if key in value and isinstance(value[key], str | int | float)}
        bare = {key: each for key, each in value.items() if key not in {"description", "default", "title"}}
        forms = [*_forms(bare, defined), *_FORMS.get((model.rpartition("__")[2], name), ())]
        properties[name] = {**described, **(forms[0] if len(forms) == 1 else {"anyOf": forms})}
    return {**{key: each for key, each in body.items() if key != "title"}, "properties": properties}


def _forms(value: dict[str, Any], defined: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    forms = value.get("anyOf", [value])
    scalar = False
    for form in forms:
        yield _loose(form)
        target = defined.get(form.get("$ref", "").removeprefix(_DEFS), form)
        if form.get("type") == "array" and form.get("items") == _TEXT:
            yield _TEXT
        if "codec" in target.get("properties", {}):
            codec = target["properties"]["codec"]["$ref"].removeprefix(_DEFS)
            yield {"enum": defined[codec]["enum"]}
        scalar = scalar or "enum" in target or str(target.get("type")) in {"integer", "number", "boolean"}
    if scalar:
        yield _ENV


def _loose(form: dict[str, Any]) -> dict[str, Any]:
    """One form, markers inside replaced; an enumeration with a `null` takes YAML's bare null too."""
    marker = form.get("x-is")
    if marker is not None:
        return {"$ref": f"{_DEFS}{marker}"}
    if "enum" in form:
        words = [*form["enum"], *([None] if "null" in form["enum"] else [])]
        return {"description": form["description"], "enum": words} if "description" in form else {"enum": words}
    inner = {key: _loose(form[key]) for key in ("items", "additionalProperties") if isinstance(form.get(key), dict)}
    return {_BOUNDS.get(key, key): each for key, each in {**form, **inner}.items() if key != "title"}


def _secret() -> dict[str, Any]:
    places = {"env": "Name of an environment variable.", "file": "Path of a file.", "secrets_manager": "Name or ARN, with #field for JSON."}
    forms = [
        {"type": "object", "properties": {kind: {"type": "string", "description": text}}, "required": [kind], "additionalProperties": False}
        for kind, text in places.items()
    ]
    return {
        "description": "A secret, by reference only.",
        "anyOf": [*forms, {"type": "string", "pattern": "^(env|file|secrets_manager):."}],
    }


def _columns() -> dict[str, Any]:
    words = [name for name in NAMES if name not in {"list", "object", "decimal"}]
    shown = [*words, *(f"{name}?" for name in words), "timestamp(ms)", "decimal(12,2)", "list<string>", "object{name: string}"]
    kind = {"anyOf": [{"enum": shown}, _TEXT, {"type": "object"}]}
    description = "Columns of a record, `name: type`; `?` after a type means that the value may be null."
    return {"description": description, "anyOf": [{"type": "object", "additionalProperties": kind}, {"type": "null"}]}


def _mask(definitions: dict[str, Any]) -> None:
    """`keep_last: 4` sets two options."""
    mask = definitions["Mask"]
    mask["properties"]["keep_last"] = {"type": "integer", "minimum": 1, "description": "Method `keep_last`, and how many characters."}
    mask["properties"]["key"] = {
        "description": mask["properties"]["key"]["description"],
        "anyOf": [{"$ref": f"{_DEFS}secret"}, {"type": "null"}],
    }
    mask["required"] = ["columns"]
