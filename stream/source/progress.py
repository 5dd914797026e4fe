"""How far one shard has been read: which rows of a response are new, and where an iterator has to begin. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise
from typing import Final

import polars as pl

from stream.aws.kinesis import IteratorAt, IteratorKind
from stream.aws.pages import RawPage
from stream.batch import ORIGIN, SEQUENCE
from stream.contracts import Shard, Start, StartKind
from stream.errors import Halted
from stream.source.access import MOST_AHEAD, shown

_LATEST_SLACK: Final = timedelta(seconds=5)
"""Clock difference allowed for when LATEST has to be replaced by the time of the first call."""


class Progress:
    """Reading of ``shard`` after sequence number ``after``, or with ``after == ORIGIN`` from ``start``, up to ``until`` if that is given.

    The *position* is the greatest sequence number read. A response may hold rows up to it once more; those are never new.
    """

    def __init__(self, shard: Shard, after: int, start: Start, until: int | None) -> None:
        self.position = after
        self.until = until
        self._shard = shard
        self._start = start
        self._text = str(after)
        self._latest_since: datetime | None = None

    @property
    def complete(self) -> bool:
        """Whether everything up to ``until`` has been read."""
        return self.until is not None and self.position >= self.until

    def new_rows(self, raw: RawPage) -> pl.DataFrame:
        """The rows of ``raw`` after the position, up to ``until``.

        Raises:
            Halted: they do not ascend.
        """
        frame, facts = raw.frame, raw.facts
        if frame.height == 0:
            return frame
        column = frame.get_column(SEQUENCE)
        first, last = int(column[0]), int(column[-1])
        inside = first > self.position and (self.until is None or last <= self.until)
        if inside and (_ascending(column) if facts is None else facts.rising):
            return frame
        numbers = [int(text) for text in column]
        if any(left >= right for left, right in pairwise(numbers)):
            msg = f"{shown(self._shard)}: the service sent records out of order after {self.position}. Report it with this number."
            raise Halted(msg)
        known = sum(1 for number in numbers if number <= self.position)
        beyond = 0 if self.until is None else sum(1 for number in numbers if number > self.until)
        return frame.slice(known, max(0, frame.height - known - beyond))

    def passed_by(self, raw: RawPage) -> bool:
        """Whether ``raw`` goes on beyond ``until``."""
        return self.until is not None and raw.frame.height > 0 and int(raw.frame.item(-1, SEQUENCE)) > self.until

    def advance(self, raw: RawPage, frame: pl.DataFrame) -> None:
        """Note that ``frame``, the new rows of ``raw``, has been read."""
        if frame.height:
            self._text = str(frame.item(-1, SEQUENCE))
            self.position = int(self._text)
        if self.until is not None and self.passed_by(raw):
            self.position, self._text = self.until, str(self.until)

    def beginning(self, now: datetime) -> IteratorAt:
        """Where an iterator that is requested at ``now`` has to begin."""
        if self.position != ORIGIN:
            return IteratorAt(IteratorKind.AFTER, sequence=self._text)
        if self._start.kind is StartKind.TRIM_HORIZON:
            return IteratorAt(IteratorKind.TRIM_HORIZON)
        if self._start.kind is StartKind.AT_TIMESTAMP:
            return IteratorAt(IteratorKind.AT_TIMESTAMP, timestamp=self._start.timestamp)
        if self._latest_since is None:
            self._latest_since = now - _LATEST_SLACK
            return IteratorAt(IteratorKind.LATEST)
        # A second LATEST would skip what has arrived since the first one.
        return IteratorAt(IteratorKind.AT_TIMESTAMP, timestamp=self._latest_since)

    def may_begin_too_early(self, now: datetime) -> bool:
        """Whether Kinesis may have refused a start that lies in the future by its clock. With larger differences it refuses all calls."""
        moment = self._start.timestamp or self._latest_since
        return self.position == ORIGIN and moment is not None and now < moment + MOST_AHEAD


def _ascending(texts: pl.Series) -> bool:
    """Whether the texts have equal lengths and ascend, and so ascend as numbers, too. False does not mean that they do not."""
    return texts.str.len_bytes().n_unique() == 1 and bool((texts.slice(1) > texts.slice(0, len(texts) - 1)).all())
