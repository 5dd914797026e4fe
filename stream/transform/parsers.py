"""Parses a text column into typed columns: the implementation of the stage ``parse``, with one function for each kind of text."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, cast

import polars as pl
from polars.exceptions import PanicException, PolarsError

from stream.native import KERNEL
from stream.recorded import is_recorded
from stream.transform import compiled
from stream.transform.fields import Fields, plain_fields
from stream.transform.patterns import check_pattern
from stream.transform.stage import SchemaMismatch
from stream.transform.text_values import WRONG_TYPE, check_text_type, from_text
from stream.transform.time_formats import ABSOLUTE, OFFSETS, directives, misread
from stream.transform.types import TIMESTAMP, parse_type
from stream.transform.values import in_range, repeats

PARSE_FAILED: Final = "parse_failed"
TEXT: Final = "text"


@dataclass(frozen=True, slots=True)
class Parser:
    """``read`` takes a text column and returns ``columns``, and for each row a reason, or null if the text could be read."""

    columns: Mapping[str, pl.DataType]
    read: Callable[[pl.Series], tuple[pl.DataFrame, pl.Series]]


Read = Callable[[pl.Series], tuple[pl.DataFrame, pl.Series]]


def evaluator(columns: Mapping[str, pl.Expr], failed: pl.Expr, reason: str) -> Read:
    """A ``Read`` that evaluates ``columns`` on the text, and gives ``reason`` where the text is not null and ``failed`` is true."""
    exprs = [value.alias(column) for column, value in columns.items()]
    reasons = pl.when(pl.col(TEXT).is_not_null() & failed.fill_null(value=True)).then(pl.lit(reason)).alias("reason")

    def read(text: pl.Series) -> tuple[pl.DataFrame, pl.Series]:
        # Both at once, so that shared expressions are evaluated once.
        done = text.alias(TEXT).to_frame().lazy().select(*exprs, reasons).collect(engine="in-memory")
        return done.drop("reason"), done["reason"]

    return read


def over_distinct_values(read: Read) -> Read:
    """``read``, which is expensive, applied to the distinct values only if values repeat often."""

    def apply(text: pl.Series) -> tuple[pl.DataFrame, pl.Series]:
        if not repeats(text):
            return read(text)
        distinct = text.unique(maintain_order=True)
        columns, reason = read(distinct)
        table = columns.with_columns(distinct.alias(TEXT), reason.alias("reason"))
        done = text.alias(TEXT).to_frame().join(table, on=TEXT, how="left", maintain_order="left", nulls_equal=True)
        return done.select(columns.columns), done["reason"]

    return apply


_DIGITS: Final = re.compile(r"(?<!\\)\(\?P?<(\w+)>(?:\[\+-\]\?|-\?)?\[0-9\](?:\+|\{[1-9][0-9]*(?:,[0-9]*)?\})\)")
"""A group that can only match digits, perhaps with a sign."""


def regex(pattern: str, types: Mapping[str, str], name: str, path: tuple[str | int, ...], kernel: Any = KERNEL) -> Parser:
    """Named groups to columns; a group that takes no part in a match is null.

    Raises:
        SchemaMismatch: not a regular expression, no named group, or a type for a group that does not exist.
    """
    check_pattern(pattern, path)
    fields = pl.Series([""]).str.extract_groups(pattern).struct.fields
    groups = [field for field in fields if not field.isdigit()]
    if not groups:
        raise SchemaMismatch(path, f"{pattern!r} has no named group, so it produces no column", "write (?P<name>...) around what you need")
    for group in types:
        if group not in groups:
            raise SchemaMismatch(("types", group), f"the pattern has no group {group!r}; it has: {', '.join(groups)}", "remove the type")
    kinds = {group: parse_type(types.get(group, "string"), ("types", group)) for group in groups}
    for group, kind in kinds.items():
        check_text_type(kind, ("types", group))

    digits = {match[1] for match in _DIGITS.finditer(pattern) if pattern.count(f"<{match[1]}>") == 1}
    plain = plain_fields(pattern) if kernel is not None else None

    def read(text: pl.Series) -> tuple[pl.DataFrame, pl.Series]:
        raw, failed = (_cut(text, pattern, plain, kernel) if plain is not None else None) or _matched(text, pattern, groups)
        done = raw.select(from_text(pl.col(group), kind, is_whole=group in digits).alias(group) for group, kind in kinds.items())
        marks = [pl.when(failed).then(pl.lit(f"{PARSE_FAILED}:{name}"))]
        for group in groups:
            lost = raw[group].is_not_null() & done[group].is_null()
            if lost.any():
                marks.append(pl.when(lost).then(pl.lit(f"{WRONG_TYPE}:{group}")))
        return done, pl.select(pl.coalesce(marks).alias("reason")).to_series()

    return Parser({group: kind.polars for group, kind in kinds.items()}, read)


def _matched(text: pl.Series, pattern: str, groups: Sequence[str]) -> tuple[pl.DataFrame, pl.Series]:
    """The groups of each text, and which texts do not match."""
    found = text.str.extract_groups(pattern)
    raw = pl.DataFrame({group: found.struct.field(group) for group in groups})
    # Without a match, all groups are null. They may be null in a match, too, so such texts are matched again.
    empty = text.is_not_null() & raw.select(pl.all_horizontal(pl.all().is_null())).to_series()
    return raw, empty.scatter(empty.arg_true(), ~text.filter(empty).str.contains(pattern)) if empty.any() else empty


def _cut(text: pl.Series, pattern: str, plain: Fields, kernel: Any) -> tuple[pl.DataFrame, pl.Series] | None:
    """As ``_matched``, but with the kernel; None if the kernel cannot do it."""
    matches = text.str.contains(pattern).fill_null(value=False)
    kept = [(separator, width, group is not None) for separator, width, group in plain.fields]
    found = compiled.cut(kernel, text, None if matches.all() else matches, plain.skip, kept)
    if found is None:
        return None
    return pl.DataFrame(dict(zip(filter(None, (group for _, _, group in plain.fields)), found, strict=True))), text.is_not_null() & ~matches


def timestamp(formats: Sequence[str], zone: str, into: str, name: str) -> Parser:
    """Reads times by the first of ``formats`` (as in strftime) that fits; a text without an offset is in ``zone``.

    A time that does not exist in the zone, or exists twice, because the clocks change, is not read.

    Raises:
        SchemaMismatch: no such zone, or a format that cannot be read.
    """
    moments = []
    for at, time_format in enumerate(formats):
        if (problem := misread(time_format)) and not is_recorded():
            raise SchemaMismatch(("timestamp", at), f"{time_format!r}: {problem[0]}", problem[1])
        try:
            moment = _moment(time_format, zone)
            pl.DataFrame({TEXT: ["x"]}).select(moment)
        except PolarsError as error:
            said = str(error).splitlines()[0]
            path = ("timezone",) if "zone" in said else ("timestamp", at)
            message = f"times cannot be read as {time_format!r} in the zone {zone!r}: {said}"
            raise SchemaMismatch(path, message, "see chrono's strftime for formats, the IANA database for zones") from error
        if not is_recorded() and (text := _unreadable_example(time_format, moment)) is not None:
            message = f"no text can be read as {time_format!r}, not even {text!r}, which was written with it"
            raise SchemaMismatch(("timestamp", at), message, "a time needs a day, month and year; hours up to 12 (%I) need %p")
        moments.append(moment)
    failed = pl.lit(f"{PARSE_FAILED}:{name}")

    def read(text: pl.Series) -> tuple[pl.DataFrame, pl.Series]:
        done = _read_as(moments[0], text)
        for moment in moments[1:]:
            left = (done.is_null() & text.is_not_null()).arg_true()
            if not len(left):
                break
            done = done.scatter(left, _read_as(moment, text.gather(left)))
        return done.alias(into).to_frame(), _reason(done.is_null() & text.is_not_null(), failed)

    return Parser({into: TIMESTAMP}, read)


def _read_as(moment: pl.Expr, text: pl.Series) -> pl.Series:
    return _with_written_year(in_range(text.alias(TEXT).to_frame().select(moment).to_series()), text)


_FOUR_DIGITS: Final = 1000
_YEAR_1000_US: Final = -30_610_224_000_000_000


def _with_written_year(moments: pl.Series, text: pl.Series) -> pl.Series:
    """``moments``, but null for a year before 1000 that is not written with four digits: ``%Y`` would read 24 as the year 24."""
    micros = moments.to_physical()
    early = cast("int | None", micros.min())
    if early is None or early >= _YEAR_1000_US:
        return moments
    # The zone may move a moment into the year before or after.
    year, frame = pl.col("moment").dt.year(), pl.DataFrame([moments.alias("moment"), text.alias(TEXT)])
    written = [pl.col(TEXT).str.contains((year + step).cast(pl.String).str.zfill(4), literal=True) for step in (-1, 0, 1)]
    good = (year >= _FOUR_DIGITS) | pl.any_horizontal(written)
    return frame.select(pl.when(good).then(pl.col("moment")).alias(moments.name)).to_series()


def _reason(lost: pl.Series, reason: pl.Expr) -> pl.Series:
    if not lost.any():
        return pl.repeat(None, len(lost), dtype=pl.String, eager=True).alias("reason")
    return pl.select(pl.when(lost).then(reason).alias("reason")).to_series()


def _moment(time_format: str, zone: str) -> pl.Expr:
    moment = pl.col(TEXT).str.to_datetime(time_format, time_unit="us", strict=False)
    if directives(time_format) & OFFSETS:
        return moment.dt.convert_time_zone("UTC")
    if zone == "UTC" or directives(time_format) & ABSOLUTE:
        # Every time exists exactly once in UTC, and checking for it would take four times as long as reading the text.
        return moment.dt.replace_time_zone("UTC")
    return moment.dt.replace_time_zone(zone, ambiguous="null", non_existent="null").dt.convert_time_zone("UTC")


_EXAMPLE: Final = datetime(2001, 2, 3, 16, 5, 6, 789012, tzinfo=UTC)


def _unreadable_example(time_format: str, moment: pl.Expr) -> str | None:
    """A time formatted with ``time_format`` that cannot be read back; None if it can, or if none can be formatted."""
    try:
        text = pl.Series(TEXT, [_EXAMPLE]).dt.strftime(time_format)
    except (PolarsError, PanicException):
        return None
    return text[0] if _read_as(moment, text)[0] is None else None


_BROWSERS: Final = (
    ("bot", r"(?i)(?:bot|crawler|spider|slurp|facebookexternalhit|monitor)[^\s;/]*(?:/([0-9]+))?"),
    ("Edge", r"(?:Edge|Edg|EdgA|EdgiOS)/([0-9]+)"),
    ("Opera", r"(?:OPR|Opera)/([0-9]+)"),
    ("Samsung Internet", r"SamsungBrowser/([0-9]+)"),
    ("Firefox", r"(?:Firefox|FxiOS)/([0-9]+)"),
    ("Chrome", r"(?:Chrome|CriOS|Chromium)/([0-9]+)"),
    ("Safari", r"Version/([0-9]+)\S* .*Safari/"),
    ("Internet Explorer", r"(?:MSIE |Trident/.*rv:)([0-9]+)"),
    ("curl", r"^curl/([0-9]+)"),
    ("library", r"^(?:python-requests|Python-urllib|okhttp|Go-http-client|Java|axios|aws-sdk-\w+|Boto3|Wget|PostmanRuntime)/([0-9]+)"),
)
_SYSTEMS: Final = (
    ("iOS", r"iPhone|iPad|iPod"),
    ("Android", r"Android"),
    ("Windows", r"Windows"),
    ("macOS", r"Mac OS X|Macintosh"),
    ("ChromeOS", r"CrOS"),
    ("Linux", r"Linux|X11"),
)
_DEVICES: Final = (
    ("bot", _BROWSERS[0][1]),
    ("tablet", r"iPad|Tablet|Android [^)]*\bTab\b"),
    ("phone", r"iPhone|iPod|Android.*Mobile|Mobile.*Android|Windows Phone"),
    ("tablet", r"Android"),
    ("desktop", r"Windows|Macintosh|X11|CrOS|Linux"),
)


def user_agent(prefix: str, name: str) -> Parser:
    """``browser``, its major ``version``, ``os`` and ``device``, each null where unknown; good for counting, not for deciding."""
    text = pl.col(TEXT)
    version = pl.coalesce(
        pl.when(_first_that_fits(_BROWSERS) == browser).then(text.str.extract(pattern, 1)) for browser, pattern in _BROWSERS
    )
    columns = {
        f"{prefix}browser": _first_that_fits(_BROWSERS),
        f"{prefix}version": version.cast(pl.Int32, strict=False),
        f"{prefix}os": _first_that_fits(_SYSTEMS),
        f"{prefix}device": _first_that_fits(_DEVICES),
    }
    kinds: dict[str, pl.DataType] = {column: pl.Int32() if column.endswith("version") else pl.String() for column in columns}
    return Parser(kinds, over_distinct_values(evaluator(columns, pl.lit(value=False), f"{PARSE_FAILED}:{name}")))


def _first_that_fits(table: Sequence[tuple[str, str]]) -> pl.Expr:
    return pl.coalesce(pl.when(pl.col(TEXT).str.contains(pattern)).then(pl.lit(word)) for word, pattern in table)
