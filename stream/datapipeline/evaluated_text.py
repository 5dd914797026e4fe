"""The values of fields after their expressions were evaluated: fixed text, values of parameters, and times that differ from run to run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from stream.datapipeline.run_times import ScheduledTime


class Untranslatable(Exception):
    """A value has no counterpart in a pipeline file. The message says why, and continues a sentence that begins with the value's place."""


@dataclass(frozen=True, slots=True)
class ParameterValue:
    """The value of a parameter. In the pipeline file it is the default of an environment variable with the parameter's name."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class RunTime:
    """A time that depends on the run, formatted with ``pattern`` (as in strftime)."""

    moment: ScheduledTime
    pattern: str


Piece: TypeAlias = str | ParameterValue | RunTime

_UNITS: Final = (("S", "SECOND"), ("M", "MINUTE"), ("H", "HOUR"), ("I", "HOUR"), ("d", "DAY"), ("j", "DAY"), ("m", "MONTH"), ("b", "MONTH"))


def unit_of(pattern: str) -> str:
    """The smallest unit of time in ``pattern``, in capitals: the name of an environment variable."""
    return next((word for mark, word in _UNITS if f"%{mark}" in pattern.replace("%%", "").replace("%-", "%")), "YEAR")


@dataclass(slots=True)
class RunTimes:
    """The environment variables through which a pipeline file gets the times of a run."""

    times: dict[str, RunTime] = field(default_factory=dict)

    def name(self, time: RunTime) -> str:
        """The name of the variable for ``time``; equal times share a variable."""
        for name, known in self.times.items():
            if known == time:
                return name
        unit = unit_of(time.pattern)
        name, number = unit, 1
        while name in self.times:
            number += 1
            name = f"{unit}_{number}"
        self.times[name] = time
        return name


@dataclass(frozen=True, slots=True)
class Text:
    """An evaluated text, in pieces. Neighbouring pieces of fixed text are joined."""

    pieces: tuple[Piece, ...]

    @classmethod
    def of(cls, pieces: Iterable[Piece]) -> Text:
        """The text that consists of ``pieces``. Formats of the same time are joined into one, together with the fixed text between them."""
        made: list[Piece] = []
        for piece in pieces:
            if isinstance(piece, str) and made and isinstance(made[-1], str):
                made[-1] += piece
            elif piece != "":
                made.append(piece)
        return cls(tuple(_joined(made)))

    @property
    def plain(self) -> str:
        """The text, with the values of parameters filled in.

        Raises:
            Untranslatable: it contains a time that depends on the run.
        """
        if self.has_run_time:
            msg = "contains the time of the run, which is not possible here; write a fixed value"
            raise Untranslatable(msg)
        return "".join(each.value if isinstance(each, ParameterValue) else each for each in self.pieces if not isinstance(each, RunTime))

    @property
    def has_run_time(self) -> bool:
        """Whether it contains a time that depends on the run."""
        return any(isinstance(each, RunTime) for each in self.pieces)

    def render(self, run_times: RunTimes) -> str:
        """The text for a pipeline file: parameters as `${NAME:-value}`, times as `${NAME}`, which are added to ``run_times``."""
        return "".join(_rendered(each, run_times) for each in self.pieces)

    def lower(self) -> Text:
        """The text in lower case."""
        return Text(tuple(_lower(each) for each in self.pieces))

    def with_final_slash(self) -> Text:
        """The text with exactly one slash at its end."""
        *before, last = self.pieces or ("",)
        match last:
            case str():
                return Text.of([*before, last.rstrip("/") + "/"])
            case ParameterValue() if last.value.endswith("/"):
                return Text.of([*before, ParameterValue(last.name, last.value.rstrip("/") + "/")])
        return Text.of([*self.pieces, "/"])

    def split(self) -> tuple[Text, Text]:
        """The part before the first time, up to its last slash, and the rest."""
        at = next((index for index, each in enumerate(self.pieces) if isinstance(each, RunTime)), len(self.pieces))
        return _cut(self.pieces, at)

    def folder(self) -> tuple[Text, Text]:
        """The part up to the last slash, and the rest."""
        return _cut(self.pieces, len(self.pieces))


def _lower(piece: Piece) -> Piece:
    if isinstance(piece, ParameterValue):
        return ParameterValue(piece.name, piece.value.lower())
    return piece.lower() if isinstance(piece, str) else piece


def _cut(pieces: tuple[Piece, ...], end: int) -> tuple[Text, Text]:
    """``pieces`` split after the last slash before ``end``."""
    for index in range(end - 1, -1, -1):
        piece = pieces[index]
        words = piece.value if isinstance(piece, ParameterValue) else piece if isinstance(piece, str) else ""
        if "/" not in words:
            continue
        if words.endswith("/"):
            return Text.of(pieces[: index + 1]), Text.of(pieces[index + 1 :])
        before, _, after = words.rpartition("/")
        return Text.of([*pieces[:index], before + "/"]), Text.of([after, *pieces[index + 1 :]])
    return Text(()), Text(pieces)


def _joined(pieces: list[Piece]) -> list[Piece]:
    made: list[Piece] = []
    for piece in pieces:
        match made:
            case [*_, RunTime() as first, str() as between] if isinstance(piece, RunTime) and piece.moment == first.moment:
                made[-2:] = [RunTime(first.moment, first.pattern + between.replace("%", "%%") + piece.pattern)]
            case [*_, RunTime() as first] if isinstance(piece, RunTime) and piece.moment == first.moment:
                made[-1] = RunTime(first.moment, first.pattern + piece.pattern)
            case _:
                made.append(piece)
    return made


def _rendered(piece: Piece, run_times: RunTimes) -> str:
    if isinstance(piece, str):
        return escaped(piece)
    if isinstance(piece, RunTime):
        return f"${{{run_times.name(piece)}}}"
    return escaped(piece.value) if set("{}$") & set(piece.value) or not piece.value else f"${{{piece.name}:-{piece.value}}}"


def escaped(text: str) -> str:
    """``text`` with `${` escaped, so that a pipeline file does not take it for an environment variable."""
    return text.replace("${", "$${")


def shown(times: Mapping[str, RunTime], interval: tuple[str, str]) -> dict[str, str]:
    """The Airflow template for each variable; ``interval``: the expressions for a run's begin and end."""
    return {name: f"{{{{ {time.moment.template(interval)}.strftime('{time.pattern}') }}}}" for name, time in times.items()}
