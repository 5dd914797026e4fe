"""Turns YAML text into plain data, and a map from each key and value to its line and column.

The subset is deliberate: no tags, no merge keys, and the scalars of YAML 1.2, so that ``on``, ``no`` and ``2026-01-01`` are the
text, as they look. Every error is a finding with a position; nothing here raises because of what a file contains.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from stream.pipeline.findings import START, Finding, Path, Position
from stream.pipeline.interpolate import BadReference, has_reference, interpolate
from stream.recorded import is_recorded

MAX_BYTES: Final = 1024 * 1024
MAX_DEPTH: Final = 32
"""Nesting of mappings and lists, aliases followed: the deepest sensible pipeline needs 8."""
MAX_NODES: Final = 100_000
"""Keys and values, with aliases followed: otherwise, a few hundred bytes of aliases could stand for billions of values."""

_BRACES: Final = "put a text that begins with a brace in quotes; templates, such as those of Helm, are not filled in here"

_NULL: Final = frozenset({"", "~", "null", "Null", "NULL"})
_TRUE: Final = frozenset({"true", "True", "TRUE"})
_FALSE: Final = frozenset({"false", "False", "FALSE"})
_INT: Final = re.compile(r"[-+]?[0-9]{1,300}")
_RADIX: Final = re.compile(r"0(?:o[0-7]{1,300}|x[0-9a-fA-F]{1,300})")
_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_SPECIAL_FLOAT: Final = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")


@dataclass(frozen=True, slots=True)
class Document:
    """A file's content. ``keys`` and ``values`` say where each key and each value stands; ``()`` is the whole document.

    ``data`` is None where nothing usable could be read; ``findings`` says why.
    """

    file: str
    data: Any
    keys: Mapping[Path, Position]
    values: Mapping[Path, Position]
    findings: tuple[Finding, ...]

    def key_position(self, path: Path) -> Position:
        """Where the key stands that leads to ``path``; for list items and the top, where the value begins."""
        return self.keys.get(path) or self.value_position(path)

    def value_position(self, path: Path) -> Position:
        """Where the value at ``path`` begins; where there is none, the nearest value above it."""
        while path and path not in self.values:
            path = path[:-1]
        return self.values.get(path, START)


@dataclass(slots=True)
class _Node:
    position: Position
    text: str | None = None
    plain: bool = False
    mapping: bool = False
    items: list[_Node] = field(default_factory=list)
    closed: bool = False


@dataclass(slots=True)
class _Report:
    file: str
    findings: list[Finding] = field(default_factory=list)

    def add(self, at: Position, code: str, message: str, hint: str = "") -> None:
        self.findings.append(Finding(self.file, at.line, at.column, code, message, hint))


class _Stop(Exception):
    """Raised when reading further makes no sense; the reason has been reported."""


class _Loader(yaml.SafeLoader):
    """A YAML parser that reads ``{a: int64?}`` and ``{a: ${NAME}}`` as users mean them.

    Between braces PyYAML ends an unquoted value at ``?``, which YAML 1.2 does not, and at every brace. The scanner only looks
    ahead through ``peek`` and takes the text itself from the buffer, so what it is shown here can hide such a character from it.
    """

    _in_plain = False

    def scan_plain(self) -> Any:
        self._in_plain = True
        try:
            return super().scan_plain()
        finally:
            self._in_plain = False

    def peek(self, index: int = 0) -> str:
        character: str = super().peek(index)
        if not self._in_plain or character not in "?{}":
            return character
        before = self.buffer[self.pointer : self.pointer + index]
        if character == "?" or (character == "{" and before.endswith("$")):
            return "_"
        return "_" if character == "}" and before.rfind("${") > before.rfind("}") else character


def load(content: bytes, file: str, env: Mapping[str, str]) -> Document:
    """Read a pipeline file.

    References to ``env`` are replaced in values, never in keys; a plain (unquoted) value is typed after that, a quoted one
    stays text. After a finding the data holds what could be read, so that later checks can say more.
    """
    report = _Report(file)
    keys: dict[Path, Position] = {}
    values: dict[Path, Position] = {}
    data = None
    try:
        root = _compose(_text(content, report), report)
        data = _Converter(report, env, keys, values).convert(root, ())
        if not isinstance(data, dict):
            report.add(root.position, "not_a_mapping", "a pipeline file is a mapping of keys to values", "begin with `application: NAME`")
            data = None
    except _Stop:
        data = None
    return Document(file, data, keys, values, tuple(report.findings))


def _text(content: bytes, report: _Report) -> str:
    if len(content) > MAX_BYTES and not is_recorded():
        report.add(START, "too_large", f"the file has {len(content)} bytes; at most {MAX_BYTES} are read")
        raise _Stop
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start].decode("utf-8", "replace")
        report.add(_position_behind(before), "not_utf8", f"byte 0x{content[error.start]:02x} is not UTF-8", "save the file as UTF-8")
        raise _Stop from error
    return text


def _position_behind(text: str) -> Position:
    return Position(text.count("\n") + 1, len(text) - (text.rfind("\n") + 1) + 1)


def _compose(text: str, report: _Report) -> _Node:
    """The document as a tree in which aliases share nodes; the nesting of the text itself is bounded here."""
    builder = _Builder(report)
    try:
        for event in yaml.parse(text, Loader=_Loader):
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        if mark is None or (error.context_mark is not None and mark.index >= len(text.rstrip())):
            mark = error.context_mark
        at = Position(mark.line + 1, mark.column + 1) if mark else START
        report.add(at, "syntax", _problem(error), _syntax_hint(text.splitlines()[: at.line], error))
        raise _Stop from error
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        report.add(_position_behind(before), "syntax", f"the character U+{int(error.character):04X} is not allowed", "remove it")
        raise _Stop from error
    if builder.root is None:
        report.add(START, "empty_file", "the file has no content", "begin with `application: NAME`")
        raise _Stop
    return builder.root


def _problem(error: yaml.MarkedYAMLError) -> str:
    if error.problem is not None and error.problem.startswith("expected <block end>") and error.context_mark is not None:
        kind, at = ("list" if _is_list(error) else "mapping"), error.context_mark
        return f"this does not fit into the {kind} that begins at {at.line + 1}:{at.column + 1}"
    if error.problem is not None and error.problem.startswith("found character '\\t'"):
        return "a tab stands where only spaces are allowed"
    text = " ".join(part for part in (error.problem, error.context) if part).replace("\n", " ")
    begin = error.context_mark
    return f"{text} that begins at {begin.line + 1}:{begin.column + 1}" if begin else text or "this is not YAML"


def _indentation(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]


def _is_list(error: yaml.MarkedYAMLError) -> bool:
    return "collection" in (error.context or "")


def _syntax_hint(lines: Sequence[str], error: yaml.MarkedYAMLError) -> str:
    """What to do about ``error``; ``lines``: the file up to the line where it is noticed."""
    at = error.problem_mark
    before = lines[-1][: at.column] if at is not None and at.line + 1 == len(lines) else ""
    # An odd number of quotes means that this one closes what an earlier line opened, or forgot to close.
    if before.endswith(('"', "'")) and before.count(before[-1]) % 2 == 0:
        return "the quotes end before this; put the whole value in double quotes, and text within it in single ones: \"kind = 'a'\""
    return next(_indentation_hints(lines, error), None) or next(_quoting_hints(lines, error))


def _indentation_hints(lines: Sequence[str], error: yaml.MarkedYAMLError) -> Iterator[str]:
    problem, line, begin = _problem(error), lines[-1] if lines else "", error.context_mark
    for number, each in enumerate(lines, 1):
        if "\u00a0" in _indentation(each):
            yield f"line {number} is indented with a no-break space (U+00A0); indent with plain spaces"
    if problem.startswith("a tab ") or "\t" in _indentation(line):
        yield "indent with spaces, not tabs"
    before = next((each for each in reversed(lines[:-1]) if each.strip()), "")
    one, two = (len(_indentation(each)) + 1 for each in (before, line))
    if "mapping values are not allowed" in problem and line.count(": ") == 1 and two > one:
        yield f"this line begins in column {two}, the one before in column {one}; keys of one mapping begin in the same column"
    if begin is not None and problem.startswith("this does not fit"):
        yield f"begin each of its entries {'with' if _is_list(error) else 'without'} a dash, in column {begin.column + 1}"


def _quoting_hints(lines: Sequence[str], error: yaml.MarkedYAMLError) -> Iterator[str]:
    problem, begin, at = _problem(error), error.context_mark, error.problem_mark
    if "mapping values are not allowed" in problem:
        if lines and "object{" in lines[-1]:
            yield 'put an object type in quotes, as in `user: "object{id: int64}"`, or write it as a mapping, as in `user: {id: int64}`'
        yield "quote a value that contains `: `, and check the indentation"
    if "%" in problem or "`" in problem or "@" in problem:
        yield "put the value in quotes"
    if begin is not None and at is not None and at.line > begin.line:
        yield f"check indentation, quotes and brackets from line {begin.line + 1} to here"
    yield "check indentation, quotes and brackets near here"


class _Builder:
    """A tree from parser events, without recursion: an attacker chooses how deep a file nests."""

    def __init__(self, report: _Report) -> None:
        self._report = report
        self._open: list[_Node] = []
        self._anchors: dict[str, _Node] = {}
        self._documents = 0
        self.root: _Node | None = None

    def take(self, event: yaml.Event) -> None:
        """Take in the next event of the parser."""
        mark = event.start_mark
        at = Position(mark.line + 1, mark.column + 1) if mark else START
        match event:
            case yaml.DocumentStartEvent():
                self._start_document(at)
            case yaml.ScalarEvent():
                self._check_tag(event.tag, at)
                self._place(_Node(at, text=event.value, plain=event.style is None, closed=True), event.anchor)
            case yaml.SequenceStartEvent() | yaml.MappingStartEvent():
                self._check_tag(event.tag, at)
                self._start(_Node(at, mapping=isinstance(event, yaml.MappingStartEvent)), event.anchor)
            case yaml.SequenceEndEvent() | yaml.MappingEndEvent():
                self._open.pop().closed = True
            case yaml.AliasEvent():
                self._alias(event.anchor or "", at)
            case _:
                pass

    def _start_document(self, at: Position) -> None:
        self._documents += 1
        if self._documents > 1:
            self._report.add(at, "several_documents", "a second document begins here", "keep one pipeline per file")
            raise _Stop

    def _check_tag(self, tag: str | None, at: Position) -> None:
        if tag is not None:
            shown = tag.replace("tag:yaml.org,2002:", "!!")
            self._report.add(at, "custom_tag", f"the tag `{shown}` is not allowed", "remove it; put text in quotes")

    def _start(self, node: _Node, anchor: str | None) -> None:
        self._place(node, anchor)
        self._open.append(node)
        if len(self._open) > MAX_DEPTH:
            self._report.add(node.position, "too_deep", f"more than {MAX_DEPTH} levels of nesting")
            raise _Stop

    def _place(self, node: _Node, anchor: str | None) -> None:
        if anchor is not None:
            self._anchors[anchor] = node
        if self._open:
            self._open[-1].items.append(node)
        else:
            self.root = node

    def _alias(self, anchor: str, at: Position) -> None:
        node = self._anchors.get(anchor)
        if node is None:
            self._report.add(at, "unknown_alias", f"`*{anchor}` refers to nothing", f"define `&{anchor}` above")
        elif not node.closed:
            self._report.add(at, "recursive_alias", f"`*{anchor}` is part of what it refers to", "write the value itself")
            node = None
        self._place(node or _Node(at, text="", plain=True, closed=True), None)


class _Converter:
    """Plain data from the tree. Positions of an aliased value are those of the place where it is written."""

    def __init__(self, report: _Report, env: Mapping[str, str], keys: dict[Path, Position], values: dict[Path, Position]) -> None:
        self._report = report
        self._env = env
        self._keys = keys
        self._values = values
        self._nodes = 0

    def convert(self, node: _Node, path: Path) -> Any:
        self._values[path] = node.position
        self._nodes += 1
        if self._nodes > MAX_NODES and not is_recorded():
            self._report.add(
                node.position,
                "too_many_nodes",
                (f"the file has more than {MAX_NODES} values once its aliases are followed"),
                "use fewer aliases",
            )
            raise _Stop
        if len(path) > MAX_DEPTH:
            self._report.add(node.position, "too_deep", f"more than {MAX_DEPTH} levels of nesting, aliases followed")
            raise _Stop
        if node.text is not None:
            return self._scalar(node)
        if node.mapping:
            return {key: self.convert(value, (*path, key)) for key, value in self._entries(node, path)}
        return [self.convert(item, (*path, index)) for index, item in enumerate(node.items)]

    def _entries(self, node: _Node, path: Path) -> Iterator[tuple[str, _Node]]:
        """The usable entries of a mapping, keys as text."""
        seen: dict[str, Position] = {}
        for key, value in zip(node.items[::2], node.items[1::2], strict=True):
            at = key.position
            if key.text is None:
                self._report.add(at, "bad_key", "a key must be text, not a list or a mapping", _BRACES if key.mapping else "")
            elif key.plain and key.text == "<<":
                self._report.add(at, "merge_key", "`<<` does not merge here", "write the keys out")
            elif has_reference(key.text):
                hint = "write the name out; ${...} works in values"
                self._report.add(at, "interpolated_key", f"`{key.text}`: environment variables are not replaced in keys", hint)
            elif key.text in seen:
                first = seen[key.text]
                message = f"the key `{key.text}` appears a second time; the first is at {first.line}:{first.column}"
                self._report.add(at, "duplicate_key", message, "keep one of them")
            else:
                seen[key.text] = at
                self._keys[(*path, key.text)] = at
                yield key.text, value

    def _scalar(self, node: _Node) -> Any:
        text = node.text or ""
        if has_reference(text):
            try:
                text = interpolate(text, self._env)
            except BadReference as error:
                self._report.add(node.position, error.code, error.message, error.hint)
                return node.text
            if not text:
                return text
        return resolve(text) if node.plain else text


def resolve(text: str) -> str | int | float | bool | None:
    """The value of an unquoted scalar by the core schema of YAML 1.2 (https://yaml.org/spec/1.2.2/#103-core-schema)."""
    if text in _NULL:
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if _INT.fullmatch(text) or _RADIX.fullmatch(text):
        return int(text, 0 if text[:2] in {"0o", "0x"} else 10)
    if _SPECIAL_FLOAT.fullmatch(text):
        return float(text.replace(".", ""))
    if _FLOAT.fullmatch(text):
        return float(text)
    return text
