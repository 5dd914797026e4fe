"""Short forms that several configurations accept, as validators that run before pydantic's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import field_validator, model_validator


def text_for(field: str) -> Any:
    """A text in place of the configuration is its ``field``."""

    def expand(value: Any) -> Any:
        return {field: value} if isinstance(value, str) else value

    return model_validator(mode="before")(expand)


def names_for(field: str) -> Any:
    """A name, or a list of names, in place of the configuration is its ``field``."""

    def expand(value: Any) -> Any:
        if isinstance(value, str):
            return {field: [value]}
        return {field: value} if isinstance(value, list | tuple) else value

    return model_validator(mode="before")(expand)


def mapping_for(field: str) -> Any:
    """A mapping in place of the configuration is its ``field``, its only one, unless it holds nothing but a mapping called ``field``."""

    def expand(value: Any) -> Any:
        if isinstance(value, Mapping) and not (set(value) == {field} and isinstance(value[field], Mapping)):
            return {field: value}
        return value

    return model_validator(mode="before")(expand)


def no_options() -> Any:
    """Nothing in place of the configuration means all its defaults."""

    def expand(value: Any) -> Any:
        return {} if value is None else value

    return model_validator(mode="before")(expand)


def one_or_more(field: str) -> Any:
    """A single text in ``field`` is a list of one."""

    def expand(value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    return field_validator(field, mode="before")(expand)


def null_word(field: str, member: Any) -> Any:
    """The word ``null`` in ``field`` is ``member``: YAML reads it as nothing unless it is quoted."""

    def expand(value: Any) -> Any:
        return member if value is None else value

    return field_validator(field, mode="before")(expand)
