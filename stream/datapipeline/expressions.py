"""Evaluates the expressions `#{...}` of a definition, as far as their values are known before a run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final, TypeAlias

from stream.datapipeline.arithmetic import NUMBERS
from stream.datapipeline.definition import Ref, is_secret
from stream.datapipeline.evaluated_text import ParameterValue, Piece, RunTime, Text, Untranslatable
from stream.datapipeline.resolve import Definition, ResolvedObject, Slot
from stream.datapipeline.run_times import END, FLOORS, ISO, MAX_SHIFT, START, UNITS, ScheduledTime, date_of, strftime_of

MAX_DEPTH: Final = 24
"""Deepest nesting of expressions, and of references from field to field."""

MAX_STEPS: Final = 2000
"""Most fields that one value may consist of; otherwise, `#{a}#{a}` where `a` is `#{b}#{b}` and so on would grow exponentially."""

_TIMES: Final = {"@scheduledStartTime": START, "@scheduledEndTime": END}
_PARTS: Final = {"year": "%Y", "month": "%-m", "day": "%-d", "hour": "%-H", "minute": "%-M", "dayOfYear": "%-j"}
_TOKEN: Final = re.compile(
    r"\s*(?:(?P<number>\d{1,18}(?:\.\d{1,18})?)|'(?P<single>[^']*)'|\"(?P<double>[^\"]*)\"|(?P<name>[@*]?[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<mark>[-+*/^(),.]))"
)


@dataclass(frozen=True, slots=True)
class Scope:
    """The context of an expression, which stands in a field of ``obj``.

    ``node``: the object that uses ``obj``; ``depth``: references followed.
    """

    definition: Definition
    obj: ResolvedObject
    node: ResolvedObject | None = None
    depth: int = 0
    used: set[tuple[str, str]] = field(default_factory=set)
    """What expressions have read: fields as (object, field), and parameters as ("", name)."""
    steps: list[int] = field(default_factory=lambda: [0])
    """The number of fields read for the current value, in a list of one so that nested scopes share it."""

    def at(self, obj: ResolvedObject) -> Scope:
        """The scope for an expression in a field of ``obj``, one reference deeper."""
        self.steps[0] += 1
        if self.depth >= MAX_DEPTH or self.steps[0] > MAX_STEPS:
            msg = "refers to itself, or to too many other fields; write a fixed value"
            raise Untranslatable(msg)
        return replace(self, obj=obj, depth=self.depth + 1)


Result: TypeAlias = Text | int | float | ScheduledTime | ResolvedObject | tuple["Result", ...]


def evaluated(text: str, scope: Scope) -> Text:
    """``text`` with its expressions evaluated.

    Raises:
        Untranslatable: an expression has no value before the run, or none at all.
    """
    return Text.of(_pieces(text, scope))


def texts_of(slot: Slot, scope: Scope) -> list[Text]:
    """Every value of a field. If a value is an expression that gives a list, it counts as the values in that list."""
    made = []
    for each in slot.texts:
        whole = re.fullmatch(r"\s*#\{([^{}]*)\}\s*", each)
        result = _evaluate(whole[1], scope) if whole else None
        if isinstance(result, tuple):
            made += [Text.of(_as_pieces(one)) for one in result]
        else:
            made.append(Text.of(_as_pieces(result)) if result is not None else evaluated(each, scope))
    return made


def _pieces(text: str, scope: Scope) -> Iterator[Piece]:
    at = 0
    while (begin := text.find("#{", at)) >= 0:
        end = _end_of(text, begin)
        yield text[at:begin]
        yield from _as_pieces(_evaluate(text[begin + 2 : end], scope))
        at = end + 1
    yield text[at:]


def _end_of(text: str, begin: int) -> int:
    quote = ""
    for at in range(begin + 2, len(text)):
        letter = text[at]
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter == "}":
            return at
    msg = "has an expression without its closing }; correct it, and import again"
    raise Untranslatable(msg)


def _as_pieces(value: Result) -> tuple[Piece, ...]:
    if isinstance(value, Text):
        return value.pieces
    if isinstance(value, ScheduledTime):
        return (value.base.isoformat()[:19],) if isinstance(value.base, datetime) else (RunTime(value, ISO),)
    if isinstance(value, (int, float)):
        return (f"{value:g}" if isinstance(value, float) else str(value),)
    if isinstance(value, ResolvedObject):
        return (value.id,)
    if len(value) == 1:
        return _as_pieces(value[0])
    msg = "has a list inside a text; write a single value"
    raise Untranslatable(msg)


def _evaluate(expression: str, scope: Scope) -> Result:
    return _Parser(_tokens(expression), scope).whole()


def _tokens(expression: str) -> list[tuple[str, str]]:
    found, at = [], 0
    text = expression.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            msg = "has an expression that cannot be understood; write a fixed value"
            raise Untranslatable(msg)
        found.append((match.lastgroup, match[match.lastgroup]))
        at = match.end()
    return found


class _Parser:
    """Recursive descent: sums of products of powers of calls and paths."""

    def __init__(self, tokens: list[tuple[str, str]], scope: Scope) -> None:
        self.tokens = tokens
        self.scope = scope
        self.at = 0
        self.open = 0

    def whole(self) -> Result:
        value = self.sum()
        if self.at != len(self.tokens):
            self.fail()
        return value

    def fail(self) -> None:
        msg = "has an expression that cannot be understood; write a fixed value"
        raise Untranslatable(msg)

    def mark(self, marks: str) -> str:
        if self.at < len(self.tokens) and self.tokens[self.at][0] == "mark" and self.tokens[self.at][1] in marks:
            self.at += 1
            return self.tokens[self.at - 1][1]
        return ""

    def sum(self) -> Result:
        value = self.product()
        while sign := self.mark("+-"):
            value = _calculated(sign, value, self.product())
        return value

    def product(self) -> Result:
        value = self.power()
        while sign := self.mark("*/"):
            value = _calculated(sign, value, self.power())
        return value

    def power(self) -> Result:
        value = self.path()
        return _calculated("^", value, self.path()) if self.mark("^") else value

    def path(self) -> Result:
        """A value, followed by any number of `.field` or `.function(...)`."""
        value = self.single()
        while self.mark("."):
            name = self.name()
            value = self.call(name, (value,)) if self.mark("(") else _member(value, name, self.scope)
        return value

    def name(self) -> str:
        if self.at >= len(self.tokens) or self.tokens[self.at][0] != "name":
            self.fail()
        self.at += 1
        return self.tokens[self.at - 1][1]

    def single(self) -> Result:
        self.open += 1
        if self.open > MAX_DEPTH or self.at >= len(self.tokens):
            self.fail()
        kind, word = self.tokens[self.at]
        self.at += 1
        value: Result
        if kind == "number":
            value = float(word) if "." in word else int(word)
        elif kind in {"single", "double"}:
            value = Text.of([word])
        elif kind == "name":
            value = self.call(word, ()) if self.mark("(") else _named(word, self.scope)
        elif word == "(":
            value = self.sum()
            if not self.mark(")"):
                self.fail()
        elif word == "-":
            value = _calculated("-", 0, self.path())
        else:
            self.fail()
        self.open -= 1
        return value

    def call(self, name: str, first: tuple[Result, ...]) -> Result:
        values = list(first)
        if not self.mark(")"):
            values.append(self.sum())
            while self.mark(","):
                values.append(self.sum())
            if not self.mark(")"):
                self.fail()
        return _called(name, values)


def _named(name: str, scope: Scope) -> Result:
    """The value of a bare name: a time, the object itself, one of its fields, or a parameter."""
    if name in _TIMES:
        return ScheduledTime(_TIMES[name])
    if name in {"node", "parent"}:
        found = scope.node if name == "node" else scope.obj
        if found is None:
            msg = "refers to the object that uses it, but more than one object does; write a fixed value"
            raise Untranslatable(msg)
        return found
    plain = name.lstrip("*")
    if name.startswith("*"):
        raise Untranslatable(_secret_refusal(name))
    if name in scope.obj.slots:
        return _member(scope.obj, name, scope)
    if plain in scope.definition.parameters:
        return _parameter(plain, scope)
    return _member(scope.obj, name, scope)


def _secret_refusal(name: str) -> str:
    return f"contains the secret `{name.lstrip('*')}`, which stream never writes to a file; keep it in AWS Secrets Manager"


def _parameter(name: str, scope: Scope) -> Result:
    found = scope.definition.parameters[name]
    if found.secret:
        raise Untranslatable(_secret_refusal(name))
    scope.used.add(("", name))
    values = tuple(Text.of([ParameterValue(name, each)]) for each in found.values)
    return values[0] if len(values) == 1 else values or Text(())


def _member(value: Result, name: str, scope: Scope) -> Result:
    if not isinstance(value, ResolvedObject):
        msg = f"refers to `{name}` of a value that has no fields; write a fixed value"
        raise Untranslatable(msg)
    if name in _TIMES:
        return ScheduledTime(_TIMES[name])
    field_name = name.removeprefix("@") if name in {"@id", "@name", "@type"} else name
    slot = value.slots.get(field_name)
    if slot is None:
        what = "AWS Data Pipeline set at run time" if name.startswith("@") else f"`{value.id}` does not have"
        msg = f"refers to `{name}`, which {what}; write a fixed value"
        raise Untranslatable(msg)
    if is_secret(field_name):
        raise Untranslatable(_secret_refusal(field_name))
    scope.used.add((slot.owner, field_name))
    inner = scope.at(value)
    results: list[Result] = []
    for each in slot.values:
        if isinstance(each, Ref):
            results.append(scope.definition.objects[each.id])
        else:
            results.append(evaluated(each, inner))
    return results[0] if len(results) == 1 else tuple(results)


def _calculated(sign: str, left: Result, right: Result) -> Result:
    if isinstance(left, (int, float)) and isinstance(right, (int, float)):
        try:
            return NUMBERS[sign](left, right)
        except (ArithmeticError, ValueError) as error:
            msg = "has a calculation without a result, such as a division by zero; write a fixed value"
            raise Untranslatable(msg) from error
    if sign == "+":
        return Text.of([*_as_pieces(left), *_as_pieces(right)])
    msg = f"uses the operator {sign} on something that is not a number; write a fixed value"
    raise Untranslatable(msg)


def _called(name: str, values: list[Result]) -> Result:
    try:
        made = _function(name, values)
    except (OverflowError, ValueError, TypeError) as error:
        msg = f"calls {name}() for a date that does not exist; write a fixed value"
        raise Untranslatable(msg) from error
    if made is None:
        msg = f"calls {name}() in a way that has no counterpart; write a fixed value"
        raise Untranslatable(msg)
    return made


def _function(name: str, values: list[Result]) -> Result | None:
    """The result of a function of the guide; None if there is no such function for these values."""
    made: Result | None = None
    shift = re.fullmatch(rf"(plus|minus)({'|'.join(UNITS)})", name)
    match values:
        case [_, _, _] if name == "makeDate":
            made = _made(*values)
        case [_, _, _, _, _] if name == "makeDateTime":
            made = _made(*values)
        case [value, int() as number] if shift and number <= MAX_SHIFT:
            made = _moment(value).step(shift[2], number if shift[1] == "plus" else -number)
        case [value, Text() as period] if name in {"plusPeriod", "minusPeriod"}:
            made = _shifted(_moment(value), period.plain, 1 if name == "plusPeriod" else -1)
        case [value, Text() as form] if name == "format":
            made = _formatted(_moment(value), form.plain)
        case [value] if name == "yesterday":
            made = _moment(value).step("Days", -1)
        case [value] if name in FLOORS or name == "sunday":
            made = _moment(value).step(name)
        case [value] if name in _PARTS:
            made = _part(_moment(value), name)
    return made


def _made(*parts: Result) -> ScheduledTime:
    """The time with these parts: year, month and day, and perhaps hour and minute."""
    numbers = [each if isinstance(each, int) else int(Text.of(_as_pieces(each)).plain) for each in parts]
    year, month, day, hour, minute = (*numbers, 0, 0)[:5]
    return ScheduledTime(datetime(year, month, day, hour, minute, tzinfo=UTC))


def _moment(value: Result) -> ScheduledTime:
    if isinstance(value, ScheduledTime):
        return value
    if isinstance(value, Text):
        if len(value.pieces) == 1 and isinstance(value.pieces[0], RunTime) and value.pieces[0].pattern == ISO:
            return value.pieces[0].moment
        found = date_of(value.plain)
        if found is not None:
            return ScheduledTime(found)
    msg = "calculates with a text that is not a date; write a fixed value"
    raise Untranslatable(msg)


def _shifted(moment: ScheduledTime, period: str, sign: int) -> ScheduledTime:
    found = re.fullmatch(r"\s*(\d{1,6})\s+([A-Za-z]+?)s?\s*", period)
    unit = found[2].capitalize() + "s" if found else ""
    if found is None or unit not in UNITS:
        msg = "calculates with a text that is not a period; write one such as '1 day'"
        raise Untranslatable(msg)
    return moment.step(unit, sign * int(found[1]))


def _formatted(moment: ScheduledTime, form: str) -> Text:
    pattern = strftime_of(form)
    if pattern is None:
        msg = "formats a time with a pattern that has no counterpart; use one such as 'YYYY-MM-dd-HH'"
        raise Untranslatable(msg)
    return Text.of([moment.base.strftime(pattern) if isinstance(moment.base, datetime) else RunTime(moment, pattern)])


def _part(moment: ScheduledTime, name: str) -> Result:
    if isinstance(moment.base, datetime):
        return int(moment.base.strftime(_PARTS[name].replace("-", "")))
    return Text.of([RunTime(moment, _PARTS[name])])
