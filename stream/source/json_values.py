"""Finds the records in JSON texts: values one after another, or the elements of a list inside of each document, in bounded memory."""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

READ_BYTES: Final = 2**20

_SPACE: Final = re.compile(rb"[ \t\r\n]*")
_MARK: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\]"]', re.DOTALL)
"""A string, a bracket, or the beginning of a string that does not end in what was read so far."""
_SCALAR: Final = re.compile(rb'[^ \t\r\n{}\[\]",:]*')
_OTHER: Final = re.compile(rb"[^{\[\n]*")
_QUOTE, _OPENING, _CLOSING = b'"', b"{[", b"}]"


class JsonProblem(ValueError):
    """The text is not what was expected; the argument says what, and where."""


class _Ended(Exception):
    """The text ends inside of a value."""


def json_values(read: Callable[[int], bytes], longest: int) -> Iterator[bytes]:
    """The objects and lists one after another, with or without anything between them; what is neither is a record up to the line's end.

    ``read``: returns up to so many bytes of the text, none at its end. ``longest``: bytes that one record may have. If the last value does
    not end, what there is of it is the last record.

    Raises:
        JsonProblem: a record is longer.
    """
    text = _Text(read, longest)
    while begin := text.peek():
        if begin not in _OPENING:
            if record := text.run(_OTHER).rstrip():
                yield record
            continue
        try:
            yield text.value()
        except _Ended:
            yield text.rest()


def json_elements(read: Callable[[int], bytes], longest: int, path: tuple[str, ...]) -> Iterator[bytes]:
    """The elements of the list at ``path``, member by member, of each document; ``()`` if the document is that list.

    Raises:
        JsonProblem: a document ends too early, has no such list, or is no JSON as far as that shows; or an element is longer.
    """
    text = _Text(read, longest)
    try:
        while text.peek():
            yield from _elements(text, path)
    except _Ended as error:
        msg = f"the document ends too early, at byte {text.position}"
        raise JsonProblem(msg) from error


def _elements(text: _Text, path: tuple[str, ...]) -> Iterator[bytes]:
    if not path:
        text.expect(b"[", "a list of records")
        first = True
        while text.peek() != b"]":
            if not first:
                text.expect(b",", "a comma")
                text.peek()
            yield text.value()
            first = False
        text.expect(b"]", "the end of the list")
        return
    text.expect(b"{", f"an object with the member {path[0]!r}")
    found, first = False, True
    while text.peek() != b"}":
        if not first:
            text.expect(b",", "a comma")
        if text.peek() != _QUOTE:
            text.fail("a member's name")
        name = _name(text)
        text.expect(b":", "a colon")
        text.peek()
        if name == path[0]:
            found = True
            yield from _elements(text, path[1:])
        else:
            text.value(keep=False)
        first = False
    text.expect(b"}", "the end of the object")
    if not found:
        msg = f"an object that ends at byte {text.position} has no member {path[0]!r}; see source.s3.records"
        raise JsonProblem(msg)


def _name(text: _Text) -> str:
    at, written = text.position, text.value()
    try:
        return msgspec.json.decode(written, type=str)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        msg = f"the name of a member at byte {at} is no JSON: {error}"
        raise JsonProblem(msg) from error


class _Text:
    """A text that is read piece by piece, and a position in it."""

    def __init__(self, read: Callable[[int], bytes], longest: int) -> None:
        self._read = read
        self._longest = longest
        self._held = b""
        self._at = 0
        self._before = 0
        self._all = self._begun = False

    @property
    def position(self) -> int:
        """How many bytes are before the position."""
        return self._before + self._at

    def peek(self) -> bytes:
        """Skip white space; returns the character after it, none at the end."""
        while True:
            found = _SPACE.match(self._held, self._at)
            self._at = self._at if found is None else found.end()
            if self._at < len(self._held) or not self._more(self._at):
                return self._held[self._at : self._at + 1]

    def expect(self, mark: bytes, what: str) -> None:
        """Skip white space and ``mark``.

        Raises:
            JsonProblem: something else is there.
            _Ended: nothing is.
        """
        if self.peek() != mark:
            self.fail(what)
        self._at += 1

    def fail(self, what: str) -> None:
        """Say that ``what`` was expected at the position."""
        found = self.peek()
        if not found:
            raise _Ended
        msg = f"at byte {self.position} there is {found.decode('latin-1')!r} in place of {what}; see source.s3.format and source.s3.records"
        raise JsonProblem(msg)

    def value(self, *, keep: bool = True) -> bytes:
        """Pass the value at the position, which is no white space; returns its text, with ``keep``.

        Brackets are counted and not matched with each other: whoever decodes the value finds that.
        """
        first = self._held[self._at : self._at + 1]
        if first not in _OPENING and first != _QUOTE:
            found = self.run(_SCALAR)
            if not found:
                self.fail("a value")
            if not self.peek():
                raise _Ended  # it may have gone on
            return found
        depth, looked = 0, self._at
        while True:
            for mark in _MARK.finditer(self._held, looked):
                looked, kind = mark.end(), self._held[mark.start() : mark.start() + 1]
                if kind == _QUOTE:
                    if mark.end() - mark.start() == 1:
                        looked = mark.start()
                        break
                else:
                    depth += 1 if kind in _OPENING else -1
                if depth == 0:
                    return self._pass(looked)
            else:
                looked = len(self._held)
            looked = self._on(looked, keep=keep)

    def run(self, pattern: re.Pattern[bytes]) -> bytes:
        """Pass what ``pattern``, of single characters, matches at the position; returns it."""
        while True:
            found = pattern.match(self._held, self._at)
            end = self._at if found is None else found.end()
            if end < len(self._held):
                return self._pass(end)
            self._check(end)
            if not self._more(self._at):
                return self._pass(len(self._held))

    def rest(self) -> bytes:
        """Pass everything that is left, of which all has been read."""
        return self._pass(len(self._held))

    def _pass(self, end: int) -> bytes:
        passed = self._held[self._at : end]
        self._at = end
        return passed

    def _on(self, looked: int, *, keep: bool) -> int:
        """Read on inside of a value; returns where to look on.

        Raises:
            _Ended: there is nothing more.
        """
        if not keep:
            self._at = looked
        self._check(len(self._held))
        dropped = self._at
        if not self._more(self._at):
            raise _Ended
        return looked - dropped

    def _check(self, end: int) -> None:
        if end - self._at > self._longest:
            msg = f"a value of more than {self._longest} bytes begins at byte {self.position}: a bracket or a quote is never closed"
            raise JsonProblem(msg)

    def _more(self, dropped: int) -> bool:
        """Forget what is before ``dropped``, and read at least as much as is left, so that looking at it again stays cheap."""
        if self._all:
            return False
        kept = self._held[dropped:]
        piece = self._read(max(READ_BYTES, len(kept)))
        self._all = not piece
        if not piece:
            return False
        if not self._begun:
            piece, self._begun = piece.removeprefix(BOM_UTF8), True  # it belongs to no record
        self._held, self._before, self._at = kept + piece, self._before + dropped, self._at - dropped
        return True
