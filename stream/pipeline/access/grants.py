"""Compares IAM policy documents: what one of them grants less and more than another. Pure.

Resources and actions are compared as patterns. Conditions are compared as they are written: a statement under a condition that is
not the same is taken to grant nothing of what is wanted, and all of what is not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from stream.errors import DefinitionError

_ANYTHING: Final = "\0" * 64
"""Stands for a ``*`` inside a text that is matched against a pattern: nothing but another ``*`` can cover it."""


@dataclass(frozen=True, slots=True, order=True)
class Grant:
    """One action on one resource; ``condition`` is its JSON text with sorted keys, empty if there is none."""

    action: str
    resource: str
    condition: str = ""

    def __str__(self) -> str:
        """The grant as text."""
        return f"{self.action} on {self.resource}" + (f" if {self.condition}" if self.condition else "")


@dataclass(frozen=True, slots=True)
class Difference:
    """``missing``: wanted and not granted, or denied. ``excess``: granted and not wanted."""

    missing: tuple[Grant, ...] = field(default=())
    excess: tuple[Grant, ...] = field(default=())

    def __bool__(self) -> bool:
        """Whether there is any difference."""
        return bool(self.missing or self.excess)


def compare(wanted: Any, live: Any) -> Difference:
    """The differences of the document ``live`` from ``wanted``. ``live`` may be a list of documents.

    Raises:
        DefinitionError: one of them is no identity policy, or grants by NotAction or NotResource, which cannot be compared.
    """
    wants, (allowed, denied) = granted(wanted)[0], granted(live)
    missing = [want for want in wants if not _covered(want, allowed) or any(_overlaps(each, want) for each in denied)]
    excess = [each for each in allowed if not _covered(each, wants)]
    return Difference(tuple(sorted(set(missing))), tuple(sorted(set(excess))))


def allows(document: Any, action: str, resource: str, prefix: str | None = None) -> bool:
    """Whether ``document`` allows ``action`` on ``resource``; ``prefix`` is what ``s3:prefix`` would be in the request.

    Of conditions only ``StringLike`` on ``s3:prefix`` is understood; a statement with any other grants nothing here.
    """
    allowed, denied = granted(document)
    asked = Grant(action, resource)
    if any(_overlaps(each, asked) for each in denied):
        return False
    return any(_matches(each, asked) and _admits(each.condition, prefix) for each in allowed)


def granted(document: Any) -> tuple[list[Grant], list[Grant]]:
    """What a document, or a list of documents, allows and denies.

    Raises:
        DefinitionError: as ``compare``.
    """
    allowed: list[Grant] = []
    denied: list[Grant] = []
    for statement in _statements(document):
        effect = statement.get("Effect")
        if effect not in {"Allow", "Deny"} or "Action" not in statement or "Resource" not in statement:
            named = ", ".join(sorted(map(str, statement))) or "nothing"
            msg = f"a policy statement with {named} cannot be compared; it needs Effect Allow or Deny, Action and Resource"
            raise DefinitionError(msg)
        condition = json.dumps(_listed(statement["Condition"]), sort_keys=True) if statement.get("Condition") else ""
        target = allowed if effect == "Allow" else denied
        target += [
            Grant(action, resource, condition) for action in _texts(statement["Action"]) for resource in _texts(statement["Resource"])
        ]
    return allowed, denied


def _statements(document: Any) -> Iterator[dict[str, Any]]:
    for one in document if isinstance(document, list) else [document]:
        # `aws iam get-role-policy` and `get-policy-version` wrap the document.
        inner = one.get("PolicyDocument", one.get("PolicyVersion", one)) if isinstance(one, dict) else None
        inner = inner.get("Document", inner) if isinstance(inner, dict) else None
        found = inner.get("Statement") if isinstance(inner, dict) else None
        statements = [found] if isinstance(found, dict) else found
        if not isinstance(statements, list) or not all(isinstance(each, dict) for each in statements):
            msg = (
                "this is not an IAM policy, because it has no Statement; give a policy document, a list of them, or the "
                "output of `aws iam get-role-policy`"
            )
            raise DefinitionError(msg)
        yield from statements


def _texts(value: Any) -> Sequence[str]:
    return [value] if isinstance(value, str) else [str(each) for each in value]


def _listed(condition: Any) -> Any:
    """A condition with every single value as a list of one, as IAM takes them to be equal."""
    if isinstance(condition, dict):
        return {
            operator: {key: sorted(_texts(value)) for key, value in keys.items()} if isinstance(keys, dict) else keys
            for operator, keys in condition.items()
        }
    return condition


def _covered(grant: Grant, by: Iterable[Grant]) -> bool:
    return any(_matches(each, grant) and each.condition in {"", grant.condition} for each in by)


def _matches(pattern: Grant, grant: Grant) -> bool:
    return _fits(pattern.action.lower(), grant.action.lower()) and _fits(pattern.resource, grant.resource)


def _overlaps(denied: Grant, grant: Grant) -> bool:
    """Whether a denial without a condition touches ``grant``; under a condition it may never apply."""
    if denied.condition:
        return False
    one, other = denied.resource, grant.resource
    return _fits(denied.action.lower(), grant.action.lower()) and (_fits(one, other) or _fits(other, one))


def _fits(pattern: str, text: str) -> bool:
    parts = ("." if each == "?" else ".*" if each == "*" else re.escape(each) for each in pattern)
    return re.fullmatch("".join(parts), text.replace("*", _ANYTHING), re.DOTALL) is not None


def _admits(condition: str, prefix: str | None) -> bool:
    if not condition:
        return True
    read = json.loads(condition)
    if prefix is None or read.keys() != {"StringLike"} or read["StringLike"].keys() != {"s3:prefix"}:
        return False
    return any(_fits(pattern, prefix) for pattern in read["StringLike"]["s3:prefix"])
