"""Text columns to several typed columns: the workings of the stage ``parse``, one function per kind of text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import polars as pl
from polars.exceptions import PolarsError

from stream.transform.patterns import check_pattern
from stream.transform.stage import SchemaMismatch
from stream.transform.texts import WRONG_TYPE, check_text_type, from_text
from stream.transform.types import TIMESTAMP, parse_type
from stream.transform.values import FIRST_US, LAST_US

PARSE_FAILED: Final = "parse_failed"
TEXT: Final = "text"


@dataclass(frozen=True, slots=True)
class Parser:
    """``columns`` that ``read`` makes of a text column; with them it gives the reason, or null, of each row it could not read."""

    columns: Mapping[str, pl.DataType]
    read: Callable[[pl.Series], tuple[pl.DataFrame, pl.Series]]


def _evaluator(columns: Mapping[str, pl.Expr], failed: pl.Expr, name: str) -> Callable[[pl.Series], tuple[pl.DataFrame, pl.Series]]:
    reason = pl.when(pl.col(TEXT).is_not_null() & failed.fill_null(value=True)).then(pl.lit(f"{PARSE_FAILED}:{name}")).alias("reason")
    exprs = [value.alias(column) for column, value in columns.items()]

    def read(text: pl.Series) -> tuple[pl.DataFrame, pl.Series]:
        frame = text.alias(TEXT).to_frame()
        return frame.select(exprs), frame.select(reason).to_series()

    return read


Read = Callable[[pl.Series], tuple[pl.DataFrame, pl.Series]]


def by_distinct(read: Read) -> Read:
    """``read`` over the distinct values only, for what costs much a value and has few values."""

    def apply(text: pl.Series) -> tuple[pl.DataFrame, pl.Series]:
        distinct = text.unique(maintain_order=True)
        columns, reason = read(distinct)
        table = columns.with_columns(distinct.alias(TEXT), reason.alias("reason"))
        done = text.alias(TEXT).to_frame().join(table, on=TEXT, how="left", maintain_order="left", nulls_equal=True)
        return done.select(columns.columns), done["reason"]

    return apply


def regex(pattern: str, types: Mapping[str, str], name: str, path: tuple[str | int, ...]) -> Parser:
    """Named groups to columns; a group that takes no part in a match is null.

    Raises:
        SchemaMismatch: no regular expression, no named group, or a type for a group that is not there.
    """
    check_pattern(pattern, path)
    fields = pl.Series([""]).str.extract_groups(pattern).struct.fields
    groups = [field for field in fields if not field.isdigit()]
    if not groups:
        raise SchemaMismatch(path, f"{pattern!r} has no named group, so it gives no column", "write (?P<name>...) around what you need")
    for group in types:
        if group not in groups:
            raise SchemaMismatch(("types", group), f"the pattern has no group {group!r}; it has: {', '.join(groups)}", "remove the type")
    kinds = {group: parse_type(types.get(group, "string"), ("types", group)) for group in groups}
    for group, kind in kinds.items():
        check_text_type(kind, ("types", group))

    def read(text: pl.Series) -> tuple[pl.DataFrame, pl.Series]:
        found = text.str.extract_groups(pattern)
        # Where nothing matches all fields are null; whether anything does is asked apart, since groups may be optional.
        failed = text.is_not_null() & ~text.str.contains(pattern)
        raw = pl.DataFrame({group: found.struct.field(group) for group in groups})
        done = raw.select(from_text(pl.col(group), kind).alias(group) for group, kind in kinds.items())
        marks = [pl.when(failed).then(pl.lit(f"{PARSE_FAILED}:{name}"))]
        for group in groups:
            lost = raw[group].is_not_null() & done[group].is_null()
            if lost.any():
                marks.append(pl.when(lost).then(pl.lit(f"{WRONG_TYPE}:{group}")))
        return done, pl.select(pl.coalesce(marks).alias("reason")).to_series()

    return Parser({group: kind.polars for group, kind in kinds.items()}, read)


def timestamp(formats: Sequence[str], zone: str, into: str, name: str) -> Parser:
    """The first of ``formats`` (as in strftime) that fits; without an offset in the text the time is one of ``zone``.

    A time that the zone skips or has twice, when clocks change, is not read.

    Raises:
        SchemaMismatch: no such zone, or a format that cannot be read.
    """
    read = []
    for at, form in enumerate(formats):
        try:
            value = _moment(form, zone)
            pl.DataFrame({TEXT: ["x"]}).select(value)
        except PolarsError as error:
            said = str(error).splitlines()[0]
            path = ("timezone",) if "zone" in said else ("timestamp", at)
            message = f"times cannot be read as {form!r} in the zone {zone!r}: {said}"
            raise SchemaMismatch(path, message, "see chrono's strftime for formats, the IANA database for zones") from error
        read.append(value)
    done = pl.coalesce(read)
    return Parser({into: TIMESTAMP}, _evaluator({into: done}, done.is_null(), name))


def _moment(form: str, zone: str) -> pl.Expr:
    moment = pl.col(TEXT).str.to_datetime(form, time_unit="us", strict=False)
    if not any(offset in form for offset in ("%z", "%:z", "%#z")):
        moment = moment.dt.replace_time_zone(zone, ambiguous="null", non_existent="null")
    moment = moment.dt.convert_time_zone("UTC")
    return pl.when(moment.to_physical().is_between(FIRST_US, LAST_US)).then(moment).cast(TIMESTAMP)


URL_PARTS: Final = ("scheme", "user", "host", "port", "path", "query", "fragment")
_URL: Final = (
    r"^(?:(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*):)?(?://(?:(?P<user>[^/?#@\s]*)@)?(?P<host>\[[0-9A-Fa-f:.]+\]|[^/?#:@\s]*)"
    r"(?::(?P<port>[0-9]{0,5}))?)?(?P<path>[^?#\s]*)(?:\?(?P<query>[^#\s]*))?(?:#(?P<fragment>\S*))?$"
)
"""RFC 3986, appendix B, with the authority taken apart."""


def url(prefix: str, parts: Sequence[str], name: str) -> Parser:
    """Parts of an absolute or relative URL, percent-encoding untouched; host and scheme in lower case."""
    groups = pl.col(TEXT).str.extract_groups(_URL)
    every: dict[str, pl.Expr] = {part: groups.struct.field(part) for part in URL_PARTS}
    every["scheme"], every["host"] = every["scheme"].str.to_lowercase(), every["host"].str.to_lowercase()
    port = pl.when(every["port"] != "").then(every["port"])
    every["port"] = port.cast(pl.UInt16, strict=False)
    failed = ~pl.col(TEXT).str.contains(_URL) | (port.is_not_null() & every["port"].is_null())
    kinds: dict[str, pl.DataType] = {f"{prefix}{part}": pl.UInt16() if part == "port" else pl.String() for part in parts}
    return Parser(kinds, _evaluator({f"{prefix}{part}": every[part] for part in parts}, failed, name))


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
    return Parser(kinds, by_distinct(_evaluator(columns, pl.lit(value=False), name)))


def _first_that_fits(table: Sequence[tuple[str, str]]) -> pl.Expr:
    return pl.coalesce(pl.when(pl.col(TEXT).str.contains(pattern)).then(pl.lit(word)) for word, pattern in table)
